// SPDX-License-Identifier: Apache-2.0
#include "server/ring/topology/nic_assignment.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/ring/topology/min_cost_assignment.h"

namespace annulus::ring {
namespace {

// A GPU of a node and the members on it. A GPU without a bus id is its worker's own.
struct Gpu {
  const WorkerFacts* facts = nullptr;
  std::vector<size_t> members;
};

struct Node {
  std::map<std::pair<std::string, std::string>, Gpu> gpus;  // by (bus id, worker where that is "")
};

const Nic* FindNic(const WorkerFacts& facts, const std::string& name) {
  const auto found = std::find_if(facts.nics.begin(), facts.nics.end(),
                                  [&](const Nic& nic) { return nic.name == name; });
  return found == facts.nics.end() ? nullptr : &*found;
}

// Names of the adapters that every GPU of the node sees, sorted; of those only the fastest: a
// slower one beside them is there for other work.
std::vector<std::string> UsableNics(const Node& node) {
  std::map<std::string, int64_t> speeds;
  for (const Nic& nic : node.gpus.begin()->second.facts->nics) {
    const bool seen_by_all = std::all_of(node.gpus.begin(), node.gpus.end(), [&](const auto& gpu) {
      return FindNic(*gpu.second.facts, nic.name) != nullptr;
    });
    if (seen_by_all) speeds[nic.name] = nic.megabits_per_second;
  }
  int64_t fastest = 0;
  for (const auto& [name, speed] : speeds) fastest = std::max(fastest, speed);
  std::vector<std::string> names;
  for (const auto& [name, speed] : speeds) {
    if (speed == fastest) names.push_back(name);
  }
  return names;
}

absl::string_view DistanceWords(NicDistance distance) {
  switch (distance) {
    case NicDistance::kSwitch:
      return "behind the same switch";
    case NicDistance::kNuma:
      return "at the same NUMA node";
    case NicDistance::kAcross:
      return "across NUMA nodes";
  }
  return "?";
}

std::string Count(size_t count, absl::string_view thing) {
  return absl::StrCat(count, " ", thing, count == 1 ? "" : "s");
}

// The adapter of each GPU, as an index into `nics`. An adapter has `least` places that are filled
// first and one more for what is left over.
std::vector<size_t> Deal(const std::vector<const WorkerFacts*>& gpus,
                         const std::vector<std::string>& nics) {
  constexpr int64_t kDistanceCost = 1 << 10;  // above any number of places a GPU can be off
  constexpr int64_t kExtraCost = 1 << 20;     // above any number of distances
  const size_t least = gpus.size() / nics.size();
  std::vector<std::vector<int64_t>> costs;
  for (size_t gpu = 0; gpu < gpus.size(); ++gpu) {
    const auto even = static_cast<int64_t>(gpu * nics.size() / gpus.size());
    std::vector<int64_t>& row = costs.emplace_back();
    for (size_t place = 0; place <= least; ++place) {
      for (size_t nic = 0; nic < nics.size(); ++nic) {
        const auto distance = static_cast<int64_t>(FindNic(*gpus[gpu], nics[nic])->distance);
        row.push_back(distance * kDistanceCost + std::abs(even - static_cast<int64_t>(nic)) +
                      (place == least ? kExtraCost : 0));
      }
    }
  }
  std::vector<size_t> dealt;
  for (const int column : MinCostAssignment(costs)) {
    dealt.push_back(static_cast<size_t>(column) % nics.size());
  }
  return dealt;
}

void AssignOn(const Node& node, std::vector<NicChoice>* choices) {
  const auto all = [&](const std::string& reason) {
    for (const auto& [key, gpu] : node.gpus) {
      for (const size_t member : gpu.members) (*choices)[member].reason = reason;
    }
  };
  if (node.gpus.size() > kAssignedGpusPerNode) {
    return all(absl::StrCat("more than ", kAssignedGpusPerNode, " GPUs on this node"));
  }
  const std::vector<std::string> nics = UsableNics(node);
  if (nics.empty()) return all("no network adapter that every GPU of this node reports");
  std::vector<const WorkerFacts*> gpus;
  for (const auto& [key, gpu] : node.gpus) gpus.push_back(gpu.facts);
  const std::vector<size_t> dealt = Deal(gpus, nics);
  size_t index = 0;
  for (const auto& [key, gpu] : node.gpus) {
    const size_t nic = dealt[index++];
    const auto served = std::count(dealt.begin(), dealt.end(), nic);
    const Nic& facts = *FindNic(*gpu.facts, nics[nic]);
    const std::string reason = absl::StrCat(
        DistanceWords(facts.distance), ", serves ", Count(static_cast<size_t>(served), "GPU"), "; ",
        Count(nics.size(), "adapter"), " for ", Count(gpus.size(), "GPU"));
    for (const size_t member : gpu.members) (*choices)[member] = {facts.name, reason};
  }
}

}  // namespace

std::vector<NicChoice> AssignNics(const std::vector<WorkerFacts>& members) {
  std::vector<NicChoice> choices(members.size());
  std::map<std::string, Node> nodes;
  for (size_t i = 0; i < members.size(); ++i) {
    const WorkerFacts& facts = members[i];
    if (facts.device == DeviceKind::kCpu) {
      choices[i].reason = "a CPU worker: where the host routes it";
      continue;
    }
    const std::string own = facts.bus_id.empty() ? facts.worker : "";
    Gpu& gpu = nodes[facts.node].gpus[{facts.bus_id, own}];
    // The first by name speaks for the GPU, whatever the order of the members.
    if (gpu.facts == nullptr || facts.worker < gpu.facts->worker) gpu.facts = &facts;
    gpu.members.push_back(i);
  }
  for (const auto& [name, node] : nodes) AssignOn(node, &choices);
  return choices;
}

}  // namespace annulus::ring
