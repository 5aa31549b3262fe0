// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "annulus/types.h"
#include "kernels/compute_plugin.h"

namespace annulus::cli {

inline annulusDtype ToKernels(client::DataType dtype) {
  switch (dtype) {
    case client::DataType::kF32:
      return ANNULUS_F32;
    case client::DataType::kBf16:
      return ANNULUS_BF16;
    case client::DataType::kF16:
      break;
  }
  return ANNULUS_F16;
}

}  // namespace annulus::cli
