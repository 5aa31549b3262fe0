// SPDX-License-Identifier: Apache-2.0
#include "client/io/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/io/atomic_file.h"
#include "client/io/safetensors_header.h"
#include "client/io/text.h"
#include "server/base/status_macros.h"

namespace annulus::io {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are used in place");

constexpr uint64_t kLengthBytes = 8;

struct KnownType {
  std::string_view name;
  uint64_t bytes;
  std::optional<Dtype> dtype;
};

constexpr std::array<KnownType, 16> kTypes = {{{"F32", 4, Dtype::kF32},
                                               {"BF16", 2, Dtype::kBf16},
                                               {"F16", 2, Dtype::kF16},
                                               {"F64", 8, {}},
                                               {"F8_E4M3", 1, {}},
                                               {"F8_E5M2", 1, {}},
                                               {"I8", 1, {}},
                                               {"I16", 2, {}},
                                               {"I32", 4, {}},
                                               {"I64", 8, {}},
                                               {"U8", 1, {}},
                                               {"U16", 2, {}},
                                               {"U32", 4, {}},
                                               {"U64", 8, {}},
                                               {"BOOL", 1, {}},
                                               {"C64", 8, {}}}};

absl::StatusOr<KnownType> FindType(const std::string& tensor, const std::string& dtype) {
  for (const KnownType& type : kTypes) {
    if (type.name == dtype) return type;
  }
  return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(tensor), " has the dtype ",
                                                 Quoted(dtype),
                                                 ", which safetensors does not define"));
}

using Entry = std::pair<const std::string, SafetensorsHeader::Tensor>;

// Shape, type and offsets of one tensor agree and lie within the data.
absl::Status CheckEntry(const Entry& entry, uint64_t element_bytes, uint64_t data_bytes) {
  const auto& [name, tensor] = entry;
  const absl::StatusOr<uint64_t> expected = TensorBytes(tensor.shape, element_bytes);
  if (!expected.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", Quoted(name), ": ", expected.status().message()));
  }
  if (tensor.begin > tensor.end || tensor.end > data_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", Quoted(name), ": data_offsets [", tensor.begin, ", ", tensor.end,
                     "] must lie within the ", data_bytes, " bytes of data"));
  }
  if (tensor.end - tensor.begin != *expected) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", Quoted(name), ": ", tensor.dtype, " ", ShapeText(tensor.shape),
                     " takes ", *expected, " bytes, data_offsets say ", tensor.end - tensor.begin));
  }
  return absl::OkStatus();
}

// The tensors follow each other without hole or overlap from the first byte to the last.
absl::Status CheckCover(const SafetensorsHeader& header, uint64_t data_bytes) {
  std::vector<const Entry*> order;
  for (const Entry& entry : header.tensors) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  uint64_t at = 0;
  for (const Entry* entry : order) {
    if (entry->second.begin != at) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", Quoted(entry->first), " starts at byte ", entry->second.begin,
          " of the data, expected ", at, ": tensors must neither overlap nor leave ", "holes"));
    }
    at = entry->second.end;
  }
  if (at == data_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the tensors end at byte ", at,
                                                 " of the data, which has ", data_bytes,
                                                 ": truncated or padded"));
}

absl::StatusOr<std::string_view> HeaderText(std::span<const std::byte> file) {
  uint64_t length = 0;
  if (file.size() < kLengthBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("safetensors: ", file.size(), " bytes, expected at least ", kLengthBytes));
  }
  std::memcpy(&length, file.data(), kLengthBytes);
  if (length > kSafetensorsHeaderMax || length > file.size() - kLengthBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "safetensors: the header says it is ", length, " bytes long, expected at most ",
        std::min<uint64_t>(kSafetensorsHeaderMax, file.size() - kLengthBytes),
        ": truncated, or not a safetensors file"));
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kLengthBytes,
                              static_cast<size_t>(length));
  if (!text.starts_with('{')) {
    return absl::InvalidArgumentError(absl::StrCat(
        "safetensors: the header must start with '{', got ", Quoted(text.substr(0, 1))));
  }
  return text;
}

absl::Status CheckTensor(const std::string& name, const TensorView& tensor) {
  ANNULUS_ASSIGN_OR_RETURN(const uint64_t bytes,
                           TensorBytes(tensor.shape, ElementBytes(tensor.dtype)));
  if (name == kMetadataKey) {
    return absl::InvalidArgumentError(absl::StrCat("no tensor can be named ", kMetadataKey));
  }
  if (bytes == tensor.bytes.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("tensor ", Quoted(name), ": ", std::string(DtypeName(tensor.dtype)), " ",
                   ShapeText(tensor.shape), " takes ", bytes, " bytes, got ", tensor.bytes.size()));
}

// Length, JSON and padding, so that the data starts at a multiple of 8.
std::string HeaderBytes(const std::vector<const NamedTensors::value_type*>& order,
                        const std::map<std::string, std::string>& metadata) {
  nlohmann::json header = nlohmann::json::object();
  if (!metadata.empty()) header[kMetadataKey] = metadata;
  uint64_t at = 0;
  for (const auto* entry : order) {
    const auto& [name, tensor] = *entry;
    header[name] = {{"dtype", DtypeName(tensor.dtype)},
                    {"shape", tensor.shape},
                    {"data_offsets", {at, at + tensor.bytes.size()}}};
    at += tensor.bytes.size();
  }
  // Names and metadata that are not UTF-8 get replacement characters: dump must not throw.
  std::string text = header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t length = text.size();
  std::string bytes(kLengthBytes, '\0');
  std::memcpy(bytes.data(), &length, kLengthBytes);
  return bytes + text;
}

}  // namespace

absl::StatusOr<Safetensors> ParseSafetensors(std::span<const std::byte> file) {
  ANNULUS_ASSIGN_OR_RETURN(const std::string_view text, HeaderText(file));
  ANNULUS_ASSIGN_OR_RETURN(SafetensorsHeader header, ParseSafetensorsHeader(text));
  const std::span<const std::byte> data = file.subspan(kLengthBytes + text.size());
  Safetensors result;
  for (const Entry& entry : header.tensors) {
    const auto& [name, tensor] = entry;
    ANNULUS_ASSIGN_OR_RETURN(const KnownType type, FindType(name, tensor.dtype));
    ANNULUS_RETURN_IF_ERROR(CheckEntry(entry, type.bytes, data.size()));
    if (type.dtype) {
      result.tensors[name] = {*type.dtype, tensor.shape,
                              data.subspan(tensor.begin, tensor.end - tensor.begin)};
    } else {
      result.other_types[name] = tensor.dtype;
    }
  }
  ANNULUS_RETURN_IF_ERROR(CheckCover(header, data.size()));
  result.metadata = std::move(header.metadata);
  return result;
}

absl::Status WriteSafetensors(const std::string& path, const NamedTensors& tensors,
                              const std::map<std::string, std::string>& metadata) {
  std::vector<const NamedTensors::value_type*> order;
  for (const auto& entry : tensors) {
    ANNULUS_RETURN_IF_ERROR(CheckTensor(entry.first, entry.second));
    order.push_back(&entry);
  }
  // Wide elements first, so that each tensor starts at a multiple of its element.
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return ElementBytes(a->second.dtype) > ElementBytes(b->second.dtype);
  });
  ANNULUS_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  ANNULUS_RETURN_IF_ERROR(file.Append(HeaderBytes(order, metadata)));
  for (const auto* entry : order) ANNULUS_RETURN_IF_ERROR(file.Append(entry->second.bytes));
  return file.Commit();
}

}  // namespace annulus::io
