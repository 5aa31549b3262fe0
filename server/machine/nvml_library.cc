// SPDX-License-Identifier: Apache-2.0
// The driver's header is not needed to build: the calls keep their names and forms (a new form gets
// a new suffix, _v2), so what is used of them is declared here.
#include "server/machine/nvml_library.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace annulus::machine {
namespace {

constexpr int kSuccess = 0;
constexpr int kAccessOk = 0;
constexpr unsigned kMigEnabled = 1;

}  // namespace

struct NvmlLibrary::Calls {
  // nvmlPciInfo_t of nvmlDeviceGetPciInfo_v3.
  struct PciInfo {
    char legacy_bus_id[16];
    unsigned domain;
    unsigned bus;
    unsigned device;
    unsigned device_id;
    unsigned subsystem_id;
    char bus_id[32];
  };

  int (*init)() = nullptr;
  int (*shutdown)() = nullptr;
  const char* (*error_string)(int) = nullptr;
  int (*count)(unsigned*) = nullptr;
  int (*by_index)(unsigned, Device*) = nullptr;
  int (*pci_info)(Device, PciInfo*) = nullptr;
  int (*uuid)(Device, char*, unsigned) = nullptr;
  int (*p2p_status)(Device, Device, int, int*) = nullptr;
  int (*mig_mode)(Device, unsigned*, unsigned*) = nullptr;  // driver 450; may be missing

  // What is missing, or "".
  std::string Resolve(void* library) {
    std::string missing;
    const auto take = [&](const char* name, auto* call) {
      *call = reinterpret_cast<std::remove_pointer_t<decltype(call)>>(dlsym(library, name));
      if (*call == nullptr) absl::StrAppend(&missing, missing.empty() ? "" : ", ", name);
    };
    take("nvmlInit_v2", &init);
    take("nvmlShutdown", &shutdown);
    take("nvmlErrorString", &error_string);
    take("nvmlDeviceGetCount_v2", &count);
    take("nvmlDeviceGetHandleByIndex_v2", &by_index);
    take("nvmlDeviceGetPciInfo_v3", &pci_info);
    take("nvmlDeviceGetUUID", &uuid);
    take("nvmlDeviceGetP2PStatus", &p2p_status);
    std::string needed = missing;
    take("nvmlDeviceGetMigMode", &mig_mode);
    return needed;
  }
};

NvmlLibrary::NvmlLibrary(void* library, std::unique_ptr<Calls> calls)
    : library_(library), calls_(std::move(calls)) {}

absl::StatusOr<std::unique_ptr<NvmlLibrary>> NvmlLibrary::Open(const std::string& path) {
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return absl::NotFoundError(absl::StrCat("no NVML: ", dlerror()));
  auto calls = std::make_unique<Calls>();
  const std::string missing = calls->Resolve(library);
  const int result = missing.empty() ? calls->init() : kSuccess;
  if (missing.empty() && result == kSuccess) {
    return std::unique_ptr<NvmlLibrary>(new NvmlLibrary(library, std::move(calls)));
  }
  const std::string why = missing.empty()
                              ? absl::StrCat("nvmlInit: ", calls->error_string(result))
                              : absl::StrCat("NVML is too old: ", path, " has no ", missing);
  dlclose(library);
  return absl::FailedPreconditionError(why);
}

NvmlLibrary::~NvmlLibrary() {
  calls_->shutdown();
  dlclose(library_);
}

absl::Status NvmlLibrary::ToStatus(int result, const char* call) const {
  if (result == kSuccess) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(call, ": ", calls_->error_string(result)));
}

absl::StatusOr<unsigned> NvmlLibrary::CountDevices() const {
  unsigned count = 0;
  const absl::Status status = ToStatus(calls_->count(&count), "nvmlDeviceGetCount");
  if (!status.ok()) return status;
  return count;
}

absl::StatusOr<NvmlLibrary::Device> NvmlLibrary::FindDevice(unsigned index) const {
  Device device = nullptr;
  const absl::Status status =
      ToStatus(calls_->by_index(index, &device), "nvmlDeviceGetHandleByIndex");
  if (!status.ok()) return status;
  return device;
}

absl::StatusOr<std::string> NvmlLibrary::BusId(Device device) const {
  Calls::PciInfo info{};
  const absl::Status status = ToStatus(calls_->pci_info(device, &info), "nvmlDeviceGetPciInfo");
  if (!status.ok()) return status;
  return absl::StrFormat("%04x:%02x:%02x.0", info.domain, info.bus, info.device);
}

absl::StatusOr<std::string> NvmlLibrary::Uuid(Device device) const {
  std::array<char, 96> text{};
  const absl::Status status =
      ToStatus(calls_->uuid(device, text.data(), text.size() - 1), "nvmlDeviceGetUUID");
  if (!status.ok()) return status;
  const std::string uuid = text.data();
  const bool printable =
      std::all_of(uuid.begin(), uuid.end(), [](char c) { return c >= 0x20 && c <= 0x7e; });
  if (printable) return uuid;
  return absl::FailedPreconditionError("nvmlDeviceGetUUID: expected printable ASCII");
}

bool NvmlLibrary::IsPartitioned(Device device) const {
  unsigned current = 0;
  unsigned pending = 0;
  return calls_->mig_mode != nullptr && calls_->mig_mode(device, &current, &pending) == kSuccess &&
         current == kMigEnabled;
}

absl::StatusOr<bool> NvmlLibrary::MayAccess(Device from, Device to, Access how) const {
  int found = -1;
  const absl::Status status = ToStatus(calls_->p2p_status(from, to, static_cast<int>(how), &found),
                                       "nvmlDeviceGetP2PStatus");
  if (!status.ok()) return status;
  return found == kAccessOk;
}

}  // namespace annulus::machine
