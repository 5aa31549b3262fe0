// SPDX-License-Identifier: Apache-2.0
#pragma once

// Small helpers over the C structs of compute_plugin.h: element sizes, contiguous views, rows.
// Nothing here owns memory.

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/compute_plugin.h"
#include "kernels/host_device.h"
#include "kernels/numeric.h"

namespace annulus::kernels {

// An enum as the number it was set to. A caller in C may have stored a number that is no
// enumerator, which C++ must not read as one before it was checked.
template <typename Enum>
int RawValue(const Enum& value) {
  static_assert(sizeof(Enum) == sizeof(int));
  int raw = 0;
  std::memcpy(&raw, &value, sizeof(raw));
  return raw;
}

// Bytes of one element.
constexpr size_t DtypeBytes(annulusDtype dtype) {
  switch (dtype) {
    case ANNULUS_F32:
      return 4;
    case ANNULUS_BF16:
    case ANNULUS_F16:
      return 2;
  }
  return 0;
}

constexpr const char* DtypeName(annulusDtype dtype) {
  switch (dtype) {
    case ANNULUS_F32:
      return "f32";
    case ANNULUS_BF16:
      return "bf16";
    case ANNULUS_F16:
      return "f16";
  }
  return "unknown";
}

// A view of [batch, rows, heads, head_dim] elements that lie without gaps from `data` on.
inline annulusTensor ContiguousTensor(void* data, annulusDtype dtype, int64_t batch, int64_t rows,
                                      int64_t heads, int64_t head_dim) {
  return {data,    dtype, batch, rows, heads, head_dim, rows * heads * head_dim, heads * head_dim,
          head_dim};
}

// A view of [batch, rows, heads] floats that lie without gaps from `data` on.
inline annulusRowStat ContiguousRowStat(float* data, int64_t batch, int64_t rows, int64_t heads) {
  return {data, batch, rows, heads, rows * heads, heads};
}

// Elements from the start of the tensor to the head_dim values of (batch, row, head).
ANNULUS_HOST_DEVICE inline int64_t ElementOffset(const annulusTensor& tensor, int64_t batch,
                                                 int64_t row, int64_t head) {
  return batch * tensor.batch_stride + row * tensor.row_stride + head * tensor.head_stride;
}

ANNULUS_HOST_DEVICE inline const void* RowPointer(const annulusTensor& tensor, int64_t batch,
                                                  int64_t row, int64_t head) {
  return static_cast<const char*>(tensor.data) +
         ElementOffset(tensor, batch, row, head) * static_cast<int64_t>(DtypeBytes(tensor.dtype));
}

// For float32 tensors.
ANNULUS_HOST_DEVICE inline float* FloatRow(const annulusTensor& tensor, int64_t batch, int64_t row,
                                           int64_t head) {
  return static_cast<float*>(tensor.data) + ElementOffset(tensor, batch, row, head);
}

ANNULUS_HOST_DEVICE inline float& RowStatAt(const annulusRowStat& stat, int64_t batch, int64_t row,
                                            int64_t head) {
  return stat.data[batch * stat.batch_stride + row * stat.row_stride + head];
}

// out[i] = float of the i-th of `count` elements of the given dtype. Exact for every dtype.
inline void LoadAsFloat(const void* elements, annulusDtype dtype, int64_t count, float* out) {
  if (dtype == ANNULUS_F32) {
    const float* in = static_cast<const float*>(elements);
    for (int64_t i = 0; i < count; ++i) out[i] = in[i];
  } else if (dtype == ANNULUS_BF16) {
    const uint16_t* in = static_cast<const uint16_t*>(elements);
    for (int64_t i = 0; i < count; ++i) out[i] = Bf16ToFloat(in[i]);
  } else {
    const uint16_t* in = static_cast<const uint16_t*>(elements);
    for (int64_t i = 0; i < count; ++i) out[i] = F16ToFloat(in[i]);
  }
}

// elements[i] = in[i] rounded to the given dtype.
inline void StoreFromFloat(const float* in, int64_t count, annulusDtype dtype, void* elements) {
  if (dtype == ANNULUS_F32) {
    float* out = static_cast<float*>(elements);
    for (int64_t i = 0; i < count; ++i) out[i] = in[i];
  } else if (dtype == ANNULUS_BF16) {
    uint16_t* out = static_cast<uint16_t*>(elements);
    for (int64_t i = 0; i < count; ++i) out[i] = FloatToBf16(in[i]);
  } else {
    uint16_t* out = static_cast<uint16_t*>(elements);
    for (int64_t i = 0; i < count; ++i) out[i] = FloatToF16(in[i]);
  }
}

}  // namespace annulus::kernels
