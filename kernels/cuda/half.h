// SPDX-License-Identifier: Apache-2.0
#pragma once

// The two 16-bit formats of the matrix units, as a kernel is written over one of them.

#include <cstdint>

#include "kernels/compute_plugin.h"
#include "kernels/host_device.h"
#include "kernels/numeric.h"

namespace annulus::kernels::cuda {

struct Bf16 {
  static constexpr annulusDtype kDtype = ANNULUS_BF16;
  ANNULUS_HOST_DEVICE static float ToFloat(uint16_t bits) { return Bf16ToFloat(bits); }
  ANNULUS_HOST_DEVICE static uint16_t FromFloat(float value) { return FloatToBf16(value); }
  ANNULUS_HOST_DEVICE static bool Finite(uint16_t bits) { return (bits & 0x7f80) != 0x7f80; }
};
struct F16 {
  static constexpr annulusDtype kDtype = ANNULUS_F16;
  ANNULUS_HOST_DEVICE static float ToFloat(uint16_t bits) { return F16ToFloat(bits); }
  ANNULUS_HOST_DEVICE static uint16_t FromFloat(float value) { return FloatToF16(value); }
  ANNULUS_HOST_DEVICE static bool Finite(uint16_t bits) { return (bits & 0x7c00) != 0x7c00; }
};

}  // namespace annulus::kernels::cuda
