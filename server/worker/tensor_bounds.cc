// SPDX-License-Identifier: Apache-2.0
#include "server/worker/tensor_bounds.h"

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/worker/row_runs.h"

namespace annulus::worker {
namespace {

// Extents and strides within this bound multiply without overflow in 128 bits.
__extension__ using Int128 = __int128;

constexpr int64_t kExtentMax = int64_t{1} << 48;

template <typename... Parts>
absl::Status Refuse(const TensorShape& shape, const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("tensor ", shape.name, ": ", parts...));
}

absl::Status CheckShape(const TensorRef& ref, const TensorShape& shape) {
  if (ElementBytes(ref.dtype) == 0) {
    return Refuse(shape, "dtype ", static_cast<int>(ref.dtype), " is unknown");
  }
  if (ref.batch != shape.batch || ref.heads != shape.heads || ref.head_dim != shape.head_dim) {
    return Refuse(shape, "expected [", shape.batch, ", rows, ", shape.heads, ", ", shape.head_dim,
                  "], got [", ref.batch, ", ", ref.rows, ", ", ref.heads, ", ", ref.head_dim, "]");
  }
  if (ref.rows < 0 || ref.rows > kTokensMax) {
    return Refuse(shape, "has ", ref.rows, " rows, expected 0 to ", kTokensMax);
  }
  if (shape.batch < 1 || shape.batch > kTokensMax || shape.heads < 1 || shape.head_dim < 0) {
    return Refuse(shape, "batch, heads and head size must be positive");
  }
  return absl::OkStatus();
}

absl::Status CheckStride(const TensorShape& shape, const char* dimension, int64_t extent,
                         int64_t stride, int64_t least) {
  if (stride < 0 || stride > kExtentMax || (extent > 1 && stride < least)) {
    return Refuse(shape, dimension, " stride is ", stride, " elements, expected ", least, " to ",
                  kExtentMax);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TensorRef> CheckTensorRef(const TensorRef& ref, const TensorShape& shape,
                                         uint64_t offset, uint64_t memory_bytes) {
  ANNULUS_RETURN_IF_ERROR(CheckShape(ref, shape));
  TensorRef dense = ref;
  const bool statistic = shape.head_dim == 0;
  const int64_t inner = statistic ? 1 : shape.head_dim;
  if (ref.batch_stride == 0 && ref.row_stride == 0 && ref.head_stride == 0) {
    dense.head_stride = inner;
    dense.row_stride = inner * shape.heads;
    const Int128 batch_stride = static_cast<Int128>(dense.row_stride) * ref.rows;
    if (batch_stride > kExtentMax) return Refuse(shape, "has too many elements");
    dense.batch_stride = static_cast<int64_t>(batch_stride);
  }
  if (statistic && shape.heads == 1) dense.head_stride = 1;
  ANNULUS_RETURN_IF_ERROR(CheckStride(shape, "head", shape.heads, dense.head_stride, inner));
  if (statistic && dense.head_stride != 1) {
    return Refuse(shape, "head stride is ", dense.head_stride, ", expected 1");
  }
  const int64_t least = statistic ? shape.heads : inner;
  ANNULUS_RETURN_IF_ERROR(CheckStride(shape, "row", ref.rows, dense.row_stride, least));
  ANNULUS_RETURN_IF_ERROR(
      CheckStride(shape, "batch", ref.rows == 0 ? 1 : shape.batch, dense.batch_stride, least));
  if (absl::Status tokens = CheckTokens(ref.tokens, ref.rows); !tokens.ok()) {
    return Refuse(shape, tokens.message());
  }
  const int64_t element_bytes = ElementBytes(ref.dtype);
  if (offset % static_cast<uint64_t>(element_bytes) != 0) {
    return Refuse(shape, "offset ", offset, " is not a multiple of the ", element_bytes,
                  " bytes of an element");
  }
  Int128 elements = 0;
  if (ref.rows > 0) {
    elements = static_cast<Int128>(shape.batch - 1) * dense.batch_stride +
               static_cast<Int128>(ref.rows - 1) * dense.row_stride +
               static_cast<Int128>(shape.heads - 1) * dense.head_stride + inner;
  }
  // A view of more elements than there are would cost more work than its memory is worth.
  const Int128 bytes = Int128{shape.batch} * ref.rows * shape.heads * inner * element_bytes;
  if (bytes > static_cast<Int128>(memory_bytes)) {
    return Refuse(shape, "has more elements than its memory of ", memory_bytes, " bytes");
  }
  const Int128 end = static_cast<Int128>(offset) + elements * element_bytes;
  if (end > static_cast<Int128>(memory_bytes)) {
    return Refuse(shape, "ends ", static_cast<uint64_t>(end - memory_bytes),
                  " bytes behind the end of its memory of ", memory_bytes, " bytes");
  }
  return dense;
}

}  // namespace annulus::worker
