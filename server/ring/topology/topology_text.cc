// SPDX-License-Identifier: Apache-2.0
#include "server/ring/topology/topology_text.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace annulus::ring {
namespace {

using Json = nlohmann::ordered_json;

const WorkerFacts& FactsOf(const Topology& topology, int rank) {
  return topology.seats[static_cast<size_t>(rank)].facts;
}

PairLink LinkOf(const Topology& topology, int a, int b) {
  return LinkBetween(FactsOf(topology, a), FactsOf(topology, b));
}

std::string DeviceText(const WorkerFacts& facts) {
  if (facts.device == DeviceKind::kCpu) return "cpu";
  return facts.bus_id.empty() ? "gpu" : facts.bus_id;
}

// "5 (NVLink)", or "-" where the ring has no such hop.
std::string HopText(const Topology& topology, int rank, int next) {
  if (next == rank) return "-";
  return absl::StrCat(next, " (", std::string(Words(LinkOf(topology, rank, next))), ")");
}

std::string NicText(const Seat& seat) { return seat.nic.nic.empty() ? "-" : seat.nic.nic; }

std::string ChoiceText(const TransportChoice& choice) {
  return absl::StrCat(choice.name.empty() ? "-" : choice.name, ": ", choice.reason);
}

// Between neighbours of a window in the picture.
const char* Mark(PairLink link) {
  switch (link) {
    case PairLink::kSameGpu:
      return "+++";
    case PairLink::kNvlink:
      return "===";
    case PairLink::kHostMemory:
    case PairLink::kPcie:
      return "---";
    case PairLink::kUnknown:
      return "???";
    case PairLink::kNone:
      return ". .";
    case PairLink::kOtherHost:
      return "~~~";
  }
  return "   ";
}

constexpr char kLegend[] =
    "+++ same GPU   === NVLink   --- PCIe peer access or shared memory   . . through the host   "
    "~~~ network   ??? not known\n";

// A window a line; the ends of a line are joined too, and so are the columns, the last window's
// with the first's.
std::string Picture(const Topology& topology) {
  const int window = topology.window.window_size;
  const int windows = topology.size() / window;
  if (window > kDrawnWindow || windows > kDrawnWindows) {
    return absl::StrFormat("%d windows of %d ranks: too many to draw\n", windows, window);
  }
  std::string text;
  for (int row = 0; row < windows; ++row) {
    std::string line = "  ";
    for (int i = 0; i < window; ++i) {
      const int rank = row * window + i;
      absl::StrAppendFormat(&line, "%4d", rank);
      if (i + 1 < window) absl::StrAppend(&line, " ", Mark(LinkOf(topology, rank, rank + 1)));
    }
    const int last = row * window + window - 1;
    if (window > 2) absl::StrAppend(&line, " ", Mark(LinkOf(topology, last, row * window)), " )");
    absl::StrAppend(&text, line, "\n");
    if (windows == 1) break;
    std::string below = "  ";
    for (int i = 0; i < window; ++i) absl::StrAppendFormat(&below, "%4s    ", "|");
    below.resize(below.find_last_of('|') + 1);
    absl::StrAppend(&text, below, row + 1 == windows ? "   back to the first window\n" : "\n");
  }
  return absl::StrCat(text, kLegend);
}

std::string Header(const Topology& topology) {
  const int nodes =
      1 + std::max_element(topology.seats.begin(), topology.seats.end(),
                           [](const Seat& a, const Seat& b) { return a.node < b.node; })
              ->node;
  return absl::StrCat(topology.size(), topology.size() == 1 ? " rank on " : " ranks on ", nodes,
                      nodes == 1 ? " node" : " nodes");
}

std::string Shares(const Topology& topology) {
  return absl::StrCat("window ", topology.window.window_size, ": ", topology.window.reason);
}

}  // namespace

std::string TopologyToText(const Topology& topology) {
  std::string text = absl::StrCat(
      Header(topology), "\n", Shares(topology), "\ninside nodes: ", ChoiceText(topology.inner),
      "\nbetween nodes: ", ChoiceText(topology.outer), "\n\n",
      absl::StrFormat("%4s  %-12s %-10s %-13s %-26s %-18s %-8s %s\n", "rank", "worker", "node",
                      "device", "inner next", "outer next", "adapter", "why"));
  for (int rank = 0; rank < topology.size(); ++rank) {
    const Seat& seat = topology.seats[static_cast<size_t>(rank)];
    absl::StrAppendFormat(
        &text, "%4d  %-12s %-10s %-13s %-26s %-18s %-8s %s\n", rank, seat.facts.worker,
        seat.facts.node, DeviceText(seat.facts), HopText(topology, rank, topology.InnerNext(rank)),
        HopText(topology, rank, topology.OuterNext(rank)), NicText(seat), seat.nic.reason);
  }
  return absl::StrCat(text, "\n", Picture(topology));
}

std::string TopologyToMarkdown(const Topology& topology) {
  std::string text = absl::StrCat(
      Header(topology), ".\n\n| decision | choice | reason |\n|---|---|---|\n| window | ",
      topology.window.window_size, " | ", topology.window.reason, " |\n");
  for (const auto& [what, choice] : {std::pair("transport inside nodes", &topology.inner),
                                     std::pair("transport between nodes", &topology.outer)}) {
    absl::StrAppend(&text, "| ", what, " | ", choice->name.empty() ? "-" : choice->name, " | ",
                    choice->reason, " |\n");
  }
  absl::StrAppend(&text,
                  "\n| rank | worker | node | device | inner next | outer next | adapter | why "
                  "that one |\n|---|---|---|---|---|---|---|---|\n");
  for (int rank = 0; rank < topology.size(); ++rank) {
    const Seat& seat = topology.seats[static_cast<size_t>(rank)];
    absl::StrAppend(&text, "| ", rank, " | ", seat.facts.worker, " | ", seat.facts.node, " | ",
                    DeviceText(seat.facts), " | ",
                    HopText(topology, rank, topology.InnerNext(rank)), " | ",
                    HopText(topology, rank, topology.OuterNext(rank)), " | ", NicText(seat), " | ",
                    seat.nic.reason, " |\n");
  }
  return absl::StrCat(text, "\n```\n", Picture(topology), "```\n");
}

std::string TopologyToJson(const Topology& topology) {
  const auto choice = [](const TransportChoice& made) {
    return Json{{"transport", made.name}, {"reason", made.reason}};
  };
  Json json{{"schema", "annulus.topology.v1"},
            {"size", topology.size()},
            {"window_size", topology.window.window_size},
            {"window_reason", topology.window.reason},
            {"inner", choice(topology.inner)},
            {"outer", choice(topology.outer)},
            {"ranks", Json::array()}};
  for (int rank = 0; rank < topology.size(); ++rank) {
    const Seat& seat = topology.seats[static_cast<size_t>(rank)];
    const int inner = topology.InnerNext(rank);
    const int outer = topology.OuterNext(rank);
    json["ranks"].push_back({{"rank", rank},
                             {"worker", seat.facts.worker},
                             {"node", seat.facts.node},
                             {"device", DeviceText(seat.facts)},
                             {"inner_next", inner},
                             {"inner_link", Words(LinkOf(topology, rank, inner))},
                             {"inner_level", Name(topology.LevelOf(rank, inner))},
                             {"outer_next", outer},
                             {"outer_link", Words(LinkOf(topology, rank, outer))},
                             {"outer_level", Name(topology.LevelOf(rank, outer))},
                             {"nic", seat.nic.nic},
                             {"nic_reason", seat.nic.reason}});
  }
  return json.dump(2) + "\n";
}

}  // namespace annulus::ring
