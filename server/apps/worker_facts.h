// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "server/ring/topology/facts.h"
#include "server/transport/transport_plugin.h"

namespace annulus::apps {

// What this worker says of its machine: the device behind the compute plugin `compute`, the
// adapters as the machine's topology has them, the other GPUs that a GPU reaches, the transports.
// What cannot be read is left unknown and logged; it never keeps a worker from serving.
ring::WorkerFacts CollectFacts(const std::string& compute, const std::string& bus_id,
                               const std::vector<const annulusTransportV1*>& transports);

}  // namespace annulus::apps
