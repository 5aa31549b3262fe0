// SPDX-License-Identifier: Apache-2.0
#include "server/apps/worker_facts.h"

#include <spdlog/spdlog.h>

#include "server/machine/machine.h"

namespace annulus::apps {

ring::WorkerFacts CollectFacts(const std::string& compute, const std::string& bus_id,
                               const std::vector<const annulusTransportV1*>& transports) {
  ring::WorkerFacts facts;
  facts.device = compute == "cuda" ? ring::DeviceKind::kCuda : ring::DeviceKind::kCpu;
  facts.bus_id = bus_id;
  for (const annulusTransportV1* table : transports) {
    if (facts.transports.size() == ring::kMaxTransports) break;
    facts.transports.push_back({table->name, ""});
  }
  const auto surroundings = machine::ReadSurroundings({.bus_id = bus_id});
  if (!surroundings.ok()) {
    spdlog::warn("adapters not known: {}", surroundings.status().ToString());
    return facts;
  }
  facts.numa_node = surroundings->numa_node;
  facts.nics = surroundings->nics;
  return facts;
}

}  // namespace annulus::apps
