// SPDX-License-Identifier: Apache-2.0
#include "server/base/tensor_frame.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"

namespace annulus {
namespace {

constexpr uint32_t kSessionField = 1;
constexpr uint32_t kTensorField = 2;
constexpr uint32_t kOffsetField = 3;
constexpr uint32_t kDataField = 15;

enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5 };

constexpr uint32_t Tag(uint32_t field, WireType type) { return (field << 3) | type; }

void AppendVarint(std::string* out, uint64_t value) {
  while (value >= 0x80) {
    out->push_back(static_cast<char>((value & 0x7f) | 0x80));
    value >>= 7;
  }
  out->push_back(static_cast<char>(value));
}

void AppendString(std::string* out, uint32_t field, std::string_view text) {
  if (text.empty()) return;
  AppendVarint(out, Tag(field, kLengthDelimited));
  AppendVarint(out, text.size());
  out->append(text);
}

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("malformed tensor frame: ", what));
}

// Reads forward over bytes that lie in several slices.
class Cursor {
 public:
  explicit Cursor(absl::Span<const std::string_view> slices) : slices_(slices) {
    for (std::string_view slice : slices) left_ += slice.size();
  }

  uint64_t left() const { return left_; }

  absl::StatusOr<uint64_t> Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (left_ == 0) return Malformed("ends within a number");
      const auto byte = static_cast<uint8_t>(Take(1).front());
      if (shift == 63 && byte > 1) return Malformed("a number exceeds 64 bits");
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) return value;
    }
    return Malformed("a number exceeds 10 bytes");
  }

  absl::StatusOr<std::string> String(absl::string_view name) {
    ANNULUS_ASSIGN_OR_RETURN(const uint64_t size, Varint());
    if (size > kMaxTensorFrameId) {
      return Malformed(absl::StrCat(name, " of ", size, " bytes, at most ", kMaxTensorFrameId));
    }
    if (size > left_) return Malformed(absl::StrCat("ends within ", name));
    std::string text;
    while (text.size() < size) text.append(Take(size - text.size()));
    return text;
  }

  absl::Status Skip(uint64_t bytes) {
    if (bytes > left_) return Malformed("ends within an unknown field");
    while (bytes > 0) bytes -= Take(bytes).size();
    return absl::OkStatus();
  }

  // At least one and at most `limit` bytes that lie in one slice. Needs left() > 0, limit > 0.
  std::string_view Take(uint64_t limit) {
    while (slices_[slice_].size() == position_) {
      ++slice_;
      position_ = 0;
    }
    const std::string_view piece = slices_[slice_].substr(position_, limit);
    position_ += piece.size();
    left_ -= piece.size();
    return piece;
  }

 private:
  absl::Span<const std::string_view> slices_;
  size_t slice_ = 0;
  size_t position_ = 0;
  uint64_t left_ = 0;
};

absl::Status SkipUnknown(uint64_t tag, Cursor* cursor) {
  if (tag >> 3 == 0 || tag >> 3 >= (uint64_t{1} << 29)) return Malformed("impossible field number");
  switch (tag & 7) {
    case kVarint:
      return cursor->Varint().status();
    case kFixed64:
      return cursor->Skip(8);
    case kFixed32:
      return cursor->Skip(4);
    case kLengthDelimited: {
      ANNULUS_ASSIGN_OR_RETURN(const uint64_t size, cursor->Varint());
      return cursor->Skip(size);
    }
    default:
      return Malformed(absl::StrCat("wire type ", tag & 7));
  }
}

absl::Status ReadData(Cursor* cursor, TensorFrameView* frame) {
  ANNULUS_ASSIGN_OR_RETURN(frame->data_bytes, cursor->Varint());
  if (frame->data_bytes > kMaxTensorFrameBytes) {
    return Malformed(
        absl::StrCat("data of ", frame->data_bytes, " bytes, at most ", kMaxTensorFrameBytes));
  }
  if (frame->data_bytes != cursor->left()) {
    return Malformed(absl::StrCat("data of ", frame->data_bytes, " bytes, but ", cursor->left(),
                                  " are left in the frame"));
  }
  while (cursor->left() > 0) frame->data.push_back(cursor->Take(cursor->left()));
  return absl::OkStatus();
}

}  // namespace

std::string EncodeTensorFrameHeader(const TensorFrameHeader& header, size_t data_bytes) {
  std::string out;
  AppendString(&out, kSessionField, header.session_id);
  AppendString(&out, kTensorField, header.tensor_id);
  if (header.offset != 0) {
    AppendVarint(&out, Tag(kOffsetField, kVarint));
    AppendVarint(&out, header.offset);
  }
  if (data_bytes != 0) {
    AppendVarint(&out, Tag(kDataField, kLengthDelimited));
    AppendVarint(&out, data_bytes);
  }
  return out;
}

absl::StatusOr<TensorFrameView> ParseTensorFrame(absl::Span<const std::string_view> slices) {
  TensorFrameView frame;
  Cursor cursor(slices);
  while (cursor.left() > 0) {
    ANNULUS_ASSIGN_OR_RETURN(const uint64_t tag, cursor.Varint());
    if (tag == Tag(kSessionField, kLengthDelimited)) {
      ANNULUS_ASSIGN_OR_RETURN(frame.header.session_id, cursor.String("session_id"));
    } else if (tag == Tag(kTensorField, kLengthDelimited)) {
      ANNULUS_ASSIGN_OR_RETURN(frame.header.tensor_id, cursor.String("tensor_id"));
    } else if (tag == Tag(kOffsetField, kVarint)) {
      ANNULUS_ASSIGN_OR_RETURN(frame.header.offset, cursor.Varint());
    } else if (tag == Tag(kDataField, kLengthDelimited)) {
      ANNULUS_RETURN_IF_ERROR(ReadData(&cursor, &frame));
    } else {
      ANNULUS_RETURN_IF_ERROR(SkipUnknown(tag, &cursor));
    }
  }
  return frame;
}

}  // namespace annulus
