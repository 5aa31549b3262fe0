// SPDX-License-Identifier: Apache-2.0
#pragma once

// The CUDA plugin on a real GPU, as a worker loads it, and memory on both sides of the bus: what
// the tests and the benchmark on a GPU share.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/compute_plugin.h"

namespace annulus::kernels {

// The plugin's library, loaded and opened on device 0. The path: ANNULUS_CUDA_PLUGIN, or
// ../lib/libannulus-compute-cuda.so beside the folder of this program.
class GpuDevice {
 public:
  // provider and deterministic: of annulusComputeOptions; null: the plugin's choice.
  explicit GpuDevice(const char* provider = nullptr, bool deterministic = false);
  ~GpuDevice();
  GpuDevice(const GpuDevice&) = delete;
  GpuDevice& operator=(const GpuDevice&) = delete;

  // Why there is no such device or provider; "" if there is one. Everything below needs one.
  const std::string& missing() const { return missing_; }
  const annulusComputeV1& api() const { return *api_; }
  annulusDevice* device() const { return device_; }
  annulusStream* stream() const { return stream_; }
  std::string Description() const;

  // Ends the program with the plugin's words when a call failed.
  void Check(annulusComputeStatus status) const;
  // Waits for the stream, a minute at most. Returns when it was reached, CLOCK_MONOTONIC ns.
  int64_t Drain() const;

 private:
  void* library_ = nullptr;
  const annulusComputeV1* api_ = nullptr;
  annulusDevice* device_ = nullptr;
  annulusStream* stream_ = nullptr;
  annulusEvent* event_ = nullptr;
  std::string missing_;
};

// A copy of host bytes on the device while it lives.
class DeviceCopy {
 public:
  DeviceCopy(const GpuDevice& gpu, const void* host, size_t bytes);
  ~DeviceCopy();
  DeviceCopy(const DeviceCopy&) = delete;
  DeviceCopy& operator=(const DeviceCopy&) = delete;

  void* data() const { return data_; }
  void Download(void* host) const;  // after Drain

 private:
  const GpuDevice& gpu_;
  size_t bytes_;
  void* data_ = nullptr;
};

}  // namespace annulus::kernels
