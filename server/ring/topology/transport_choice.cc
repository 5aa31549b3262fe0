// SPDX-License-Identifier: Apache-2.0
#include "server/ring/topology/transport_choice.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/fault_info.h"
#include "server/ring/topology/ring_order.h"

namespace annulus::ring {
namespace {

constexpr char kCuipc[] = "cuipc";
constexpr char kNccl[] = "nccl";
constexpr char kHost[] = "host";
constexpr size_t kNamesShown = 3;

using Party = std::vector<const WorkerFacts*>;
// Why not, or nothing.
using Objection = std::optional<std::string>;

// Those that take part in the hops of a level: each party's members send to one another alone.
std::vector<Party> Parties(Level level, const std::vector<WorkerFacts>& members,
                           const std::vector<int>& nodes) {
  std::map<int, Party> by_node;
  for (size_t i = 0; i < members.size(); ++i) by_node[nodes[i]].push_back(&members[i]);
  std::vector<Party> parties;
  if (level == Level::kOuter) {
    if (by_node.size() < 2) return {};
    Party& all = parties.emplace_back();
    for (const WorkerFacts& member : members) all.push_back(&member);
    return parties;
  }
  for (auto& [node, party] : by_node) {
    if (party.size() > 1) parties.push_back(std::move(party));
  }
  return parties;
}

const LoadedTransport* Find(const WorkerFacts& facts, const std::string& name) {
  const auto found =
      std::find_if(facts.transports.begin(), facts.transports.end(),
                   [&](const LoadedTransport& loaded) { return loaded.name == name; });
  return found == facts.transports.end() ? nullptr : &*found;
}

// The transports that all members of one level have, and what speaks for and against each.
class Chooser {
 public:
  explicit Chooser(const std::vector<Party>& parties) : parties_(parties) {
    for (const Party& party : parties) all_.insert(all_.end(), party.begin(), party.end());
  }

  bool untold() const {
    return std::all_of(all_.begin(), all_.end(),
                       [](const WorkerFacts* facts) { return facts->transports.empty(); });
  }

  Objection NotLoaded(const std::string& name) const {
    std::vector<std::string> without;
    for (const WorkerFacts* facts : all_) {
      if (Find(*facts, name) == nullptr) without.push_back(facts->worker);
    }
    if (without.empty()) return std::nullopt;
    std::sort(without.begin(), without.end());
    const size_t rest = without.size() - std::min(without.size(), kNamesShown);
    without.resize(without.size() - rest);
    return absl::StrCat("not loaded by ", absl::StrJoin(without, ", "),
                        rest == 0 ? "" : absl::StrCat(" and ", rest, " more"));
  }

  Objection NotGpus() const {
    const WorkerFacts* first = nullptr;
    for (const WorkerFacts* facts : all_) {
      if (facts->device != DeviceKind::kCpu) continue;
      if (first == nullptr || facts->worker < first->worker) first = facts;
    }
    if (first == nullptr) return std::nullopt;
    return absl::StrCat(first->worker, " computes on the CPU");
  }

  // The worst link inside the parties, and between whom.
  PairLink WorstLink(std::string* between) const {
    PairLink worst = PairLink::kHostMemory;
    for (const Party& party : parties_) {
      if (party.size() > kComparedPerNode) {
        *between = absl::StrCat("the ", party.size(), " workers of a node");
        return std::max(worst, PairLink::kUnknown);
      }
      for (size_t a = 0; a < party.size(); ++a) {
        for (size_t b = a + 1; b < party.size(); ++b) {
          const PairLink link = LinkBetween(*party[a], *party[b]);
          if (link <= worst) continue;
          worst = link;
          *between = absl::StrCat(party[a]->worker, " and ", party[b]->worker);
        }
      }
    }
    return worst;
  }

  // Two of one party whose processes may not open each other's memory, where that is told.
  Objection OtherScopes() const {
    for (const Party& party : parties_) {
      const WorkerFacts* told = nullptr;
      for (const WorkerFacts* facts : party) {
        if (facts->ipc_scope.empty()) continue;
        if (told != nullptr && told->ipc_scope != facts->ipc_scope) {
          return absl::StrCat(told->worker, " and ", facts->worker,
                              " may not open each other's memory: they run as ", told->ipc_scope,
                              " and ", facts->ipc_scope);
        }
        told = facts;
      }
    }
    return std::nullopt;
  }

  Objection NotCuipc(bool trust_unknown, std::string* how) const {
    if (Objection gpus = NotGpus()) return gpus;
    std::string between;
    const PairLink worst = WorstLink(&between);
    *how = worst == PairLink::kSameGpu
               ? "one host, one GPU"
               : absl::StrCat("one host, every two GPUs joined by ", std::string(Words(worst)),
                              worst == PairLink::kPcie ? " or better" : "");
    if (worst == PairLink::kOtherHost) {
      return absl::StrCat(between, " are on different hosts");
    }
    if (worst == PairLink::kNone) return absl::StrCat("no peer access between ", between);
    if (worst == PairLink::kUnknown && !trust_unknown) {
      return absl::StrCat("peer access between ", between, " is not known");
    }
    if (Objection scopes = OtherScopes()) return scopes;
    return NotLoaded(kCuipc);
  }

  Objection NotNccl(std::string* version) const {
    if (Objection gpus = NotGpus()) return gpus;
    if (Objection loaded = NotLoaded(kNccl)) return loaded;
    std::map<std::pair<std::string, std::string>, const WorkerFacts*> gpus;
    const WorkerFacts* told = nullptr;
    for (const WorkerFacts* facts : all_) {
      if (!facts->bus_id.empty()) {
        const auto [it, fresh] = gpus.emplace(
            std::make_pair(facts->host_id.empty() ? facts->node : facts->host_id, facts->bus_id),
            facts);
        if (!fresh) {
          return absl::StrCat(it->second->worker, " and ", facts->worker,
                              " share a GPU, which NCCL refuses");
        }
      }
      const std::string& now = Find(*facts, kNccl)->version;
      if (now.empty()) continue;
      if (told != nullptr && *version != now) {
        return absl::StrCat(told->worker, " has NCCL ", *version, ", ", facts->worker, " has ", now,
                            ", and all need the same");
      }
      told = facts;
      *version = now;
    }
    return std::nullopt;
  }

  // The transport that all have, by name, among those that need nothing special.
  std::optional<std::string> Common() const {
    if (!NotLoaded(kHost)) return kHost;
    std::set<std::string> names;
    for (const LoadedTransport& loaded : all_.front()->transports) names.insert(loaded.name);
    for (const std::string& name : names) {
      if (name != kCuipc && name != kNccl && !NotLoaded(name)) return name;
    }
    return std::nullopt;
  }

  TransportCandidate Candidate(const std::string& name, const std::string& reason) const {
    TransportCandidate candidate{name, reason};
    for (const WorkerFacts* facts : all_) {
      const LoadedTransport* loaded = Find(*facts, name);
      if (loaded == nullptr || (!loaded->host_memory && !loaded->device_memory)) continue;
      candidate.host_memory &= loaded->host_memory;
      candidate.device_memory &= loaded->device_memory;
    }
    return candidate;
  }

 private:
  const std::vector<Party>& parties_;
  Party all_;
};

absl::Status Unavailable(Level level, const std::string& message) {
  return WithFaultInfo(
      absl::FailedPreconditionError(absl::StrCat(Name(level), " transport: ", message)),
      {"TRANSPORT_UNAVAILABLE", {{"level", std::string(Name(level))}}});
}

absl::StatusOr<TransportRanking> Forced(Level level, const Chooser& chooser,
                                        const std::string& asked) {
  std::string detail;
  const Objection objection = asked == kCuipc  ? chooser.NotCuipc(/*trust_unknown=*/true, &detail)
                               : asked == kNccl ? chooser.NotNccl(&detail)
                                               : chooser.NotLoaded(asked);
  if (objection) {
    return Unavailable(level, absl::StrCat("'", asked, "' was asked for, but ", *objection));
  }
  TransportRanking ranking;
  ranking.candidates.push_back(chooser.Candidate(asked, "asked for"));
  ranking.candidates.back().asked = true;
  return ranking;
}

absl::StatusOr<TransportRanking> Best(Level level, const Chooser& chooser) {
  TransportRanking ranking;
  const Objection cpu = chooser.NotGpus();
  std::string detail;
  if (const Objection cuipc = chooser.NotCuipc(/*trust_unknown=*/false, &detail)) {
    if (!cpu) ranking.passed_over = absl::StrCat("not cuipc: ", *cuipc);
  } else {
    ranking.candidates.push_back(chooser.Candidate(kCuipc, detail));
  }
  detail.clear();
  if (const Objection nccl = chooser.NotNccl(&detail)) {
    const bool first = ranking.candidates.empty();  // else it is not what would be taken next
    if (!cpu && first) absl::StrAppend(&ranking.passed_over, "; not nccl: ", *nccl);
  } else {
    ranking.candidates.push_back(chooser.Candidate(
        kNccl,
        absl::StrCat("all GPUs, ", detail.empty() ? std::string("NCCL of a version not told")
                                                  : absl::StrCat("NCCL ", detail, " everywhere"))));
  }
  if (const std::optional<std::string> common = chooser.Common()) {
    ranking.candidates.push_back(
        chooser.Candidate(*common, cpu ? absl::StrCat("memory of the host: ", *cpu)
                                       : std::string("through host memory")));
  }
  if (!ranking.candidates.empty()) return ranking;
  return Unavailable(level, "there is none that all members have loaded");
}

}  // namespace

absl::StatusOr<TransportRanking> RankTransports(Level level,
                                                const std::vector<WorkerFacts>& members,
                                                const std::vector<int>& nodes,
                                                const std::string& asked) {
  const std::vector<Party> parties = Parties(level, members, nodes);
  TransportRanking none;
  if (parties.empty()) {
    none.none_because =
        level == Level::kInner ? "no two ranks share a node" : "all ranks are on one node";
    if (asked.empty()) return none;
    return Unavailable(level, absl::StrCat("'", asked, "' was asked for, but ", none.none_because,
                                           ": there is no hop to take it"));
  }
  const Chooser chooser(parties);
  if (chooser.untold() && asked.empty()) {
    none.none_because = "the workers did not say which they have: each takes its first";
    return none;
  }
  return asked.empty() ? Best(level, chooser) : Forced(level, chooser, asked);
}

}  // namespace annulus::ring
