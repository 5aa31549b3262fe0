// SPDX-License-Identifier: Apache-2.0
#include "client/src/segments.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"

namespace annulus::client {
namespace {

// Row of `token` among the tokens of `held`; -1 if it is not there.
int64_t RowOf(const ring::TokenRanges& held, int64_t token) {
  int64_t row = 0;
  for (const ring::TokenRange& range : held) {
    if (token >= range.begin && token < range.end && (token - range.begin) % range.stride == 0) {
      return row + (token - range.begin) / range.stride;
    }
    row += range.count();
  }
  return -1;
}

void Append(SegmentList* list, uint8_t* data, size_t bytes) {
  if (bytes == 0) return;
  list->bytes += bytes;
  if (!list->segments.empty()) {
    Segment& last = list->segments.back();
    if (last.data + last.bytes == data) {
      last.bytes += bytes;
      return;
    }
  }
  list->segments.push_back({data, bytes});
}

// Rows of the tokens of `wanted` within one batch entry.
absl::StatusOr<std::vector<int64_t>> RowsOf(const ring::TokenRanges& held,
                                            const ring::TokenRanges& wanted, int64_t rows) {
  std::vector<int64_t> found;
  for (const ring::TokenRange& range : wanted) {
    for (int64_t token = range.begin; token < range.end; token += range.stride) {
      const int64_t row = RowOf(held, token);
      if (row < 0 || row >= rows) {
        return absl::InvalidArgumentError(
            absl::StrCat("token ", token, " is not among the rows of the tensor"));
      }
      found.push_back(row);
    }
  }
  return found;
}

}  // namespace

absl::StatusOr<SegmentList> SegmentsOf(const TensorView& view, const ring::TokenRanges& held,
                                       const ring::TokenRanges& wanted) {
  ANNULUS_ASSIGN_OR_RETURN(const std::vector<int64_t> rows, RowsOf(held, wanted, view.rows));
  const size_t row_bytes = DataTypeBytes(view.dtype) * static_cast<size_t>(view.heads) *
                           static_cast<size_t>(std::max(view.head_dim, 1));
  SegmentList list;
  auto* base = static_cast<uint8_t*>(view.data);
  for (int64_t b = 0; b < view.batch; ++b) {
    for (const int64_t row : rows) {
      Append(&list, base + static_cast<size_t>(b * view.rows + row) * row_bytes, row_bytes);
    }
  }
  return list;
}

SegmentCursor::SegmentCursor(const SegmentList& list, size_t offset)
    : list_(list), offset_(std::min(offset, list.bytes)) {
  within_ = offset_;
  while (index_ < list_.segments.size() && within_ >= list_.segments[index_].bytes) {
    within_ -= list_.segments[index_++].bytes;
  }
}

Segment SegmentCursor::Next(size_t bytes_max) {
  if (index_ == list_.segments.size() || bytes_max == 0) return {};
  const Segment& current = list_.segments[index_];
  const size_t bytes = std::min(bytes_max, current.bytes - within_);
  const Segment piece{current.data + within_, bytes};
  within_ += bytes;
  offset_ += bytes;
  if (within_ == current.bytes) {
    ++index_;
    within_ = 0;
  }
  return piece;
}

}  // namespace annulus::client
