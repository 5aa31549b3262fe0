// SPDX-License-Identifier: Apache-2.0
// Whatever the text: the parser answers, what it takes comes back the same from its own writer, and
// what is decided on it can be shown.
#include <cstdint>
#include <cstdlib>

#include "absl/strings/string_view.h"
#include "server/ring/topology/facts_json.h"
#include "server/ring/topology/topology.h"
#include "server/ring/topology/topology_text.h"

namespace ring = annulus::ring;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const auto facts = ring::ParseFactsJson(text);
  if (!facts.ok()) return 0;
  const auto again = ring::ParseFactsJson(ring::FactsToText(*facts));
  if (!again.ok() || *again != *facts) std::abort();
  const auto topology = ring::DecideTopology(*facts, {});
  if (!topology.ok()) return 0;
  if (topology->size() != static_cast<int>(facts->size())) std::abort();
  if (ring::TopologyToText(*topology).empty()) std::abort();
  if (ring::TopologyToJson(*topology).empty()) std::abort();
  return 0;
}
