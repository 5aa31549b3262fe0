// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace annulus::rpc {

// What names and ids from outside may look like. Each is OK or INVALID_ARGUMENT that says which
// field, what is allowed and how long the given one is.

// 1..63 characters [a-z0-9-]: workers and groups.
absl::Status CheckResourceName(absl::string_view field, absl::string_view name);
// 1..64 characters [A-Za-z0-9._-]: requests and tensors.
absl::Status CheckId(absl::string_view field, absl::string_view id);
// Exactly `digits` lower-case hex digits: sessions (32), plan digests (64).
absl::Status CheckHex(absl::string_view field, absl::string_view text, size_t digits);

}  // namespace annulus::rpc
