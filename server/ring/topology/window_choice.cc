// SPDX-License-Identifier: Apache-2.0
#include "server/ring/topology/window_choice.h"

#include <map>
#include <numeric>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace annulus::ring {

WindowChoice ChooseWindow(const std::vector<int>& nodes) {
  const int size = static_cast<int>(nodes.size());
  std::map<int, int> ranks_of;
  for (const int node : nodes) ++ranks_of[node];
  if (ranks_of.size() == 1) {
    return {size, size == 1 ? std::string("a single rank")
                            : absl::StrCat("all ", size, " ranks are on one node: one ring")};
  }
  int divisor = 0;
  std::set<int> counts;
  for (const auto& [node, count] : ranks_of) {
    divisor = std::gcd(divisor, count);
    counts.insert(count);
  }
  if (counts.size() == 1 && divisor > 1) {
    return {divisor, absl::StrCat("every one of the ", ranks_of.size(), " nodes has ", divisor,
                                  " ranks: an inner ring is a node")};
  }
  if (counts.size() == 1) {
    return {size, absl::StrCat("each of the ", size, " nodes has one rank: one ring")};
  }
  const std::string unequal = absl::StrCat("the ", ranks_of.size(), " nodes have ",
                                           absl::StrJoin(counts, " or "), " ranks: ");
  if (divisor > 1) {
    return {divisor, absl::StrCat(unequal, divisor,
                                  " divides them all, so that no inner ring leaves a node")};
  }
  return {size, absl::StrCat(unequal, "nothing but 1 divides them all: one ring, node after node")};
}

}  // namespace annulus::ring
