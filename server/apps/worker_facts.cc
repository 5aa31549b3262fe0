// SPDX-License-Identifier: Apache-2.0
#include "server/apps/worker_facts.h"

#include <spdlog/spdlog.h>

#include "server/apps/process.h"
#include "server/machine/gpu_links.h"
#include "server/machine/machine.h"

namespace annulus::apps {
namespace {

// `gpus`: on the PCI bus of the machine; empty where that cannot be read.
void AddLinks(const std::vector<std::string>& gpus, ring::WorkerFacts* facts) {
  const auto links = machine::ReadGpuLinks({.bus_id = facts->bus_id});
  if (!links.ok()) {
    spdlog::warn("how GPUs reach each other is not known: {}", links.status().ToString());
    return;
  }
  facts->gpu_uuid = links->uuid;
  facts->partitioned = links->partitioned;
  facts->peers = links->peers;
  facts->peers_known = !gpus.empty() && machine::NamesAll(links->peers, gpus, facts->bus_id);
}

}  // namespace

ring::WorkerFacts CollectFacts(const std::string& compute, const std::string& bus_id,
                               const std::vector<const annulusTransportV1*>& transports) {
  ring::WorkerFacts facts;
  facts.device = compute == "cuda" ? ring::DeviceKind::kCuda : ring::DeviceKind::kCpu;
  facts.bus_id = bus_id;
  for (const annulusTransportV1* table : transports) {
    if (facts.transports.size() == ring::kMaxTransports) break;
    facts.transports.push_back(
        {.name = table->name,
         .host_memory = (table->caps & ANNULUS_TRANSPORT_CAP_HOST_MEMORY) != 0,
         .device_memory = (table->caps & ANNULUS_TRANSPORT_CAP_DEVICE_MEMORY) != 0});
  }
  const auto surroundings = machine::ReadSurroundings({.bus_id = bus_id});
  if (!surroundings.ok()) {
    spdlog::warn("adapters not known: {}", surroundings.status().ToString());
  } else {
    facts.numa_node = surroundings->numa_node;
    facts.nics = surroundings->nics;
  }
  if (facts.device == ring::DeviceKind::kCuda && !bus_id.empty()) {
    facts.ipc_scope = IpcScope();
    AddLinks(surroundings.ok() ? surroundings->gpus : std::vector<std::string>(), &facts);
  }
  return facts;
}

}  // namespace annulus::apps
