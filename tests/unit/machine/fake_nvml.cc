// SPDX-License-Identifier: Apache-2.0
// A libnvidia-ml.so.1 that says what a test tells it to. Built with ANNULUS_OLD_NVML it is one from
// before GPUs were asked about their peers.
#include "tests/unit/machine/fake_nvml.h"

#include <cstdio>
#include <cstring>
#include <memory>

namespace {

using annulus::machine::FakeNvml;

constexpr int kInvalidArgument = 2;

FakeNvml machine;
int devices[annulus::machine::kFakeGpus];

int IndexOf(const void* device) {
  return static_cast<int>(static_cast<const int*>(device) - devices);
}

struct PciInfo {
  char legacy_bus_id[16];
  unsigned domain, bus, device, device_id, subsystem_id;
  char bus_id[32];
};

}  // namespace

#define ANNULUS_EXPORT extern "C" __attribute__((visibility("default")))

ANNULUS_EXPORT FakeNvml* NewFakeNvml() {
  std::destroy_at(&machine);
  return std::construct_at(&machine);
}

ANNULUS_EXPORT int nvmlInit_v2() {
  std::unique_lock lock(machine.mutex);
  machine.changed.wait(lock, [] { return !machine.hangs; });
  if (machine.init_result == 0) ++machine.inits;
  return machine.init_result;
}
ANNULUS_EXPORT int nvmlShutdown() {
  const std::lock_guard lock(machine.mutex);
  ++machine.shutdowns;
  machine.changed.notify_all();
  return 0;
}
ANNULUS_EXPORT const char* nvmlErrorString(int result) {
  return result == 9 ? "Driver Not Loaded" : "Some Error";
}
ANNULUS_EXPORT int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = static_cast<unsigned>(machine.gpus);
  return 0;
}
ANNULUS_EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  if (index >= annulus::machine::kFakeGpus) return kInvalidArgument;
  *device = &devices[index];
  return machine.find_result[index];
}
ANNULUS_EXPORT int nvmlDeviceGetPciInfo_v3(void* device, void* out) {
  PciInfo info{};
  info.bus = machine.buses[IndexOf(device)];
  std::snprintf(info.bus_id, sizeof(info.bus_id), "00000000:%02X:00.0", info.bus);
  std::memcpy(out, &info, sizeof(info));
  return 0;
}
ANNULUS_EXPORT int nvmlDeviceGetUUID(void*, char* text, unsigned bytes) {
  std::snprintf(text, bytes, "%s", machine.uuid);
  return 0;
}
#ifndef ANNULUS_OLD_NVML
ANNULUS_EXPORT int nvmlDeviceGetP2PStatus(void* from, void* to, int how, int* status) {
  *status = machine.access[how][IndexOf(from)][IndexOf(to)];
  return machine.access_result[IndexOf(to)];
}
ANNULUS_EXPORT int nvmlDeviceGetMigMode(void*, unsigned* current, unsigned* pending) {
  *current = machine.mig;
  *pending = 0;
  return 0;
}
#endif
