// SPDX-License-Identifier: Apache-2.0
#include "client/src/frame_codec.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "annulus/v1/worker.pb.h"

namespace annulus::client {
namespace {

using google::protobuf::io::CodedInputStream;

constexpr uint32_t kDataTag = (15u << 3) | 2u;
constexpr uint32_t kOffsetTag = 3u << 3;
// Shorter pieces are cheaper to copy than to carry as slices of their own.
constexpr size_t kByReferenceBytes = 16 << 10;
// Session id, tensor id, offset, tag and length of the data: far below this.
constexpr size_t kHeaderBytesMax = 512;

std::string Header(const std::string& session_id, const std::string& tensor_id, uint64_t offset,
                   size_t data_bytes) {
  v1::TensorFrame header;
  header.set_session_id(session_id);
  header.set_tensor_id(tensor_id);
  header.set_offset(offset);
  std::string out = header.SerializeAsString();
  uint8_t buffer[16];
  uint8_t* end = google::protobuf::io::CodedOutputStream::WriteTagToArray(kDataTag, buffer);
  end = google::protobuf::io::CodedOutputStream::WriteVarint64ToArray(data_bytes, end);
  out.append(reinterpret_cast<char*>(buffer), static_cast<size_t>(end - buffer));
  return out;
}

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

struct FrameHeader {
  uint64_t offset = 0;
  uint64_t data_bytes = 0;
  size_t header_bytes = 0;
};

// Reads the fields before `data`, which comes last.
bool ParseHeader(const std::string& head, FrameHeader* out) {
  CodedInputStream in(reinterpret_cast<const uint8_t*>(head.data()), static_cast<int>(head.size()));
  while (true) {
    const uint32_t tag = in.ReadTag();
    if (tag == kDataTag) {
      if (!in.ReadVarint64(&out->data_bytes)) return false;
      out->header_bytes = static_cast<size_t>(in.CurrentPosition());
      return true;
    }
    if (tag == kOffsetTag) {
      if (!in.ReadVarint64(&out->offset)) return false;
    } else if ((tag & 7u) == 2u) {
      uint32_t length = 0;
      if (!in.ReadVarint32(&length) || !in.Skip(static_cast<int>(length))) return false;
    } else {
      return false;
    }
  }
}

std::string HeadOf(const std::vector<grpc::Slice>& slices) {
  std::string head;
  for (const grpc::Slice& slice : slices) {
    const size_t take = std::min(slice.size(), kHeaderBytesMax - head.size());
    head.append(reinterpret_cast<const char*>(slice.begin()), take);
    if (head.size() == kHeaderBytesMax) break;
  }
  return head;
}

void CopyTo(SegmentCursor* cursor, const uint8_t* data, size_t bytes) {
  while (bytes > 0) {
    const Segment piece = cursor->Next(bytes);
    std::memcpy(piece.data, data, piece.bytes);
    data += piece.bytes;
    bytes -= piece.bytes;
  }
}

}  // namespace

grpc::ByteBuffer EncodeFrame(const std::string& session_id, const std::string& tensor_id,
                             SegmentCursor* cursor) {
  const uint64_t offset = cursor->offset();
  SliceCollector collector;
  size_t bytes = 0;
  while (bytes < kFrameBytes) {
    const Segment piece = cursor->Next(kFrameBytes - bytes);
    if (piece.bytes == 0) break;
    collector.Add(piece);
    bytes += piece.bytes;
  }
  const std::vector<grpc::Slice> slices =
      collector.Take(Header(session_id, tensor_id, offset, bytes));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

absl::Status DecodeFrame(const grpc::ByteBuffer& frame, SegmentCursor* cursor, size_t bytes_left) {
  std::vector<grpc::Slice> slices;
  FrameHeader header;
  if (!frame.Dump(&slices).ok() || !ParseHeader(HeadOf(slices), &header) ||
      frame.Length() - header.header_bytes != header.data_bytes) {
    return absl::DataLossError("the worker sent a malformed tensor frame");
  }
  if (header.offset != cursor->offset() || header.data_bytes > bytes_left) {
    return absl::DataLossError(absl::StrCat("the worker sent bytes [", header.offset, ", ",
                                            header.offset + header.data_bytes, "), expected from ",
                                            cursor->offset(), " on, at most ", bytes_left));
  }
  size_t skip = header.header_bytes;
  for (const grpc::Slice& slice : slices) {
    const size_t skipped = std::min(skip, slice.size());
    skip -= skipped;
    CopyTo(cursor, slice.begin() + skipped, slice.size() - skipped);
  }
  return absl::OkStatus();
}

}  // namespace annulus::client
