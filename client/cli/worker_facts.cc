// SPDX-License-Identifier: Apache-2.0
#include "client/cli/worker_facts.h"

namespace annulus::cli {

ring::WorkerFacts FactsOf(const v1::WorkerHello& hello) {
  using Proto = v1::WorkerFacts;
  const Proto& facts = hello.facts();
  ring::WorkerFacts out{.worker = hello.name(), .node = hello.node(), .host_id = hello.host_id()};
  if (facts.device() == Proto::DEVICE_KIND_CUDA) out.device = ring::DeviceKind::kCuda;
  if (facts.has_device_ordinal()) out.device_ordinal = facts.device_ordinal();
  out.bus_id = facts.bus_id();
  out.gpu_uuid = facts.gpu_uuid();
  if (facts.has_numa_node()) out.numa_node = facts.numa_node();
  out.partitioned = facts.partitioned();
  out.ipc_scope = facts.ipc_scope();
  out.peers_known = facts.peers_known();
  for (const Proto::GpuPeer& peer : facts.peers()) {
    const bool known = peer.link() >= Proto::GPU_LINK_NONE && peer.link() <= Proto::GPU_LINK_NVLINK;
    out.peers.push_back({peer.bus_id(), known ? static_cast<ring::GpuLink>(peer.link() - 1)
                                              : ring::GpuLink::kNone});
  }
  for (const Proto::Nic& nic : facts.nics()) {
    const bool known = nic.distance() >= Proto::NIC_DISTANCE_SWITCH &&
                       nic.distance() <= Proto::NIC_DISTANCE_ACROSS;
    out.nics.push_back(
        {nic.name(),
         known ? static_cast<ring::NicDistance>(nic.distance() - 1) : ring::NicDistance::kAcross,
         nic.megabits_per_second()});
  }
  for (const Proto::LoadedTransport& loaded : facts.transports()) {
    out.transports.push_back(
        {loaded.name(), loaded.version(), loaded.host_memory(), loaded.device_memory()});
  }
  if (out.transports.empty() && !hello.transport().empty()) {
    out.transports.push_back({.name = hello.transport()});
  }
  return out;
}

}  // namespace annulus::cli
