// SPDX-License-Identifier: Apache-2.0
#include "client/io/npy.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/io/atomic_file.h"
#include "client/io/text.h"
#include "server/base/status_macros.h"

namespace annulus::io {
namespace {

static_assert(std::endian::native == std::endian::little, "arrays are used in place");

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kHeaderMax = 65536;  // of version 2; a plain array's header is some 100 bytes
constexpr size_t kRankMax = 32;       // NumPy's own

absl::Status Malformed(const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("npy: ", what));
}

struct Fields {
  std::optional<std::string> descr;
  std::optional<bool> fortran_order;
  std::optional<std::vector<int64_t>> shape;
};

// Reads the header, a Python literal such as
//   {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
class LiteralReader {
 public:
  explicit LiteralReader(std::string_view text) : text_(text) {}

  absl::StatusOr<Fields> Read() {
    if (!Take('{')) return Expected("'{'");
    Fields fields;
    while (!Take('}')) {
      ANNULUS_ASSIGN_OR_RETURN(const std::string key, String());
      if (!Take(':')) return Expected("':'");
      ANNULUS_RETURN_IF_ERROR(Value(key, fields));
      if (Take(',')) continue;
      if (!Take('}')) return Expected("',' or '}'");
      break;
    }
    SkipSpace();
    if (at_ != text_.size()) return Expected("the end of the header");
    if (!fields.descr || !fields.fortran_order || !fields.shape) {
      return Malformed("the header must have descr, fortran_order and shape; one is missing");
    }
    return fields;
  }

 private:
  absl::Status Value(const std::string& key, Fields& fields) {
    if (key == "descr" && !fields.descr) {
      ANNULUS_ASSIGN_OR_RETURN(fields.descr, String());
    } else if (key == "fortran_order" && !fields.fortran_order) {
      ANNULUS_ASSIGN_OR_RETURN(fields.fortran_order, Boolean());
    } else if (key == "shape" && !fields.shape) {
      ANNULUS_ASSIGN_OR_RETURN(fields.shape, Tuple());
    } else {
      return Malformed(absl::StrCat(
          "the key ", Quoted(key),
          " stands there twice or is unknown; known are descr, fortran_order and shape"));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> String() {
    SkipSpace();
    if (at_ >= text_.size() || (text_[at_] != '\'' && text_[at_] != '"')) {
      return Expected("a string");
    }
    const size_t end = text_.find(text_[at_], at_ + 1);
    if (end == std::string_view::npos) return Expected("a closed string");
    const std::string value(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return value;
  }

  absl::StatusOr<bool> Boolean() {
    SkipSpace();
    for (const bool value : {true, false}) {
      const std::string_view word = value ? "True" : "False";
      if (text_.substr(at_).starts_with(word)) {
        at_ += word.size();
        return value;
      }
    }
    return Expected("True or False");
  }

  absl::StatusOr<std::vector<int64_t>> Tuple() {
    if (!Take('(')) return Expected("a tuple of extents");
    std::vector<int64_t> extents;
    while (!Take(')')) {
      ANNULUS_ASSIGN_OR_RETURN(const int64_t extent, Integer());
      extents.push_back(extent);
      if (extents.size() > kRankMax) return Expected("at most 32 extents");
      if (Take(',')) continue;
      if (!Take(')')) return Expected("',' or ')'");
      break;
    }
    return extents;
  }

  absl::StatusOr<int64_t> Integer() {
    SkipSpace();
    const size_t start = at_;
    int64_t value = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      if (value > (std::numeric_limits<int64_t>::max() - 9) / 10) {
        return Expected("an extent below 2^63");
      }
      value = 10 * value + (text_[at_] - '0');
    }
    if (at_ == start) return Expected("an extent");
    return value;
  }

  void SkipSpace() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }

  bool Take(char c) {
    SkipSpace();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  absl::Status Expected(const std::string& what) const {
    return Malformed(absl::StrCat("at byte ", at_, " of the header: expected ", what, ", got ",
                                  Quoted(text_.substr(std::min(at_, text_.size()), 10))));
  }

  std::string_view text_;
  size_t at_ = 0;
};

absl::StatusOr<Dtype> DtypeOf(const std::string& descr) {
  if (descr == "<f4") return Dtype::kF32;
  if (descr == "<f2") return Dtype::kF16;
  if (descr.ends_with("V2") || descr.find("bfloat16") != std::string::npos) {
    return Malformed(absl::StrCat("the array is of type ", Quoted(descr),
                                  ", raw bytes: npy has no bfloat16; use a .safetensors file"));
  }
  return Malformed(absl::StrCat("the array is of type ", Quoted(descr),
                                ", expected '<f4' (float32) or '<f2' (float16)"));
}

// The text of the header and where it ends.
absl::StatusOr<std::string_view> HeaderText(std::string_view file) {
  if (!file.starts_with(kMagic) || file.size() < kMagic.size() + 4) {
    return Malformed("the file does not start as an .npy file does");
  }
  const auto byte = [&file](size_t i) {
    return static_cast<size_t>(static_cast<uint8_t>(file[i]));
  };
  const size_t version = byte(6);
  if (version != 1 && version != 2) {
    return Malformed(absl::StrCat("version ", version, ", expected 1 or 2"));
  }
  const size_t start = version == 1 ? 10 : 12;
  if (file.size() < start) return Malformed("truncated in the header's length");
  size_t length = byte(8) | byte(9) << 8;
  if (version == 2) length |= byte(10) << 16 | byte(11) << 24;
  if (length > std::min(kHeaderMax, file.size() - start)) {
    return Malformed(absl::StrCat("the header says it is ", length,
                                  " bytes long, expected at most ",
                                  std::min(kHeaderMax, file.size() - start)));
  }
  return file.substr(start, length);
}

std::string Header(const TensorView& tensor) {
  // As Python prints tuples: (), (2,), (2, 3).
  const std::string shape =
      absl::StrCat(absl::StrJoin(tensor.shape, ", "), tensor.shape.size() == 1 ? "," : "");
  std::string text = absl::StrCat("{'descr': '", tensor.dtype == Dtype::kF32 ? "<f4" : "<f2",
                                  "', 'fortran_order': False, 'shape': (", shape, "), }");
  // The data starts at a multiple of 64: 10 bytes before the text, one newline after.
  text.append(63 - (10 + text.size()) % 64, ' ');
  text += '\n';
  std::string header(kMagic);
  header += '\x01';
  header += '\0';
  header += static_cast<char>(text.size() & 0xff);
  header += static_cast<char>(text.size() >> 8);
  return header + text;
}

}  // namespace

absl::StatusOr<TensorView> ParseNpy(std::span<const std::byte> file) {
  const std::string_view all(reinterpret_cast<const char*>(file.data()), file.size());
  ANNULUS_ASSIGN_OR_RETURN(const std::string_view header, HeaderText(all));
  ANNULUS_ASSIGN_OR_RETURN(const Fields fields, LiteralReader(header).Read());
  TensorView tensor;
  ANNULUS_ASSIGN_OR_RETURN(tensor.dtype, DtypeOf(*fields.descr));
  if (*fields.fortran_order) {
    return Malformed("the array is in Fortran order, expected C order (numpy.ascontiguousarray)");
  }
  tensor.shape = *fields.shape;
  ANNULUS_ASSIGN_OR_RETURN(const uint64_t bytes,
                           TensorBytes(tensor.shape, ElementBytes(tensor.dtype)));
  tensor.bytes = file.subspan(static_cast<size_t>(header.end() - all.begin()));
  if (tensor.bytes.size() != bytes) {
    return Malformed(absl::StrCat("an array ", ShapeText(tensor.shape), " of ", *fields.descr,
                                  " takes ", bytes, " bytes, the file has ", tensor.bytes.size(),
                                  " after its header"));
  }
  return tensor;
}

absl::Status WriteNpy(const std::string& path, const TensorView& tensor) {
  if (tensor.dtype == Dtype::kBf16) {
    return Malformed("npy has no bfloat16; write a .safetensors file");
  }
  ANNULUS_ASSIGN_OR_RETURN(const uint64_t bytes,
                           TensorBytes(tensor.shape, ElementBytes(tensor.dtype)));
  if (bytes != tensor.bytes.size() || tensor.shape.size() > kRankMax) {
    return Malformed(absl::StrCat("an array ", ShapeText(tensor.shape), " takes ", bytes,
                                  " bytes and at most ", kRankMax, " extents, got ",
                                  tensor.bytes.size(), " and ", tensor.shape.size()));
  }
  ANNULUS_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  ANNULUS_RETURN_IF_ERROR(file.Append(Header(tensor)));
  ANNULUS_RETURN_IF_ERROR(file.Append(tensor.bytes));
  return file.Commit();
}

}  // namespace annulus::io
