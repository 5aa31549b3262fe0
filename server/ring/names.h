// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "server/ring/plan.h"

// The words that stand for enumerators in plans, flags and messages.
namespace annulus::ring {

absl::string_view Name(Algorithm value);  // ring, double_ring
absl::string_view Name(Direction value);  // forward, backward
absl::string_view Name(Layout value);     // contiguous, zigzag, striped
absl::string_view Name(MaskKind value);   // full, causal
absl::string_view Name(MaskCase value);   // empty, full, partial
absl::string_view Name(Payload value);    // kv, dkv
absl::string_view Name(Combine value);    // replace, add
absl::string_view Name(Level value);      // inner, outer

// The enumerator of that name, or nothing.
template <typename Enum>
std::optional<Enum> FromName(absl::string_view name);

// "a, b, c": what FromName takes, for error messages.
template <typename Enum>
std::string AllNames();

// [0,4096] [61440,65536], or [3,64,4] with a stride.
std::string ToString(const TokenRanges& ranges);

}  // namespace annulus::ring
