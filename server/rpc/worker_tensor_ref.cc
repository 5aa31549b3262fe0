// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/worker_tensor_ref.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/rpc/worker_names.h"

namespace annulus::rpc {
namespace {

constexpr uint64_t kMaxOffset = uint64_t{1} << 62;

template <typename... Parts>
absl::Status Invalid(absl::string_view name, const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(name, ".", parts...));
}

absl::Status CheckAgainst(absl::string_view name, const v1::TensorRef& ref,
                          const TensorShape& shape) {
  if (ref.batch() != shape.batch) {
    return Invalid(name, "batch: expected ", shape.batch, " as in the request, got ", ref.batch());
  }
  if (ref.heads() != shape.heads) {
    return Invalid(name, "heads: expected ", shape.heads, ", got ", ref.heads());
  }
  if (ref.head_dim() != shape.head_dim) {
    return Invalid(name, "head_dim: expected ", shape.head_dim, ", got ", ref.head_dim());
  }
  if (ref.rows() < 0 || ref.rows() > kMaxExtent) {
    return Invalid(name, "rows: expected 0..2^40, got ", ref.rows());
  }
  if (ref.dtype() != shape.dtype && !(shape.may_be_f32 && ref.dtype() == v1::DTYPE_F32)) {
    return Invalid(name, "dtype: expected ", static_cast<int>(shape.dtype),
                   shape.may_be_f32 ? " or DTYPE_F32" : "", ", got ",
                   static_cast<int>(ref.dtype()));
  }
  return absl::OkStatus();
}

absl::Status ReadStrides(absl::string_view name, const v1::TensorRef& from,
                         worker::TensorRef* ref) {
  const std::pair<const char*, int64_t> strides[] = {{"batch_stride", from.batch_stride()},
                                                     {"row_stride", from.row_stride()},
                                                     {"head_stride", from.head_stride()}};
  for (const auto& [field, stride] : strides) {
    if (stride < 0 || stride > kMaxExtent) {
      return Invalid(name, field, ": expected 0..2^40 elements, got ", stride);
    }
  }
  ref->batch_stride = from.batch_stride();
  ref->row_stride = from.row_stride();
  ref->head_stride = from.head_stride();
  return absl::OkStatus();
}

absl::Status ReadLocation(absl::string_view name, const v1::TensorRef& from,
                          worker::TensorRef* ref) {
  switch (from.location_case()) {
    case v1::TensorRef::kRegion:
      if (from.region().offset() > kMaxOffset) {
        return Invalid(name, "region.offset: expected 0..2^62 bytes, got ", from.region().offset());
      }
      ref->region = worker::RegionRef{from.region().region_id(), from.region().generation(),
                                      from.region().offset()};
      return absl::OkStatus();
    case v1::TensorRef::kTensorId:
      ref->tensor_id = from.tensor_id();
      return CheckId(absl::StrCat(name, ".tensor_id"), from.tensor_id());
    case v1::TensorRef::LOCATION_NOT_SET:
      break;
  }
  return Invalid(name, "location: expected region or tensor_id, got neither");
}

absl::Status ReadTokens(absl::string_view name, const v1::TensorRef& from, worker::TensorRef* ref) {
  if (from.tokens_size() > kMaxTokenRanges) {
    return Invalid(name, "tokens: expected at most ", kMaxTokenRanges, " ranges, got ",
                   from.tokens_size());
  }
  int64_t total = 0;
  for (const v1::TokenRange& range : from.tokens()) {
    if (range.begin() < 0 || range.end() < range.begin() || range.end() > kMaxExtent ||
        range.stride() < 0 || range.stride() > kMaxExtent) {
      return Invalid(name, "tokens: expected 0 <= begin <= end <= 2^40 and stride >= 0, got [",
                     range.begin(), ", ", range.end(), ") stride ", range.stride());
    }
    ref->tokens.push_back({range.begin(), range.end(), std::max<int64_t>(range.stride(), 1)});
    // At most 2^16 ranges of at most 2^40 tokens.
    total += ref->tokens.back().count();
  }
  if (total != ref->rows) {
    return Invalid(name, "tokens: expected ", ref->rows, " tokens, one per row, got ", total);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<annulusDtype> DtypeFromProto(absl::string_view field, v1::Dtype dtype) {
  switch (dtype) {
    case v1::DTYPE_F32:
      return ANNULUS_F32;
    case v1::DTYPE_BF16:
      return ANNULUS_BF16;
    case v1::DTYPE_F16:
      return ANNULUS_F16;
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          field, ": expected DTYPE_F32, DTYPE_BF16 or DTYPE_F16, got ", static_cast<int>(dtype)));
  }
}

absl::StatusOr<worker::TensorRef> TensorRefFromProto(absl::string_view name,
                                                     const v1::TensorRef& ref,
                                                     const TensorShape& shape) {
  if (ref.position_ids_size() != 0) {
    return absl::UnimplementedError(
        absl::StrCat(name, ".position_ids: packed documents are not supported, got ",
                     ref.position_ids_size(), " ids"));
  }
  ANNULUS_RETURN_IF_ERROR(CheckAgainst(name, ref, shape));
  worker::TensorRef out;
  ANNULUS_ASSIGN_OR_RETURN(out.dtype, DtypeFromProto(absl::StrCat(name, ".dtype"), ref.dtype()));
  ANNULUS_RETURN_IF_ERROR(ReadLocation(name, ref, &out));
  out.batch = ref.batch();
  out.rows = ref.rows();
  out.heads = ref.heads();
  out.head_dim = ref.head_dim();
  ANNULUS_RETURN_IF_ERROR(ReadStrides(name, ref, &out));
  ANNULUS_RETURN_IF_ERROR(ReadTokens(name, ref, &out));
  return out;
}

double ElementBytes(const worker::TensorRef& ref) {
  return (ref.dtype == ANNULUS_F32 ? 4.0 : 2.0) * static_cast<double>(ref.batch) *
         static_cast<double>(ref.rows) * ref.heads * std::max(ref.head_dim, 1);
}

}  // namespace annulus::rpc
