// SPDX-License-Identifier: Apache-2.0
#include "server/transport/nccl/leader.h"

#include <algorithm>
#include <utility>

namespace annulus::transport::nccl {

Leader::Leader(Membership membership, Facts own, LeaderOwner* owner)
    : membership_(std::move(membership)),
      own_(std::move(own)),
      owner_(owner),
      heard_(membership_.ranks.size()) {}

void Leader::OnMessage(int32_t member, const Message& message) {
  const int32_t rank = membership_.ranks[static_cast<size_t>(member)];
  switch (message.type) {
    case MessageType::kHello: {
      const std::string refusal = WhyRefused(own_, membership_.leader(), message.text, rank);
      if (!refusal.empty()) return owner_->OnFault({ANNULUS_TRANSPORT_REFUSED, rank, refusal});
      return Collect(member, Step::kHello);
    }
    case MessageType::kReady:
      return Collect(member, Step::kReady);
    case MessageType::kWarmed:
      return Collect(member, Step::kWarmed);
    case MessageType::kReport: {
      if (step_ == Step::kEnding || step_ == Step::kOver) return;
      std::vector<Sequencer::Decision> decisions;
      if (step_ != Step::kUp ||
          !sequencer_.Add(member, message.operations, membership_.size(), &decisions)) {
        return Nonsense(member, "reports operations that cannot be");
      }
      return Send(decisions);
    }
    case MessageType::kWithdraw: {
      if (step_ == Step::kEnding || step_ == Step::kOver) return;
      std::vector<Sequencer::Decision> decisions;
      sequencer_.Withdraw(member, message.number, &decisions);
      return Send(decisions);
    }
    case MessageType::kLeave:
      if (step_ == Step::kEnding || step_ == Step::kOver) return;
      if (step_ != Step::kUp) return Nonsense(member, "leaves before it has joined");
      step_ = Step::kEnding;
      return Tell({.type = MessageType::kEnd, .number = static_cast<uint64_t>(member)});
    case MessageType::kEnded:
      return Collect(member, Step::kEnding);
    default:
      return Nonsense(member, "says what only a leader says");
  }
}

void Leader::OnId(const UniqueId& id) {
  if (step_ != Step::kMinting) return;
  step_ = Step::kReady;
  Tell({.type = MessageType::kId, .text = std::string(id.data(), id.size())});
}

std::vector<int32_t> Leader::Missing() const {
  std::vector<int32_t> missing;
  for (size_t i = 0; i < heard_.size(); ++i) {
    if (!heard_[i] && step_ != Step::kMinting) missing.push_back(membership_.ranks[i]);
  }
  return missing;
}

void Leader::Collect(int32_t member, Step step) {
  if (step_ != step || heard_[static_cast<size_t>(member)]) {
    return Nonsense(member, "speaks out of turn");
  }
  heard_[static_cast<size_t>(member)] = true;
  if (std::all_of(heard_.begin(), heard_.end(), [](bool heard) { return heard; })) Advance();
}

void Leader::Advance() {
  heard_.assign(heard_.size(), false);
  switch (step_) {
    case Step::kHello:
      step_ = Step::kMinting;
      return owner_->MintId(membership_);
    case Step::kReady:
      step_ = Step::kWarmed;
      return Tell({.type = MessageType::kWarm});
    case Step::kWarmed:
      step_ = Step::kUp;
      return Tell({.type = MessageType::kUp});
    case Step::kEnding:
      step_ = Step::kOver;
      return Tell({.type = MessageType::kOver});
    default:
      return;
  }
}

void Leader::Tell(const Message& message) {
  for (int32_t member = 0; member < membership_.size(); ++member) {
    owner_->ToMember(membership_, member, message);
  }
}

void Leader::Nonsense(int32_t member, const char* what) {
  const int32_t rank = membership_.ranks[static_cast<size_t>(member)];
  owner_->OnFault({ANNULUS_TRANSPORT_CORRUPTED, rank, "rank " + std::to_string(rank) + " " + what});
}

void Leader::Send(const std::vector<Sequencer::Decision>& decisions) {
  for (const Sequencer::Decision& decision : decisions) {
    owner_->ToMember(membership_, decision.member, decision.message);
  }
}

}  // namespace annulus::transport::nccl
