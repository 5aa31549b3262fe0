// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace annulus::apps {

// Processors as taskset and cpusets write them: "0,2-3" is 0, 2, 3. Each at most once, at most
// 1024. INVALID_ARGUMENT names what is wrong.
absl::StatusOr<std::vector<int>> ParseCpuList(std::string_view text);

}  // namespace annulus::apps
