// SPDX-License-Identifier: Apache-2.0
#pragma once

// bfloat16 and IEEE half precision as bit patterns, converted in software. Rounding is to nearest,
// ties to even; NaN stays NaN (quietened), infinities stay. Results do not depend on the
// flush-to-zero state of the calling thread, except that bf16 subnormals are float subnormals.

#include <bit>
#include <cstdint>

namespace annulus::kernels {

constexpr float Bf16ToFloat(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

constexpr uint16_t FloatToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t quiet_nan = (bits >> 16) | 0x40u;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet_nan : rounded);
}

constexpr float F16ToFloat(uint16_t half) {
  const uint32_t magnitude = (half & 0x7fffu) << 13;
  const uint32_t sign = (half & 0x8000u) << 16;
  constexpr uint32_t kExponent = 0x7c00u << 13;
  constexpr uint32_t kRebias = (127u - 15u) << 23;
  const uint32_t exponent = magnitude & kExponent;
  const float normal = std::bit_cast<float>(magnitude + kRebias);
  // A subnormal half: borrow an implicit one, take it away again as a float.
  const float subnormal = std::bit_cast<float>(magnitude + kRebias + (1u << 23)) -
                          std::bit_cast<float>(kRebias + (1u << 23));
  const float special = std::bit_cast<float>(magnitude | 0x7f800000u);
  const float absolute = exponent == 0 ? subnormal : exponent == kExponent ? special : normal;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(absolute) | sign);
}

constexpr uint16_t FloatToF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  constexpr uint32_t kOverflow = (127u + 16u) << 23;
  constexpr uint32_t kSmallestNormal = (127u - 14u) << 23;
  // Adding this float aligns a subnormal half's last bit with the float's last bit.
  constexpr uint32_t kAlign = (127u - 15u + 23u - 10u + 1u) << 23;
  uint32_t half = 0;
  if (magnitude >= kOverflow) {
    half = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  } else if (magnitude < kSmallestNormal) {
    const float aligned = std::bit_cast<float>(magnitude) + std::bit_cast<float>(kAlign);
    half = std::bit_cast<uint32_t>(aligned) - kAlign;
  } else {
    constexpr uint32_t kRebias = (127u - 15u) << 23;
    half = (magnitude - kRebias + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  return static_cast<uint16_t>(half | sign);
}

}  // namespace annulus::kernels
