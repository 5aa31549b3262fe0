// SPDX-License-Identifier: Apache-2.0
#include "server/ring/topology/ring_order.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <tuple>

namespace annulus::ring {
namespace {

// So far apart that, up to 4096 hops, one worse link outweighs any number of better ones.
int64_t CostOf(PairLink link) {
  switch (link) {
    case PairLink::kHostMemory:
    case PairLink::kSameGpu:
      return 0;
    case PairLink::kNvlink:
      return 1;
    case PairLink::kPcie:
    case PairLink::kUnknown:
      return int64_t{1} << 14;
    case PairLink::kNone:
      return int64_t{1} << 28;
    case PairLink::kOtherHost:
      break;
  }
  return int64_t{1} << 42;
}

// The order of one node's workers, whose ranks begin at `first_rank`.
class NodeSearch {
 public:
  NodeSearch(const std::vector<WorkerFacts>& members, const std::vector<int>& node, int first_rank,
             int window)
      : size_(node.size()), first_rank_(first_rank), window_(window), costs_(size_ * size_) {
    cheapest_ = size_ > 1 ? std::numeric_limits<int64_t>::max() : 0;
    for (size_t a = 0; a < size_; ++a) {
      for (size_t b = 0; b < size_; ++b) {
        if (a == b) continue;
        const int64_t cost = CostOf(LinkBetween(members[node[a]], members[node[b]]));
        costs_[a * size_ + b] = cost;
        cheapest_ = std::min(cheapest_, cost);
      }
    }
  }

  // Places in the node's own list.
  std::vector<size_t> Run() {
    if (size_ > kSearchedPerNode) return Greedy();
    placed_.clear();
    Descend(0);
    return best_;
  }

 private:
  // What the worker at `place`, the last one placed, adds: the hop to it, and the one that closes
  // its window.
  int64_t CostAt(size_t place) const {
    const int rank = first_rank_ + static_cast<int>(place);
    int64_t cost = 0;
    if (rank % window_ != 0 && place > 0) cost += Cost(placed_[place - 1], placed_[place]);
    const bool ends_window = rank % window_ == window_ - 1;
    if (ends_window && window_ > 2 && place + 1 >= static_cast<size_t>(window_)) {
      cost += Cost(placed_[place], placed_[place + 1 - static_cast<size_t>(window_)]);
    }
    return cost;
  }
  int64_t Cost(size_t a, size_t b) const { return costs_[a * size_ + b]; }

  // Hops that any order has, at the price of the cheapest: an order that costs no more is best.
  int64_t Bound() const {
    int64_t hops = 0;
    for (size_t place = 0; place < size_; ++place) {
      const int rank = first_rank_ + static_cast<int>(place);
      hops += rank % window_ != 0 && place > 0;
      hops +=
          rank % window_ == window_ - 1 && window_ > 2 && place + 1 >= static_cast<size_t>(window_);
    }
    return hops * cheapest_;
  }

  void Descend(int64_t cost) {
    if (!best_.empty() && (cost >= best_cost_ || best_cost_ <= Bound())) return;
    if (placed_.size() == size_) {
      best_ = placed_;
      best_cost_ = cost;
      return;
    }
    for (size_t next = 0; next < size_; ++next) {
      if (std::find(placed_.begin(), placed_.end(), next) != placed_.end()) continue;
      placed_.push_back(next);
      Descend(cost + CostAt(placed_.size() - 1));
      placed_.pop_back();
    }
  }

  std::vector<size_t> Greedy() const {
    std::vector<size_t> order{0};
    std::vector<bool> used(size_);
    used[0] = true;
    while (order.size() < size_) {
      size_t best = size_;
      for (size_t next = 0; next < size_; ++next) {
        if (used[next]) continue;
        if (best == size_ || Cost(order.back(), next) < Cost(order.back(), best)) best = next;
      }
      used[best] = true;
      order.push_back(best);
    }
    return order;
  }

  const size_t size_;
  const int first_rank_;
  const int window_;
  std::vector<int64_t> costs_;
  int64_t cheapest_ = 0;
  std::vector<size_t> placed_;
  std::vector<size_t> best_;
  int64_t best_cost_ = 0;
};

}  // namespace

std::vector<int> RingOrder(const std::vector<WorkerFacts>& members, int window) {
  std::vector<int> order(members.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int a, int b) {
    const auto key = [&](int i) {
      return std::tie(members[i].node, members[i].host_id, members[i].bus_id, members[i].worker);
    };
    return key(a) < key(b);
  });
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    end = begin;
    bool any_gpu = false;
    while (end < order.size() && members[order[end]].node == members[order[begin]].node) {
      any_gpu |= members[order[end++]].device == DeviceKind::kCuda;
    }
    if (!any_gpu || end - begin > kComparedPerNode) continue;
    const std::vector<int> node(order.begin() + begin, order.begin() + end);
    const std::vector<size_t> places =
        NodeSearch(members, node, static_cast<int>(begin), window).Run();
    for (size_t i = 0; i < places.size(); ++i) order[begin + i] = node[places[i]];
  }
  return order;
}

}  // namespace annulus::ring
