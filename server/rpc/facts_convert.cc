// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/facts_convert.h"

#include <algorithm>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"

namespace annulus::rpc {
namespace {

using Proto = v1::WorkerFacts;

absl::Status CheckText(const char* field, const std::string& text) {
  const bool printable =
      std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c <= 0x7e; });
  if (printable && text.size() <= ring::kMaxFactBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "facts.", field, ": expected at most ", ring::kMaxFactBytes,
      " printable ASCII characters, got '", absl::CHexEscape(text.substr(0, ring::kMaxFactBytes)),
      "' (", text.size(), " bytes)"));
}

absl::Status CheckCount(const char* field, int count, size_t most) {
  if (static_cast<size_t>(count) <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("facts.", field, ": expected at most ", most, ", got ", count));
}

absl::Status CheckFacts(const Proto& facts) {
  ANNULUS_RETURN_IF_ERROR(CheckText("bus_id", facts.bus_id()));
  ANNULUS_RETURN_IF_ERROR(CheckText("gpu_uuid", facts.gpu_uuid()));
  ANNULUS_RETURN_IF_ERROR(CheckText("ipc_scope", facts.ipc_scope()));
  ANNULUS_RETURN_IF_ERROR(CheckCount("peers", facts.peers_size(), ring::kMaxGpuPeers));
  ANNULUS_RETURN_IF_ERROR(CheckCount("nics", facts.nics_size(), ring::kMaxNics));
  ANNULUS_RETURN_IF_ERROR(CheckCount("transports", facts.transports_size(), ring::kMaxTransports));
  for (const Proto::GpuPeer& peer : facts.peers()) {
    ANNULUS_RETURN_IF_ERROR(CheckText("peers.bus_id", peer.bus_id()));
  }
  for (const Proto::Nic& nic : facts.nics()) {
    ANNULUS_RETURN_IF_ERROR(CheckText("nics.name", nic.name()));
  }
  for (const Proto::LoadedTransport& loaded : facts.transports()) {
    ANNULUS_RETURN_IF_ERROR(CheckText("transports.name", loaded.name()));
    ANNULUS_RETURN_IF_ERROR(CheckText("transports.version", loaded.version()));
  }
  return absl::OkStatus();
}

ring::GpuLink LinkFromProto(Proto::GpuLink link) {
  if (link == Proto::GPU_LINK_PCIE) return ring::GpuLink::kPcie;
  return link == Proto::GPU_LINK_NVLINK ? ring::GpuLink::kNvlink : ring::GpuLink::kNone;
}

ring::NicDistance DistanceFromProto(Proto::NicDistance distance) {
  if (distance == Proto::NIC_DISTANCE_SWITCH) return ring::NicDistance::kSwitch;
  return distance == Proto::NIC_DISTANCE_NUMA ? ring::NicDistance::kNuma
                                              : ring::NicDistance::kAcross;
}

}  // namespace

v1::WorkerFacts FactsToProto(const ring::WorkerFacts& facts) {
  static_assert(static_cast<int>(ring::DeviceKind::kCuda) + 1 == Proto::DEVICE_KIND_CUDA);
  static_assert(static_cast<int>(ring::GpuLink::kNvlink) + 1 == Proto::GPU_LINK_NVLINK);
  static_assert(static_cast<int>(ring::NicDistance::kAcross) + 1 == Proto::NIC_DISTANCE_ACROSS);
  v1::WorkerFacts out;
  out.set_device(static_cast<Proto::DeviceKind>(static_cast<int>(facts.device) + 1));
  if (facts.device_ordinal >= 0) out.set_device_ordinal(facts.device_ordinal);
  out.set_bus_id(facts.bus_id);
  out.set_gpu_uuid(facts.gpu_uuid);
  if (facts.numa_node >= 0) out.set_numa_node(facts.numa_node);
  out.set_partitioned(facts.partitioned);
  out.set_ipc_scope(facts.ipc_scope);
  out.set_peers_known(facts.peers_known);
  for (const ring::GpuPeer& peer : facts.peers) {
    Proto::GpuPeer* to = out.add_peers();
    to->set_bus_id(peer.bus_id);
    to->set_link(static_cast<Proto::GpuLink>(static_cast<int>(peer.link) + 1));
  }
  for (const ring::Nic& nic : facts.nics) {
    Proto::Nic* to = out.add_nics();
    to->set_name(nic.name);
    to->set_distance(static_cast<Proto::NicDistance>(static_cast<int>(nic.distance) + 1));
    to->set_megabits_per_second(nic.megabits_per_second);
  }
  for (const ring::LoadedTransport& loaded : facts.transports) {
    Proto::LoadedTransport* to = out.add_transports();
    to->set_name(loaded.name);
    to->set_version(loaded.version);
    to->set_host_memory(loaded.host_memory);
    to->set_device_memory(loaded.device_memory);
  }
  return out;
}

absl::StatusOr<ring::WorkerFacts> FactsFromProto(const v1::WorkerFacts& facts) {
  ANNULUS_RETURN_IF_ERROR(CheckFacts(facts));
  ring::WorkerFacts out;
  out.device =
      facts.device() == Proto::DEVICE_KIND_CUDA ? ring::DeviceKind::kCuda : ring::DeviceKind::kCpu;
  if (facts.has_device_ordinal()) out.device_ordinal = facts.device_ordinal();
  out.bus_id = facts.bus_id();
  out.gpu_uuid = facts.gpu_uuid();
  if (facts.has_numa_node()) out.numa_node = facts.numa_node();
  out.partitioned = facts.partitioned();
  out.ipc_scope = facts.ipc_scope();
  out.peers_known = facts.peers_known();
  for (const Proto::GpuPeer& peer : facts.peers()) {
    out.peers.push_back({peer.bus_id(), LinkFromProto(peer.link())});
  }
  for (const Proto::Nic& nic : facts.nics()) {
    out.nics.push_back({nic.name(), DistanceFromProto(nic.distance()),
                        std::max<int64_t>(nic.megabits_per_second(), 0)});
  }
  for (const Proto::LoadedTransport& loaded : facts.transports()) {
    out.transports.push_back(
        {loaded.name(), loaded.version(), loaded.host_memory(), loaded.device_memory()});
  }
  return out;
}

}  // namespace annulus::rpc
