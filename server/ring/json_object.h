// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/ring/names.h"

// Reading a parsed JSON document of unknown origin field by field.
namespace annulus::ring {

// INVALID_ARGUMENT "<field>: expected <expected>, got <got>".
absl::Status Wrong(const std::string& field, absl::string_view expected, absl::string_view got);

// What stands in the text, cut short.
std::string Shown(const nlohmann::json& value);

inline constexpr int64_t kNoInteger = std::numeric_limits<int64_t>::max();
// The value, or kNoInteger if it is no integer or lies outside.
int64_t IntegerIn(const nlohmann::json& value, int64_t low, int64_t high);

// One JSON object being read. The first failure sticks and later reads do nothing; Finish reports
// it, or a field that nobody asked for.
class ObjectReader {
 public:
  // `path` leads to the object in messages; "": it is the document, a `document`.
  ObjectReader(const nlohmann::json& object, std::string path, const char* document = "document")
      : object_(object), path_(std::move(path)) {
    if (!object.is_object()) {
      status_ = Wrong(path_.empty() ? document : path_, "an object", Shown(object));
    }
  }

  std::string Path(absl::string_view field) const {
    return path_.empty() ? std::string(field) : absl::StrCat(path_, ".", field);
  }

  bool Has(const char* field) const { return status_.ok() && object_.contains(field); }

  template <typename Integer>
  void ReadInteger(const char* field, int64_t low, int64_t high, Integer* out) {
    const nlohmann::json* value = Take(field);
    if (value == nullptr) return;
    const int64_t number = IntegerIn(*value, low, high);
    if (number == kNoInteger) {
      status_ = Wrong(Path(field), absl::StrCat("an integer in ", low, "..", high), Shown(*value));
      return;
    }
    *out = static_cast<Integer>(number);
  }

  void ReadString(const char* field, size_t max_size, std::string* out) {
    const nlohmann::json* value = Take(field);
    if (value == nullptr) return;
    if (!value->is_string() || value->get_ref<const std::string&>().size() > max_size) {
      status_ = Wrong(Path(field), absl::StrCat("a string of at most ", max_size, " bytes"),
                      Shown(*value));
      return;
    }
    *out = value->get_ref<const std::string&>();
  }

  template <typename Enum>
  void ReadEnum(const char* field, Enum* out) {
    const nlohmann::json* value = Take(field);
    if (value == nullptr) return;
    const std::optional<Enum> named =
        value->is_string() ? FromName<Enum>(value->get_ref<const std::string&>()) : std::nullopt;
    if (!named.has_value()) {
      status_ = Wrong(Path(field), absl::StrCat("one of ", AllNames<Enum>()), Shown(*value));
      return;
    }
    *out = *named;
  }

  template <typename ReadItem>
  void ReadList(const char* field, size_t max_size, const ReadItem& read_item) {
    const nlohmann::json* value = Take(field);
    if (value == nullptr) return;
    if (!value->is_array() || value->size() > max_size) {
      status_ = Wrong(Path(field), absl::StrCat("an array of at most ", max_size, " items"),
                      value->is_array() ? absl::StrCat(value->size()) : Shown(*value));
      return;
    }
    for (size_t i = 0; i < value->size() && status_.ok(); ++i) {
      status_ = read_item((*value)[i], absl::StrCat(Path(field), "[", i, "]"));
    }
  }

  // `read` is given the reader of a nested object.
  template <typename Read>
  void ReadObject(const char* field, const Read& read) {
    const nlohmann::json* value = Take(field);
    if (value == nullptr) return;
    ObjectReader nested(*value, Path(field));
    read(nested);
    status_ = nested.Finish();
  }

  absl::Status Finish() {
    if (!status_.ok() || asked_.size() == object_.size()) return status_;
    for (const auto& item : object_.items()) {
      if (std::find(asked_.begin(), asked_.end(), item.key()) == asked_.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat(Path(item.key().substr(0, 64)), ": unknown field"));
      }
    }
    return absl::OkStatus();
  }

 private:
  // The field's value; nullptr, and a status, if there is none.
  const nlohmann::json* Take(const char* field) {
    if (!status_.ok()) return nullptr;
    const auto found = object_.find(field);
    if (found == object_.end()) {
      status_ = absl::InvalidArgumentError(absl::StrCat(Path(field), ": missing"));
      return nullptr;
    }
    asked_.emplace_back(field);
    return &*found;
  }

  const nlohmann::json& object_;
  const std::string path_;
  absl::Status status_;
  std::vector<absl::string_view> asked_;
};

}  // namespace annulus::ring
