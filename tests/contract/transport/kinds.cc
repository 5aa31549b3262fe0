// SPDX-License-Identifier: Apache-2.0
#include "tests/contract/transport/kinds.h"

#include "server/transport/cuipc/cuipc_plugin.h"
#include "server/transport/nccl/nccl_plugin.h"
#include "tests/contract/transport/fake_gpu.h"
#include "tests/support/under_sanitizer.h"

namespace annulus::transport {
namespace {

Kind Cuipc() {
  return {.name = "Cuipc",
          .table = [] { return cuipc::CuipcPlugin(); },
          .memory = &cuipc::FakeGpu::The()};
}

// What is not in device memory goes the host transport's way.
Kind CuipcHostMemory() {
  return {.name = "CuipcHostMemory", .table = [] { return cuipc::CuipcPlugin(); }};
}

Kind PacedCuipc() {
  Kind kind = Cuipc();
  kind.name = "PacedCuipc";
  kind.table = [] {
    PacingModel model;
    model.inner = {.bytes_per_second = 4e9, .latency_seconds = 20e-6};
    return PacingTransport(cuipc::CuipcPlugin(), model);
  };
  return kind;
}

// Over a model of NCCL and CUDA, whose device memory is this process's own.
Kind NcclOverModel() {
  return {.name = "NcclOverModel", .table = [] { return NcclPlugin(); }, .outlives_a_rank = false};
}

}  // namespace

std::vector<Kind> ProcessKinds() {
  std::vector<Kind> kinds = {HostShm(), HostTcp(), PacedHost(), Cuipc(), CuipcHostMemory()};
  if (!kUnderSanitizer) kinds.push_back(PacedCuipc());
  return kinds;
}

std::vector<Kind> AllKinds() {
  std::vector<Kind> kinds = ProcessKinds();
  kinds.push_back(NcclOverModel());
  return kinds;
}

}  // namespace annulus::transport
