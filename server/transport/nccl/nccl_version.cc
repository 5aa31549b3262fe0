// SPDX-License-Identifier: Apache-2.0
#include "server/transport/nccl/nccl_api.h"

namespace annulus::transport::nccl {

std::string VersionWords(int version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

}  // namespace annulus::transport::nccl
