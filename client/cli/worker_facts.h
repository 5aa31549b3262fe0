// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "annulus/v1/coordinator.pb.h"
#include "server/ring/topology/facts.h"

namespace annulus::cli {

// What the worker told the coordinator of its machine. The coordinator has checked it.
ring::WorkerFacts FactsOf(const v1::WorkerHello& hello);

}  // namespace annulus::cli
