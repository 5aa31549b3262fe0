// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace annulus::ring {

// "plan breaks rule 'overwrite': rank 1, step 3, slot 'inner0': <what happened>".
inline absl::Status Violation(absl::string_view rule, int rank, int step, absl::string_view slot,
                              absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("plan breaks rule '", rule, "': rank ", rank,
                                                 ", step ", step, ", slot '", slot, "': ", what));
}

// For what no rank, step or slot can be named.
inline absl::Status Violation(absl::string_view rule, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("plan breaks rule '", rule, "': ", what));
}

}  // namespace annulus::ring
