// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/coordinator/types.h"

namespace annulus::coordinator {

inline constexpr int kGroupSizeMax = 4096;
inline constexpr size_t kNameBytesMax = 63;

// Names of workers and groups: [a-z0-9-]{1,63}. `what` says whose name it is.
absl::Status CheckName(absl::string_view what, absl::string_view name);

// INVALID_ARGUMENT says what was wrong, expected and got. window_size 0 becomes `size`, so that
// equal groups compare equal.
absl::StatusOr<GroupOptions> NormaliseOptions(GroupOptions options);

// For messages: "size 8, window 4, 2 ranks per node".
std::string DescribeOptions(const GroupOptions& options);

}  // namespace annulus::coordinator
