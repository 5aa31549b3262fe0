// SPDX-License-Identifier: Apache-2.0
#include "tests/gpu/gpu_transport.h"

#include <cuda_runtime.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

namespace annulus::transport {
namespace {

void Check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", call, cudaGetErrorString(error));
  std::abort();
}

}  // namespace

const annulusTransportV1* LoadTransport(const std::string& name) {
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe");
  const std::filesystem::path path =
      program.parent_path().parent_path() / "lib" / ("libannulus-transport-" + name + ".so");
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  const void* table = library == nullptr ? nullptr : dlsym(library, ANNULUS_TRANSPORT_V1_SYMBOL);
  if (table == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    std::abort();
  }
  return static_cast<const annulusTransportV1*>(table);
}

bool OpensHere(const annulusTransportV1* table) {
  annulusTransportOptions options{};
  options.struct_size = sizeof(options);
  options.group = "probe";
  options.size = 1;
  options.host_id = "host";
  annulusTransport* transport = nullptr;
  annulusTransportHandle handle{};
  if (table->open(&options, &transport, &handle) == ANNULUS_TRANSPORT_OK) {
    table->close(transport);
    return true;
  }
  std::printf("no CUDA device: %s\n", table->open_error());
  return false;
}

void* CudaMemory::Allocate(size_t bytes) {
  void* memory = nullptr;
  Check(cudaMalloc(&memory, bytes), "cudaMalloc");
  return memory;
}

void CudaMemory::Free(void* memory) { Check(cudaFree(memory), "cudaFree"); }

void CudaMemory::Upload(void* device, const void* host, size_t bytes) {
  Check(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice), "cudaMemcpy to the device");
}

void CudaMemory::Download(void* host, const void* device, size_t bytes) {
  Check(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy to the host");
}

}  // namespace annulus::transport
