// SPDX-License-Identifier: Apache-2.0
#include "client/src/frame_codec.h"

#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/tensor_frame.h"

namespace annulus::client {
namespace {

// Shorter pieces are cheaper to copy than to carry as slices of their own.
constexpr size_t kByReferenceBytes = 16 << 10;

// Collects pieces as slices: long ones by reference, runs of short ones copied together.
class SliceCollector {
 public:
  void Add(const Segment& piece) {
    if (piece.bytes < kByReferenceBytes) {
      copied_.append(reinterpret_cast<const char*>(piece.data), piece.bytes);
      return;
    }
    Flush();
    slices_.emplace_back(piece.data, piece.bytes, grpc::Slice::STATIC_SLICE);
  }
  std::vector<grpc::Slice> Take(const std::string& header) {
    Flush();
    slices_.insert(slices_.begin(), grpc::Slice(header));
    return std::move(slices_);
  }

 private:
  void Flush() {
    if (!copied_.empty()) slices_.emplace_back(copied_);
    copied_.clear();
  }
  std::vector<grpc::Slice> slices_;
  std::string copied_;
};

void CopyTo(SegmentCursor* cursor, std::string_view bytes) {
  while (!bytes.empty()) {
    const Segment piece = cursor->Next(bytes.size());
    std::memcpy(piece.data, bytes.data(), piece.bytes);
    bytes.remove_prefix(piece.bytes);
  }
}

}  // namespace

grpc::ByteBuffer EncodeFrame(const std::string& session_id, const std::string& tensor_id,
                             SegmentCursor* cursor) {
  const uint64_t offset = cursor->offset();
  SliceCollector collector;
  size_t bytes = 0;
  while (bytes < kTensorFrameBytes) {
    const Segment piece = cursor->Next(kTensorFrameBytes - bytes);
    if (piece.bytes == 0) break;
    collector.Add(piece);
    bytes += piece.bytes;
  }
  const std::vector<grpc::Slice> slices =
      collector.Take(EncodeTensorFrameHeader({session_id, tensor_id, offset}, bytes));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

absl::Status DecodeFrame(const grpc::ByteBuffer& buffer, SegmentCursor* cursor, size_t bytes_left) {
  std::vector<grpc::Slice> slices;
  if (!buffer.Dump(&slices).ok()) return absl::DataLossError("a frame that cannot be read");
  std::vector<std::string_view> views;
  views.reserve(slices.size());
  for (const grpc::Slice& slice : slices) {
    views.emplace_back(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  const auto frame = ParseTensorFrame(views);
  if (!frame.ok()) return absl::DataLossError(frame.status().message());
  const uint64_t begin = frame->header.offset;
  if (begin != cursor->offset() || frame->data_bytes > bytes_left) {
    return absl::DataLossError(absl::StrCat("the worker sent bytes [", begin, ", ",
                                            begin + frame->data_bytes, "), expected from ",
                                            cursor->offset(), " on, at most ", bytes_left));
  }
  for (const std::string_view piece : frame->data) CopyTo(cursor, piece);
  return absl::OkStatus();
}

}  // namespace annulus::client
