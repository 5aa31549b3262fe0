// SPDX-License-Identifier: Apache-2.0
#include "server/ring/topology/facts.h"

#include <algorithm>
#include <map>
#include <optional>

namespace annulus::ring {
namespace {

bool ShareHost(const WorkerFacts& a, const WorkerFacts& b) {
  if (a.host_id.empty() && b.host_id.empty()) return a.node == b.node;
  return a.host_id == b.host_id;
}

PairLink LinkTo(const WorkerFacts& from, const std::string& bus_id) {
  if (bus_id.empty()) return PairLink::kUnknown;
  for (const GpuPeer& peer : from.peers) {
    if (peer.bus_id != bus_id) continue;
    if (peer.link == GpuLink::kNvlink) return PairLink::kNvlink;
    return peer.link == GpuLink::kPcie ? PairLink::kPcie : PairLink::kNone;
  }
  return from.peers_known ? PairLink::kNone : PairLink::kUnknown;
}

}  // namespace

PairLink LinkBetween(const WorkerFacts& a, const WorkerFacts& b) {
  if (!ShareHost(a, b)) return PairLink::kOtherHost;
  if (a.device == DeviceKind::kCpu && b.device == DeviceKind::kCpu) return PairLink::kHostMemory;
  if (a.device != b.device) return PairLink::kNone;
  if (!a.bus_id.empty() && a.bus_id == b.bus_id) {
    return a.partitioned || b.partitioned ? PairLink::kUnknown : PairLink::kSameGpu;
  }
  const PairLink there = LinkTo(a, b.bus_id);
  const PairLink back = LinkTo(b, a.bus_id);
  if (there == PairLink::kUnknown) return back;
  if (back == PairLink::kUnknown) return there;
  return std::max(there, back);
}

absl::string_view Words(PairLink link) {
  switch (link) {
    case PairLink::kHostMemory:
      return "shared memory";
    case PairLink::kSameGpu:
      return "the same GPU";
    case PairLink::kNvlink:
      return "NVLink";
    case PairLink::kPcie:
      return "PCIe peer access";
    case PairLink::kUnknown:
      return "a link not known";
    case PairLink::kNone:
      return "no peer access";
    case PairLink::kOtherHost:
      return "the network";
  }
  return "?";
}

std::vector<int> NodeNumbers(const std::vector<WorkerFacts>& members) {
  std::map<std::string, int> numbers;
  std::vector<int> nodes;
  nodes.reserve(members.size());
  for (const WorkerFacts& member : members) {
    const int next = static_cast<int>(numbers.size());
    nodes.push_back(numbers.emplace(member.node, next).first->second);
  }
  return nodes;
}

}  // namespace annulus::ring
