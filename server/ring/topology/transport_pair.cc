// SPDX-License-Identifier: Apache-2.0
#include "server/ring/topology/transport_pair.h"

#include <algorithm>
#include <map>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/base/fault_info.h"
#include "server/base/status_macros.h"
#include "server/ring/topology/window_choice.h"

namespace annulus::ring {
namespace {

constexpr char kNccl[] = "nccl";

using Objection = std::optional<std::string>;

// Why ranks `first`, first + stride, ... (`count` of them) are no communicator that NCCL can serve
// at one level alone: there some two share a node and some two do not.
Objection SplitCommunicator(const std::vector<int>& nodes, int first, int stride, int count) {
  std::map<int, int> rank_on;  // a rank on each node
  std::optional<std::pair<int, int>> together;
  for (int i = 0, rank = first; i < count; ++i, rank += stride) {
    const auto [on, fresh] = rank_on.emplace(nodes[static_cast<size_t>(rank)], rank);
    if (!fresh && !together) together = {on->second, rank};
  }
  if (!together || rank_on.size() < 2) return std::nullopt;
  const auto apart = std::find_if(rank_on.begin(), rank_on.end(),
                                  [&](const auto& on) { return on.second != together->first; });
  return absl::StrCat("ranks ", together->first, " and ", together->second,
                      " of one communicator share a node, rank ", apart->second,
                      " of it is on another");
}

Objection SplitWindows(const std::vector<int>& nodes, int window) {
  const int size = static_cast<int>(nodes.size());
  for (int first = 0; first < size; first += window) {
    if (Objection split = SplitCommunicator(nodes, first, 1, window)) return split;
  }
  for (int place = 0; place < window; ++place) {
    if (Objection split = SplitCommunicator(nodes, place, window, size / window)) return split;
  }
  return std::nullopt;
}

std::string MemoryWords(const TransportCandidate& candidate) {
  return candidate.host_memory ? "the host's" : "that of GPUs";
}

class PairChooser {
 public:
  PairChooser(const std::vector<int>& nodes, int window, bool emulated)
      : window_(window), emulated_(emulated), split_(SplitWindows(nodes, window)) {
    const int suits = ChooseWindow(nodes).window_size;
    if (!SplitWindows(nodes, suits)) suitable_window_ = suits;
  }

  // Why one transport cannot serve all hops there are.
  Objection Alone(const TransportCandidate& candidate) const {
    if (!emulated_ || candidate.host_memory) return std::nullopt;
    return absl::StrCat("emulated links: expected a transport that moves the host's memory, got ",
                        candidate.name, ", which moves that of GPUs");
  }

  Objection Together(const TransportCandidate& inner, const TransportCandidate& outer) const {
    if (inner.name == outer.name) return Alone(inner);
    if (emulated_) {
      return absl::StrCat("emulated links: expected one transport for both levels, got ",
                          inner.name, " inside nodes and ", outer.name, " between them");
    }
    const bool host = inner.host_memory && outer.host_memory;
    const bool device = inner.device_memory && outer.device_memory;
    if (!host && !device) {
      return absl::StrCat("expected two that move one memory in common, got ", inner.name,
                          " inside nodes, which moves ", MemoryWords(inner), ", and ", outer.name,
                          " between them, which moves ", MemoryWords(outer));
    }
    if ((inner.name == kNccl || outer.name == kNccl) && split_) return WindowWords(inner, outer);
    // All that it would carry is memory of the host.
    const bool idle = !device && inner.device_memory && !inner.asked;
    if (idle) return absl::StrCat(outer.name, " between nodes moves the host's memory alone");
    return std::nullopt;
  }

 private:
  std::string WindowWords(const TransportCandidate& inner, const TransportCandidate& outer) const {
    const std::string other = inner.name == kNccl ? absl::StrCat(outer.name, " between nodes")
                                                  : absl::StrCat(inner.name, " inside nodes");
    return absl::StrCat("nccl beside ", other, " serves whole communicators: expected a window ",
                        suitable_window_ > 0 ? absl::StrCat("of ", suitable_window_, ", ") : "",
                        "whose ranks are those of a node, got ", window_, " (", *split_, ")");
  }

  const int window_;
  const bool emulated_;
  const Objection split_;
  int suitable_window_ = 0;  // 0: none
};

absl::Status Unavailable(const std::string& message) {
  return WithFaultInfo(absl::FailedPreconditionError(absl::StrCat("transports: ", message)),
                       {"TRANSPORT_UNAVAILABLE", {}});
}

// `because`: why not the one before it, or "".
TransportChoice Chosen(const TransportRanking& ranking, const TransportCandidate& candidate,
                       const Objection& because) {
  TransportChoice choice{candidate.name, candidate.reason};
  if (candidate.asked) return choice;
  if (because) {
    absl::StrAppend(&choice.reason, "; not ", ranking.candidates.front().name, ": ", *because);
  }
  if (!ranking.passed_over.empty()) absl::StrAppend(&choice.reason, "; ", ranking.passed_over);
  return choice;
}

// Of a level that has all hops, or none that anything is known of.
absl::StatusOr<TransportChoice> ChooseAlone(const PairChooser& chooser,
                                            const TransportRanking& ranking) {
  if (ranking.candidates.empty()) return TransportChoice{"", ranking.none_because};
  Objection because;
  for (const TransportCandidate& candidate : ranking.candidates) {
    const Objection objection = chooser.Alone(candidate);
    if (!objection) return Chosen(ranking, candidate, because);
    if (!because) because = objection;
  }
  return Unavailable(*because);
}

}  // namespace

absl::StatusOr<TransportPair> ChooseTransports(const std::vector<WorkerFacts>& ranks,
                                               const std::vector<int>& nodes, int window_size,
                                               const TransportWish& wish) {
  ANNULUS_ASSIGN_OR_RETURN(const TransportRanking inner,
                           RankTransports(Level::kInner, ranks, nodes, wish.inner));
  ANNULUS_ASSIGN_OR_RETURN(const TransportRanking outer,
                           RankTransports(Level::kOuter, ranks, nodes, wish.outer));
  const PairChooser chooser(nodes, window_size, wish.emulated);
  if (inner.candidates.empty() || outer.candidates.empty()) {
    TransportPair pair;
    ANNULUS_ASSIGN_OR_RETURN(pair.inner, ChooseAlone(chooser, inner));
    ANNULUS_ASSIGN_OR_RETURN(pair.outer, ChooseAlone(chooser, outer));
    return pair;
  }
  Objection not_outer;  // why not its best
  for (const TransportCandidate& between : outer.candidates) {
    Objection not_inner;
    for (const TransportCandidate& inside : inner.candidates) {
      const Objection objection = chooser.Together(inside, between);
      if (!objection) {
        return TransportPair{Chosen(inner, inside, not_inner), Chosen(outer, between, not_outer)};
      }
      if (!not_inner) not_inner = objection;
    }
    if (!not_outer) not_outer = not_inner;
  }
  return Unavailable(*not_outer);
}

}  // namespace annulus::ring
