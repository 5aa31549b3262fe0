// SPDX-License-Identifier: Apache-2.0
#include "tests/gpu/gpu_device.h"

#include <cuda_runtime.h>
#include <dlfcn.h>
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

namespace annulus::kernels {
namespace {

constexpr int64_t kWaitNs = 60'000'000'000;

std::string PluginPath() {
  if (const char* path = std::getenv("ANNULUS_CUDA_PLUGIN")) return path;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe");
  return program.parent_path().parent_path() / "lib" / "libannulus-compute-cuda.so";
}

void CheckCuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::abort();
}

}  // namespace

GpuDevice::GpuDevice(const char* provider, bool deterministic) {
  library_ = dlopen(PluginPath().c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library_ == nullptr) {
    missing_ = dlerror();
    return;
  }
  api_ = static_cast<const annulusComputeV1*>(dlsym(library_, ANNULUS_COMPUTE_V1_SYMBOL));
  annulusComputeOptions options = {sizeof(options), 0, 1};
  options.provider = provider;
  options.deterministic = deterministic ? 1 : 0;
  if (api_->open(&options, &device_) != ANNULUS_COMPUTE_OK) {
    missing_ = api_->last_error();
    const bool of_provider = missing_.rfind("provider", 0) == 0;  // there is a device
    if (!of_provider) missing_ = "no CUDA device: " + missing_;
    return;
  }
  Check(api_->stream_create(device_, &stream_));
  Check(api_->event_create(device_, &event_));
}

GpuDevice::~GpuDevice() {
  if (device_ != nullptr) {
    api_->event_destroy(event_);
    api_->stream_destroy(stream_);
    api_->close(device_);
  }
  if (library_ != nullptr) dlclose(library_);
}

std::string GpuDevice::Description() const {
  annulusDeviceInfo info = {};
  info.struct_size = sizeof(info);
  Check(api_->device_info(device_, &info));
  return info.description;
}

void GpuDevice::Check(annulusComputeStatus status) const {
  if (status == ANNULUS_COMPUTE_OK) return;
  std::fprintf(stderr, "the device failed: %s\n", api_->last_error());
  std::abort();
}

int64_t GpuDevice::Drain() const {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const int64_t deadline = int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec + kWaitNs;
  int64_t time_ns = 0;
  Check(api_->event_record(event_, stream_));
  Check(api_->event_synchronize(event_, deadline, &time_ns));
  return time_ns;
}

DeviceCopy::DeviceCopy(const GpuDevice& gpu, const void* host, size_t bytes)
    : gpu_(gpu), bytes_(bytes) {
  gpu_.Check(gpu_.api().alloc(gpu_.device(), bytes_, &data_));
  CheckCuda(cudaMemcpy(data_, host, bytes_, cudaMemcpyHostToDevice), "cudaMemcpy to the device");
}

DeviceCopy::~DeviceCopy() { gpu_.api().free(gpu_.device(), data_); }

void DeviceCopy::Download(void* host) const {
  CheckCuda(cudaMemcpy(host, data_, bytes_, cudaMemcpyDeviceToHost), "cudaMemcpy to the host");
}

}  // namespace annulus::kernels
