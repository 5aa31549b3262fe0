// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/ring/topology/facts.h"

// Facts of workers as JSON, so that a cluster can be described that is not there:
//
//   {"schema": "annulus.facts.v1",
//    "workers": [{"name": "n0-gpu0", "node": "n0", "host_id": "n0",
//                 "device": {"kind": "cuda", "ordinal": 0, "bus_id": "0000:1b:00.0", "uuid": "",
//                            "numa_node": 0, "ipc_scope": "uid 0, pid:[4026531836]",
//                            "peers": [{"bus_id": "0000:43:00.0", "link": "nvlink"}],
//                            "other_peers": "none"},
//                 "nics": [{"name": "mlx5_0", "distance": "switch",
//                           "megabits_per_second": 400000}],
//                 "transports": [{"name": "nccl", "version": "2.28.9", "memory": "device"}]}]}
//
// Of a worker, `name`, `node` and the device's `kind` have to be there. `other_peers` says what is
// known of GPUs that `peers` does not name: that they cannot be reached ("none", which is meant
// where it is left out), or nothing ("unknown"). Without `peers` nothing is known. A device that is
// split into parts (MIG) has `"partitioned": "yes"`. The memory that a transport moves is "host",
// "device" or "both".
namespace annulus::ring {

inline constexpr char kFactsSchema[] = "annulus.facts.v1";
inline constexpr size_t kMaxFactsBytes = size_t{16} << 20;

// What FactsFromJson takes; facts that are not known are left out.
nlohmann::ordered_json FactsToJson(const WorkerFacts& facts);
std::string FactsToText(const std::vector<WorkerFacts>& workers);

// INVALID_ARGUMENT names the field, what was expected and what was got: malformed or too large
// text, an unknown field, a value out of its bounds. Text of unknown origin is fine. What only
// several workers together can be wrong about (a name twice) is left to DecideTopology.
absl::StatusOr<std::vector<WorkerFacts>> ParseFactsJson(absl::string_view text);

}  // namespace annulus::ring
