// SPDX-License-Identifier: Apache-2.0
#include "server/ring/slots.h"

#include <algorithm>
#include <utility>

#include "server/ring/token_ranges.h"

namespace annulus::ring {
namespace {

// The transfers that match, by post step.
template <typename Matches>
std::vector<size_t> TransfersWhere(const Plan& plan, const Matches& matches) {
  std::vector<size_t> found;
  for (size_t i = 0; i < plan.transfers.size(); ++i) {
    if (matches(plan.transfers[i])) found.push_back(i);
  }
  std::stable_sort(found.begin(), found.end(), [&](size_t a, size_t b) {
    return plan.transfers[a].post_step < plan.transfers[b].post_step;
  });
  return found;
}

bool Adds(const Transfer& transfer) { return transfer.combine == Combine::kAdd; }

}  // namespace

SlotTable::SlotTable(const Plan& plan, int rank) : landing_(plan.transfers.size(), kNone) {
  AddKvLives(plan, rank);
  if (plan.direction == Direction::kBackward) AddGradientLives(plan, rank);
  AssignStaging(plan, rank);
  for (Slot& slot : slots_) {
    for (const SlotLife& life : slot.lives) {
      slot.max_tokens = std::max(slot.max_tokens, TokenCount(life.rows));
    }
  }
}

void SlotTable::AddKvLives(const Plan& plan, int rank) {
  const int end = plan.steps + 1;
  const size_t own = SlotNamed(kOwnSlot, Payload::kKv);
  slots_[own].lives.push_back({0, end, plan.ranks[static_cast<size_t>(rank)].kv});
  if (plan.direction == Direction::kBackward) {
    for (const Resident& resident : plan.resident) {
      if (resident.rank != rank) continue;
      const size_t slot = SlotNamed(resident.slot, Payload::kKv);
      slots_[slot].lives.push_back({0, end, resident.kv});
    }
  }
  const auto arrives = [&](const Transfer& transfer) {
    return transfer.payload == Payload::kKv && transfer.dst == rank;
  };
  for (const size_t index : TransfersWhere(plan, arrives)) {
    const Transfer& transfer = plan.transfers[index];
    landing_[index] = SlotNamed(transfer.dst_slot, Payload::kKv);
    std::vector<SlotLife>& lives = slots_[landing_[index]].lives;
    if (!lives.empty()) lives.back().end_step = transfer.post_step;
    lives.push_back({transfer.due_step, end, transfer.tokens});
  }
}

void SlotTable::AddGradientLives(const Plan& plan, int rank) {
  const int end = plan.steps + 1;
  const auto leaves = [&](const Transfer& transfer) {
    return transfer.payload == Payload::kDkv && transfer.src == rank;
  };
  for (const size_t index : TransfersWhere(plan, leaves)) {
    const Transfer& transfer = plan.transfers[index];
    std::vector<SlotLife>& lives = slots_[SlotNamed(transfer.src_slot, Payload::kDkv)].lives;
    const int begin = lives.empty() ? 0 : lives.back().end_step;
    lives.push_back({begin, transfer.due_step, transfer.tokens});
  }
  for (size_t index = 0; index < plan.transfers.size(); ++index) {
    const Transfer& transfer = plan.transfers[index];
    if (transfer.payload == Payload::kDkv && transfer.dst == rank && !Adds(transfer)) {
      landing_[index] = SlotNamed(transfer.dst_slot, Payload::kDkv);
    }
  }
  std::vector<SlotLife>& home = slots_[SlotNamed(plan.gradient_home, Payload::kDkv)].lives;
  const int begin = home.empty() ? 0 : home.back().end_step;
  home.push_back({begin, end, plan.ranks[static_cast<size_t>(rank)].kv});
}

// Greedy over post steps, which needs no more buffers than are in flight at once.
void SlotTable::AssignStaging(const Plan& plan, int rank) {
  const auto lands = [&](const Transfer& transfer) {
    return transfer.dst == rank && Adds(transfer);
  };
  std::vector<std::pair<size_t, int>> busy_until;  // slot, due step
  for (const size_t index : TransfersWhere(plan, lands)) {
    const Transfer& transfer = plan.transfers[index];
    auto buffer = std::find_if(busy_until.begin(), busy_until.end(), [&](const auto& candidate) {
      return candidate.second <= transfer.post_step;
    });
    if (buffer == busy_until.end()) {
      slots_.push_back({"", Payload::kDkv, 0, {}});
      buffer = busy_until.insert(buffer, {slots_.size() - 1, 0});
    }
    buffer->second = transfer.due_step;
    landing_[index] = buffer->first;
    Slot& slot = slots_[buffer->first];
    slot.max_tokens = std::max(slot.max_tokens, TokenCount(transfer.tokens));
  }
}

size_t SlotTable::SlotNamed(const std::string& name, Payload payload) {
  const size_t index = IndexOf(name);
  if (index != kNone) return index;
  slots_.push_back({name, payload, 0, {}});
  return slots_.size() - 1;
}

size_t SlotTable::IndexOf(absl::string_view name) const {
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].name == name && !name.empty()) return i;
  }
  return kNone;
}

size_t SlotTable::LandingSlot(size_t transfer) const { return landing_[transfer]; }

const SlotLife* SlotTable::LifeAt(size_t slot, int step) const {
  for (const SlotLife& life : slots_[slot].lives) {
    if (step >= life.begin_step && step < life.end_step) return &life;
  }
  return nullptr;
}

int64_t PeakSlotTokens(const Plan& plan, int rank, Payload payload) {
  const SlotTable table(plan, rank);
  int64_t tokens = 0;
  for (const Slot& slot : table.slots()) {
    if (slot.payload == payload && slot.name != kOwnSlot) tokens += slot.max_tokens;
  }
  return tokens;
}

}  // namespace annulus::ring
