// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/ring/topology/facts.h"

// Machines that many have, described.
namespace annulus::ring {

struct TopologyPreset {
  const char* name;
  const char* what;  // in words
};

const std::vector<TopologyPreset>& TopologyPresets();

// The facts of its workers. INVALID_ARGUMENT with the names of all presets if there is no such one.
absl::StatusOr<std::vector<WorkerFacts>> PresetFacts(absl::string_view name);

}  // namespace annulus::ring
