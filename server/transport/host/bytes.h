// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace annulus::transport {

static_assert(std::endian::native == std::endian::little, "wire layouts are little-endian");

// Fixed-offset fields of wire layouts.
template <typename T>
void PutField(uint8_t* bytes, size_t offset, T value) {
  static_assert(std::is_trivially_copyable_v<T>);
  std::memcpy(bytes + offset, &value, sizeof(value));
}

template <typename T>
T GetField(const uint8_t* bytes, size_t offset) {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, bytes + offset, sizeof(value));
  return value;
}

}  // namespace annulus::transport
