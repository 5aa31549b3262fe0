// SPDX-License-Identifier: Apache-2.0
// What the transport suite runs over on a GPU: ranks of one process on one card.
#include <cstdlib>

#include "tests/contract/transport/kinds.h"
#include "tests/gpu/gpu_transport.h"

namespace annulus::transport {

std::vector<Kind> AllKinds() {
  static const annulusTransportV1* const cuipc = LoadTransport("cuipc");
  static const bool opens = OpensHere(cuipc);
  static CudaMemory memory;
  if (!opens) std::exit(0);  // ctest knows it by what was printed; without a kind there is no suite
  return {{.name = "Cuipc", .table = [] { return cuipc; }, .memory = &memory}};
}

}  // namespace annulus::transport
