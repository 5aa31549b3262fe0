// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace annulus::ring {

struct JsonLimits {
  size_t max_bytes = 0;
  size_t max_values = 0;  // keys and values of any kind
  int max_depth = 0;      // of nested arrays and objects
};

// Parses text of unknown origin. InvalidArgument, with the place where known: malformed text, text
// beyond the limits (it is not kept in memory), or an object that gives a key twice. Never throws.
absl::StatusOr<nlohmann::json> ParseJsonBounded(absl::string_view text, const JsonLimits& limits);

}  // namespace annulus::ring
