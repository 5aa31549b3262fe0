// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/ring/topology/facts.h"

// How a GPU reaches the others of its machine. The only place that knows NVML: neither the PCI bus
// nor hwloc as distributions build it shows NVLink, and CUDA knows the visible GPUs alone.
namespace annulus::machine {

struct GpuLinksOptions {
  std::string bus_id;                         // of the GPU that asks, "0000:3b:00.0"
  std::string library = "libnvidia-ml.so.1";  // see NvmlLibrary::Open
  // A driver in distress may keep NVML from returning; the thread that waits for it is left behind
  // then.
  double limit_seconds = 5.0;
};

struct GpuLinks {
  std::string uuid;          // of the GPU itself; "": not known
  bool partitioned = false;  // it is split into parts (MIG), which reach no other GPU
  // By bus id, at most kMaxGpuPeers. One whose relation NVML does not tell is not among them.
  std::vector<ring::GpuPeer> peers;
};

// kNvlink where both reading and writing are possible and go over NVLink, directly or through
// NVSwitches; kPcie where they are possible otherwise; kNone where not.
//
// NOT_FOUND: no NVML, or it does not know the GPU. FAILED_PRECONDITION: NVML's words.
// DEADLINE_EXCEEDED: past the limit. Thread safe; takes some milliseconds.
absl::StatusOr<GpuLinks> ReadGpuLinks(const GpuLinksOptions& options);

// Whether `peers` names each of `gpus`, bus ids, but `self`.
bool NamesAll(const std::vector<ring::GpuPeer>& peers, const std::vector<std::string>& gpus,
              const std::string& self);

}  // namespace annulus::machine
