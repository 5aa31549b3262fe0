// SPDX-License-Identifier: Apache-2.0
#include "client/io/safetensors_header.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/io/text.h"

namespace annulus::io {
namespace {

using Json = nlohmann::json;

// Takes the events of the JSON parser. Every function returns false to stop it, with error() set.
class HeaderReader final : public nlohmann::json_sax<Json> {
 public:
  bool start_object(std::size_t /*elements*/) override {
    switch (place_) {
      case Place::kStart:
        place_ = Place::kTop;
        return true;
      case Place::kTopValue:
        place_ = key_ == kMetadataKey ? Place::kMetadata : Place::kTensor;
        if (place_ == Place::kTensor) StartTensor();
        return true;
      default:
        return Misplaced("an object");
    }
  }

  bool key(string_t& key) override {
    key_ = key;
    switch (place_) {
      case Place::kTop:
        place_ = Place::kTopValue;
        if (!names_.insert(key).second) return Twice();
        if (key != kMetadataKey) name_ = key;
        return true;
      case Place::kMetadata:
        place_ = Place::kMetadataValue;
        return header_.metadata.contains(key) ? Twice() : true;
      case Place::kTensor:
        return TensorKey();
      default:
        return Misplaced("a key");
    }
  }

  bool string(string_t& value) override {
    if (place_ == Place::kDtype) {
      header_.tensors[name_].dtype = value;
      place_ = Place::kTensor;
      return true;
    }
    if (place_ == Place::kMetadataValue) {
      header_.metadata[key_] = value;
      place_ = Place::kMetadata;
      return true;
    }
    return Misplaced("a string");
  }

  bool start_array(std::size_t /*elements*/) override {
    if (place_ == Place::kShapeValue || place_ == Place::kOffsetsValue) {
      place_ = place_ == Place::kShapeValue ? Place::kShape : Place::kOffsets;
      return true;
    }
    return Misplaced("an array");
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::kShape) {
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return Misplaced("an extent beyond 2^63");
      }
      header_.tensors[name_].shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (place_ == Place::kOffsets && offsets_ < 2) {
      SafetensorsHeader::Tensor& tensor = header_.tensors[name_];
      (offsets_++ == 0 ? tensor.begin : tensor.end) = value;
      return true;
    }
    return Misplaced("a number");
  }

  bool end_array() override {
    if (place_ == Place::kOffsets && offsets_ != 2) {
      return Fail(absl::StrCat("data_offsets of tensor ", Quoted(name_),
                               " must be two numbers, got ", offsets_));
    }
    place_ = Place::kTensor;
    return true;
  }

  bool end_object() override {
    switch (place_) {
      case Place::kTensor:
        place_ = Place::kTop;
        if (seen_ == kAllFields) return true;
        return Fail(absl::StrCat("tensor ", Quoted(name_),
                                 " must have dtype, shape and data_offsets; one is missing"));
      case Place::kMetadata:
        place_ = Place::kTop;
        return true;
      default:
        place_ = Place::kEnd;
        return true;
    }
  }

  bool null() override { return Misplaced("null"); }
  bool boolean(bool /*value*/) override { return Misplaced("a boolean"); }
  bool number_integer(number_integer_t value) override {
    return Misplaced(absl::StrCat("the number ", value));
  }
  bool number_float(number_float_t /*value*/, const string_t& text) override {
    return Misplaced(absl::StrCat("the number ", Quoted(text)));
  }
  bool binary(binary_t& /*value*/) override { return Misplaced("binary data"); }
  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& error) override {
    return Fail(absl::StrCat("not JSON at byte ", position, ": ", Quoted(error.what())));
  }

  const std::string& error() const { return error_; }
  SafetensorsHeader Take() { return std::move(header_); }

 private:
  enum class Place {
    kStart,
    kTop,
    kTopValue,
    kMetadata,
    kMetadataValue,
    kTensor,
    kDtype,
    kShapeValue,
    kShape,
    kOffsetsValue,
    kOffsets,
    kEnd,
  };
  static constexpr int kAllFields = 7;

  void StartTensor() {
    header_.tensors[name_];
    seen_ = 0;
    offsets_ = 0;
  }

  bool TensorKey() {
    int field = 0;
    if (key_ == "dtype") {
      field = 1;
      place_ = Place::kDtype;
    } else if (key_ == "shape") {
      field = 2;
      place_ = Place::kShapeValue;
    } else if (key_ == "data_offsets") {
      field = 4;
      place_ = Place::kOffsetsValue;
    } else {
      return Fail(absl::StrCat("tensor ", Quoted(name_), " has the unknown key ", Quoted(key_),
                               "; known are dtype, shape and data_offsets"));
    }
    if ((seen_ & field) != 0) return Twice();
    seen_ |= field;
    return true;
  }

  std::string Expected() const {
    switch (place_) {
      case Place::kStart:
        return "an object";
      case Place::kTopValue:
        return absl::StrCat("an object for ", Quoted(key_));
      case Place::kMetadataValue:
        return absl::StrCat("a string for ", Quoted(key_), " in ", kMetadataKey);
      case Place::kDtype:
        return absl::StrCat("a string as dtype of tensor ", Quoted(name_));
      case Place::kShapeValue:
      case Place::kOffsetsValue:
        return absl::StrCat("an array as ", key_, " of tensor ", Quoted(name_));
      case Place::kShape:
        return absl::StrCat("extents from 0 to 2^63 - 1 in the shape of tensor ", Quoted(name_));
      case Place::kOffsets:
        return absl::StrCat("two offsets >= 0 in data_offsets of tensor ", Quoted(name_));
      default:
        return "nothing";
    }
  }

  bool Fail(std::string error) {
    error_ = std::move(error);
    return false;
  }
  bool Misplaced(const std::string& got) {
    return Fail(absl::StrCat("expected ", Expected(), ", got ", got));
  }
  bool Twice() { return Fail(absl::StrCat("the key ", Quoted(key_), " stands there twice")); }

  SafetensorsHeader header_;
  std::set<std::string> names_;
  Place place_ = Place::kStart;
  std::string key_;   // read last
  std::string name_;  // of the tensor being read
  int seen_ = 0;      // fields of that tensor, as bits
  int offsets_ = 0;
  std::string error_;
};

}  // namespace

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view json) {
  HeaderReader reader;
  if (!Json::sax_parse(json.begin(), json.end(), &reader)) {
    return absl::InvalidArgumentError(absl::StrCat("safetensors header: ", reader.error()));
  }
  return reader.Take();
}

}  // namespace annulus::io
