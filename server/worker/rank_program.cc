// SPDX-License-Identifier: Apache-2.0
#include "server/worker/rank_program.h"

#include <algorithm>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/worker/row_runs.h"

namespace annulus::worker {
namespace {

// Timeline labels outlive plans, so names of slots are kept for good; the generators use a dozen.
const char* StaticLabel(const std::string& name) {
  constexpr size_t kLabelsMax = 256;
  static std::mutex mutex;
  static auto& labels = *new std::set<std::string>();
  std::lock_guard lock(mutex);
  if (const auto it = labels.find(name); it != labels.end()) return it->c_str();
  if (labels.size() >= kLabelsMax) return "slot";
  return labels.insert(name).first->c_str();
}

// The time between the first contribution to a gradient slot and its sending (or the end).
struct Lifetime {
  int slot = 0;
  // Token lists that the slot's rows must cover, the outgoing one first if there is one.
  std::deque<const ring::TokenRanges*> parts;
  const ring::TokenRanges* tokens = nullptr;
};

bool Covers(const ring::TokenRanges& whole, const ring::TokenRanges& part) {
  const ring::TokenRanges* layouts[] = {&whole};
  return &whole == &part || LocateRuns(part, layouts).ok();
}

class Compiler {
 public:
  Compiler(std::shared_ptr<const ring::Plan> plan, int rank)
      : plan_(std::move(plan)), rank_(rank) {}

  absl::StatusOr<std::shared_ptr<const RankProgram>> Run() {
    ANNULUS_RETURN_IF_ERROR(Header());
    ANNULUS_RETURN_IF_ERROR(SortOps());
    for (int step = 0; step <= plan_->steps; ++step) {
      StepOps& ops = program_->steps[static_cast<size_t>(step)];
      for (const int op : ops.due) ANNULUS_RETURN_IF_ERROR(Due(op));
      for (const int op : ops.posts) ANNULUS_RETURN_IF_ERROR(Post(op));
      for (const int op : ops.computes) ANNULUS_RETURN_IF_ERROR(Compute(op));
    }
    ANNULUS_RETURN_IF_ERROR(End());
    return std::shared_ptr<const RankProgram>(std::move(program_));
  }

 private:
  template <typename... Parts>
  absl::Status Refuse(const Parts&... parts) const {
    return absl::InvalidArgumentError(
        absl::StrCat("plan ", plan_->digest, ", rank ", rank_, ": ", parts...));
  }

  absl::Status Header() {
    if (rank_ < 0 || static_cast<size_t>(rank_) >= plan_->ranks.size() ||
        plan_->ranks[static_cast<size_t>(rank_)].rank != rank_) {
      return Refuse("it has ", plan_->ranks.size(), " ranks, not this one in its place");
    }
    program_ = std::make_shared<RankProgram>();
    program_->plan = plan_;
    program_->rank = rank_;
    program_->backward = plan_->direction == ring::Direction::kBackward;
    program_->shard = &plan_->ranks[static_cast<size_t>(rank_)];
    program_->steps.resize(static_cast<size_t>(plan_->steps) + 1);
    if (program_->backward) {
      for (const ring::Resident& resident : plan_->resident) {
        if (resident.rank != rank_) continue;
        ANNULUS_ASSIGN_OR_RETURN(program_->resident_slot, Slot(resident.slot, false));
        program_->resident_tokens = &resident.kv;
        Fill(program_->resident_slot, &resident.kv);
      }
    }
    return absl::OkStatus();
  }

  absl::Status SortOps() {
    for (const bool send : {false, true}) {
      for (size_t i = 0; i < plan_->transfers.size(); ++i) {
        const ring::Transfer& transfer = plan_->transfers[i];
        if ((send ? transfer.src : transfer.dst) != rank_) continue;
        if (transfer.src == transfer.dst) return Refuse("transfer ", i, " goes to its own rank");
        if (transfer.post_step < 0 || transfer.due_step <= transfer.post_step ||
            transfer.due_step > plan_->steps) {
          return Refuse("transfer ", i, " runs over steps [", transfer.post_step, ", ",
                        transfer.due_step, ") of ", plan_->steps);
        }
        TransferOp op{.transfer = &transfer, .index = static_cast<int>(i), .send = send};
        op.peer = send ? transfer.dst : transfer.src;
        const bool gradient = transfer.payload == ring::Payload::kDkv;
        ANNULUS_ASSIGN_OR_RETURN(op.slot,
                                 Slot(send ? transfer.src_slot : transfer.dst_slot, gradient));
        if (op.slot == kOwnSlotId && !send) return Refuse("transfer ", i, " writes slot own");
        const int id = static_cast<int>(program_->transfers.size());
        program_->transfers.push_back(op);
        StepAt(transfer.post_step).posts.push_back(id);
        StepAt(transfer.due_step).due.push_back(id);
      }
    }
    for (const ring::Compute& compute : plan_->computes) {
      if (compute.rank != rank_) continue;
      if (compute.step < 0 || compute.step >= plan_->steps) {
        return Refuse("a compute in step ", compute.step, " of ", plan_->steps);
      }
      ComputeOp op{.compute = &compute};
      ANNULUS_ASSIGN_OR_RETURN(op.slot, Slot(compute.slot, false));
      if (program_->backward) {
        ANNULUS_ASSIGN_OR_RETURN(op.into, Slot(compute.into, true));
      }
      op.label = StaticLabel(compute.slot);
      StepAt(compute.step).computes.push_back(static_cast<int>(program_->computes.size()));
      program_->computes.push_back(op);
    }
    lifetime_of_transfer_.resize(program_->transfers.size(), -1);
    lifetime_of_compute_.resize(program_->computes.size(), -1);
    return absl::OkStatus();
  }

  StepOps& StepAt(int step) { return program_->steps[static_cast<size_t>(step)]; }

  absl::StatusOr<int> Slot(const std::string& name, bool gradient) {
    if (name == ring::kOwnSlot) {
      if (gradient) return Refuse("slot own cannot hold gradients");
      return kOwnSlotId;
    }
    const auto [it, added] = slot_ids_.emplace(name, static_cast<int>(program_->slots.size()));
    if (added) {
      program_->slots.push_back({name, gradient, 0});
      kv_tokens_.push_back(nullptr);
      lifetime_of_slot_.push_back(-1);
    }
    if (program_->slots[static_cast<size_t>(it->second)].gradient != gradient) {
      return Refuse("slot ", name, " holds KV and gradients");
    }
    return it->second;
  }

  void Fill(int slot, const ring::TokenRanges* tokens) {
    kv_tokens_[static_cast<size_t>(slot)] = tokens;
    int64_t& capacity = program_->slots[static_cast<size_t>(slot)].capacity_tokens;
    capacity = std::max(capacity, ring::TokenCount(*tokens));
  }

  absl::StatusOr<const ring::TokenRanges*> Held(int slot) const {
    if (slot == kOwnSlotId) return &program_->shard->kv;
    const ring::TokenRanges* tokens = kv_tokens_[static_cast<size_t>(slot)];
    if (tokens == nullptr) {
      return Refuse("slot ", program_->slots[static_cast<size_t>(slot)].name,
                    " is read before it is filled");
    }
    return tokens;
  }

  // The lifetime that a contribution of `tokens` to a gradient slot belongs to; a new one
  // (*fresh) if the slot is empty.
  int Contribute(int slot, const ring::TokenRanges* tokens, bool* fresh) {
    int& lifetime = lifetime_of_slot_[static_cast<size_t>(slot)];
    *fresh = lifetime < 0;
    if (*fresh) {
      lifetime = static_cast<int>(lifetimes_.size());
      lifetimes_.push_back({.slot = slot});
    }
    if (tokens != nullptr) lifetimes_[static_cast<size_t>(lifetime)].parts.push_back(tokens);
    return lifetime;
  }

  absl::Status Due(int id) {
    TransferOp& op = program_->transfers[static_cast<size_t>(id)];
    if (op.staging >= 0) free_staging_[op.send].push_back(op.staging);
    if (op.send) return absl::OkStatus();
    if (op.transfer->payload == ring::Payload::kKv) {
      op.slot_tokens = &op.transfer->tokens;
      Fill(op.slot, op.slot_tokens);
      return absl::OkStatus();
    }
    if (op.transfer->combine == ring::Combine::kReplace) {
      lifetime_of_slot_[static_cast<size_t>(op.slot)] = -1;
    }
    lifetime_of_transfer_[static_cast<size_t>(id)] =
        Contribute(op.slot, &op.transfer->tokens, &op.zero_first);
    return absl::OkStatus();
  }

  absl::Status Post(int id) {
    TransferOp& op = program_->transfers[static_cast<size_t>(id)];
    if (op.transfer->payload == ring::Payload::kKv) {
      if (!op.send) {
        kv_tokens_[static_cast<size_t>(op.slot)] = nullptr;
        return absl::OkStatus();
      }
      ANNULUS_ASSIGN_OR_RETURN(op.slot_tokens, Held(op.slot));
      return absl::OkStatus();
    }
    op.staging = TakeStaging(op.send, ring::TokenCount(op.transfer->tokens));
    if (!op.send) return absl::OkStatus();
    bool fresh = false;
    const int lifetime = Contribute(op.slot, nullptr, &fresh);
    if (fresh) {
      return Refuse("transfer ", op.index, " sends gradients from ", op.transfer->src_slot,
                    ", which is empty");
    }
    lifetimes_[static_cast<size_t>(lifetime)].parts.push_front(&op.transfer->tokens);
    lifetime_of_transfer_[static_cast<size_t>(id)] = lifetime;
    lifetime_of_slot_[static_cast<size_t>(op.slot)] = -1;
    return absl::OkStatus();
  }

  int TakeStaging(bool send, int64_t tokens) {
    std::vector<int64_t>& capacities = send ? program_->send_staging : program_->receive_staging;
    std::vector<int>& free = free_staging_[send];
    if (free.empty()) {
      free.push_back(static_cast<int>(capacities.size()));
      capacities.push_back(0);
    }
    const int staging = free.back();
    free.pop_back();
    int64_t& capacity = capacities[static_cast<size_t>(staging)];
    capacity = std::max(capacity, tokens);
    return staging;
  }

  absl::Status Compute(int id) {
    ComputeOp& op = program_->computes[static_cast<size_t>(id)];
    ANNULUS_ASSIGN_OR_RETURN(op.slot_tokens, Held(op.slot));
    if (program_->backward) {
      lifetime_of_compute_[static_cast<size_t>(id)] =
          Contribute(op.into, &op.compute->kv, &op.zero_first);
    }
    return absl::OkStatus();
  }

  absl::Status End() {
    if (program_->backward) {
      ANNULUS_ASSIGN_OR_RETURN(program_->home_slot, Slot(plan_->gradient_home, true));
      const int home = Contribute(program_->home_slot, nullptr, &program_->home_empty);
      lifetimes_[static_cast<size_t>(home)].parts.push_front(&program_->shard->kv);
      ANNULUS_RETURN_IF_ERROR(ResolveLifetimes());
      program_->home_tokens = lifetimes_[static_cast<size_t>(home)].tokens;
      return absl::OkStatus();
    }
    for (const ring::Resident& resident : plan_->resident) {
      if (resident.rank != rank_) continue;
      const auto it = slot_ids_.find(resident.slot);
      if (it == slot_ids_.end()) return Refuse("resident slot ", resident.slot, " is never filled");
      program_->resident_slot = it->second;
      ANNULUS_ASSIGN_OR_RETURN(program_->resident_tokens, Held(it->second));
    }
    return absl::OkStatus();
  }

  absl::Status ResolveLifetimes() {
    for (Lifetime& lifetime : lifetimes_) {
      for (const ring::TokenRanges* candidate : lifetime.parts) {
        const bool covers_all =
            std::all_of(lifetime.parts.begin(), lifetime.parts.end(),
                        [&](const ring::TokenRanges* part) { return Covers(*candidate, *part); });
        if (covers_all) {
          lifetime.tokens = candidate;
          break;
        }
      }
      SlotUse& slot = program_->slots[static_cast<size_t>(lifetime.slot)];
      if (lifetime.tokens == nullptr) {
        return Refuse("no contribution to gradient slot ", slot.name, " covers the others");
      }
      slot.capacity_tokens = std::max(slot.capacity_tokens, ring::TokenCount(*lifetime.tokens));
    }
    for (size_t i = 0; i < program_->transfers.size(); ++i) {
      if (const int id = lifetime_of_transfer_[i]; id >= 0) {
        program_->transfers[i].slot_tokens = lifetimes_[static_cast<size_t>(id)].tokens;
      }
    }
    for (size_t i = 0; i < program_->computes.size(); ++i) {
      program_->computes[i].into_tokens =
          lifetimes_[static_cast<size_t>(lifetime_of_compute_[i])].tokens;
    }
    return absl::OkStatus();
  }

  const std::shared_ptr<const ring::Plan> plan_;
  const int rank_;
  std::shared_ptr<RankProgram> program_;
  std::map<std::string, int> slot_ids_;
  std::vector<const ring::TokenRanges*> kv_tokens_;  // by slot; null: empty or being filled
  std::vector<int> lifetime_of_slot_;                // -1: empty
  std::vector<int> lifetime_of_transfer_;
  std::vector<int> lifetime_of_compute_;
  std::vector<Lifetime> lifetimes_;
  std::vector<int> free_staging_[2];  // of receives, of sends
};

}  // namespace

absl::StatusOr<std::shared_ptr<const RankProgram>> CompileForRank(
    std::shared_ptr<const ring::Plan> plan, int rank) {
  return Compiler(std::move(plan), rank).Run();
}

}  // namespace annulus::worker
