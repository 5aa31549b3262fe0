// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

namespace annulus::cli {

// Share of the running request's steps that are done, from the heartbeats that the coordinator
// shows: the mean over the ranks of `group`; -1 where nothing is known. Each call asks once, for at
// most 200 ms. Not thread safe.
std::function<double()> GroupProgress(const std::string& coordinator, const std::string& group);

}  // namespace annulus::cli
