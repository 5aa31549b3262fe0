// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/transport/nccl/facts.h"
#include "server/transport/nccl/fault.h"
#include "server/transport/nccl/membership.h"
#include "server/transport/nccl/message.h"
#include "server/transport/nccl/nccl_api.h"
#include "server/transport/nccl/sequencer.h"

namespace annulus::transport::nccl {

// What a leader asks of the transport it is part of.
class LeaderOwner {
 public:
  virtual void ToMember(const Membership& membership, int32_t member, const Message& message) = 0;
  // Answered by Leader::OnId.
  virtual void MintId(const Membership& membership) = 0;
  virtual void OnFault(Fault fault) = 0;

 protected:
  ~LeaderOwner() = default;
};

// Member 0 of a communicator beside being a member: it brings all to the same point before anyone
// goes on, says what goes in which order, and ends it together.
//
//   hello of all -> id -> ready of all -> warm -> warmed of all -> up -> reports and goes
//   -> the first leave -> end -> ended of all -> over
//
// No clock, no I/O. Not thread safe.
class Leader {
 public:
  Leader(Membership membership, Facts own, LeaderOwner* owner);

  // `member` is an index. What it says comes from a peer; what makes no sense is a fault.
  void OnMessage(int32_t member, const Message& message);
  void OnId(const UniqueId& id);

  // Ranks whose word the present step waits for: joining, then ending.
  std::vector<int32_t> Missing() const;

 private:
  enum class Step { kHello, kMinting, kReady, kWarmed, kUp, kEnding, kOver };

  void Collect(int32_t member, Step step);
  void Advance();
  void Tell(const Message& message);
  void Nonsense(int32_t member, const char* what);
  void Send(const std::vector<Sequencer::Decision>& decisions);

  const Membership membership_;
  const Facts own_;
  LeaderOwner* const owner_;
  Step step_ = Step::kHello;
  std::vector<bool> heard_;  // in this step
  Sequencer sequencer_;
};

}  // namespace annulus::transport::nccl
