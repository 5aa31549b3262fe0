// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace annulus::machine {

// As much of NVML, the management library of NVIDIA's driver, as is asked here. It is opened at run
// time and nothing links it. Unlike CUDA it sees the GPUs that CUDA_VISIBLE_DEVICES hides, and it
// makes no context. Thread safe.
class NvmlLibrary {
 public:
  using Device = struct nvmlDevice_st*;
  // What one GPU may do to the memory of another; the values are NVML's.
  enum class Access { kRead = 0, kWrite = 1, kNvlink = 2 };

  // `path`: a name that the dynamic loader looks for, or a path. NOT_FOUND: not there, as where
  // there is no driver. FAILED_PRECONDITION: a call is missing, or it cannot be initialised.
  static absl::StatusOr<std::unique_ptr<NvmlLibrary>> Open(const std::string& path);
  ~NvmlLibrary();
  NvmlLibrary(const NvmlLibrary&) = delete;
  NvmlLibrary& operator=(const NvmlLibrary&) = delete;

  // The calls below fail with what NVML says, as FAILED_PRECONDITION.

  // GPUs of the machine, those included that FindDevice may not open.
  absl::StatusOr<unsigned> CountDevices() const;
  absl::StatusOr<Device> FindDevice(unsigned index) const;
  absl::StatusOr<std::string> BusId(Device device) const;  // "0000:3b:00.0"
  absl::StatusOr<std::string> Uuid(Device device) const;   // printable
  // Whether the GPU is split into parts (MIG); false where NVML does not know such.
  bool IsPartitioned(Device device) const;
  // Whether `from` may access `to` in this way. kNvlink: it would go over NVLink, directly or
  // through NVSwitches.
  absl::StatusOr<bool> MayAccess(Device from, Device to, Access how) const;

 private:
  struct Calls;
  NvmlLibrary(void* library, std::unique_ptr<Calls> calls);
  absl::Status ToStatus(int result, const char* call) const;

  void* const library_;
  const std::unique_ptr<Calls> calls_;
};

}  // namespace annulus::machine
