// SPDX-License-Identifier: Apache-2.0
#include "server/worker/wire_memory.h"

#include <string>

#include "absl/status/status.h"

namespace annulus::worker {
namespace {

// Whether `transport` is to be asked again.
bool Keeps(const absl::Status& status, transport::Transport* transport) {
  if (status.ok()) return true;
  transport->Abort(std::string(status.message()));
  return false;
}

}  // namespace

Memory WireOf(const Device& device, const transport::Transport* transport) {
  const bool staged =
      !device.host_memory() && transport != nullptr && !transport->moves_device_memory();
  return staged ? Memory::kHost : Memory::kDevice;
}

void WireMemory::AddSlab(void* data, size_t bytes, Memory memory) {
  std::lock_guard lock(mutex_);
  slabs_[data] = {bytes, memory};
  std::erase_if(transports_, [&](transport::Transport* transport) {
    return WireOf(*device_, transport) == memory &&
           !Keeps(transport->RegisterMemory(data, bytes), transport);
  });
}

void WireMemory::RemoveSlab(void* data) {
  std::lock_guard lock(mutex_);
  const auto slab = slabs_.extract(data);
  if (slab.empty()) return;
  std::erase_if(transports_, [&](transport::Transport* transport) {
    return WireOf(*device_, transport) == slab.mapped().memory &&
           !Keeps(transport->DeregisterMemory(data), transport);
  });
}

void WireMemory::AddTransport(transport::Transport* transport) {
  std::lock_guard lock(mutex_);
  for (const auto& [data, slab] : slabs_) {
    if (WireOf(*device_, transport) != slab.memory) continue;
    if (!Keeps(transport->RegisterMemory(data, slab.bytes), transport)) return;
  }
  transports_.insert(transport);
}

void WireMemory::RemoveTransport(transport::Transport* transport) {
  std::lock_guard lock(mutex_);
  transports_.erase(transport);
}

}  // namespace annulus::worker
