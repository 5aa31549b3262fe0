// SPDX-License-Identifier: Apache-2.0
#pragma once

// A transport plugin for device memory, as a worker loads it, and memory of GPU 0 for it to move:
// what the tests and the benchmark of transports on a GPU share.

#include <string>

#include "server/transport/transport_plugin.h"
#include "tests/contract/transport/memory.h"

namespace annulus::transport {

// libannulus-transport-<name>.so in ../lib of this program's folder. Ends the program when it is
// not there: it was not built.
const annulusTransportV1* LoadTransport(const std::string& name);

// Whether `table` opens on GPU 0; prints "no CUDA device" and why otherwise.
bool OpensHere(const annulusTransportV1* table);

// cudaMalloc and cudaMemcpy. Ends the program when CUDA fails.
class CudaMemory final : public DeviceMemory {
 public:
  void* Allocate(size_t bytes) override;
  void Free(void* memory) override;
  void Upload(void* device, const void* host, size_t bytes) override;
  void Download(void* host, const void* device, size_t bytes) override;
};

}  // namespace annulus::transport
