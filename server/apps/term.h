// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace annulus::apps {

// The term of a coordinator that starts now, above that of every earlier one: milliseconds of the
// wall clock, or, where `state_file` (may be "") holds a higher one, that and room for the epochs
// made in it. The file is written before the term is used. docs/adr/0010.
//
// INVALID_ARGUMENT: the file is there and is not a term. Else why it cannot be read or written.
absl::StatusOr<uint64_t> NextTerm(const std::string& state_file);

}  // namespace annulus::apps
