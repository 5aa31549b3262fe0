// SPDX-License-Identifier: Apache-2.0
#include "server/transport/nccl/sequencer.h"

#include <algorithm>
#include <deque>
#include <numeric>
#include <random>
#include <set>

#include "gtest/gtest.h"
#include "tests/support/under_sanitizer.h"

namespace annulus::transport::nccl {
namespace {

using Decisions = std::vector<Sequencer::Decision>;

OperationNote Send(uint64_t id, int32_t to, uint64_t tag, std::vector<uint64_t> lengths = {8}) {
  return {id, true, to, tag, std::move(lengths)};
}
OperationNote Receive(uint64_t id, int32_t from, uint64_t tag,
                      std::vector<uint64_t> lengths = {8}) {
  return {id, false, from, tag, std::move(lengths)};
}

std::vector<uint64_t> GoneTo(const Decisions& decisions, int32_t member) {
  std::vector<uint64_t> ids;
  for (const auto& [to, message] : decisions) {
    if (to != member || message.type != MessageType::kGo) continue;
    for (const OperationNote& note : message.operations) ids.push_back(note.id);
  }
  return ids;
}

TEST(SequencerTest, ATransferGoesWhenBothSidesAreThere) {
  Sequencer sequencer;
  Decisions decisions;
  EXPECT_TRUE(sequencer.Add(0, {Send(1, 1, 5, {3, 5})}, 2, &decisions));
  EXPECT_TRUE(decisions.empty());
  EXPECT_TRUE(sequencer.Add(1, {Receive(9, 0, 5, {4, 4})}, 2, &decisions));
  ASSERT_EQ(decisions.size(), 2u);
  EXPECT_EQ(decisions[0].message.operations[0].lengths, (std::vector<uint64_t>{3, 1, 4}));
  EXPECT_EQ(decisions[1].message.operations[0].lengths, (std::vector<uint64_t>{3, 1, 4}));
  EXPECT_EQ(GoneTo(decisions, 0), std::vector<uint64_t>{1});
  EXPECT_EQ(GoneTo(decisions, 1), std::vector<uint64_t>{9});
  EXPECT_EQ(sequencer.waiting(), 0u);
}

TEST(SequencerTest, ARingOfBatchesWaitsForItsLastMember) {
  Sequencer sequencer;
  Decisions decisions;
  for (int32_t member = 0; member < 4; ++member) {
    EXPECT_TRUE(decisions.empty());
    sequencer.Add(member, {Send(1, (member + 1) % 4, 7), Receive(2, (member + 3) % 4, 7)}, 4,
                  &decisions);
  }
  EXPECT_EQ(decisions.size(), 4u);
}

TEST(SequencerTest, ABatchGoesWholeEvenWhenAPartOfItCould) {
  Sequencer sequencer;
  Decisions decisions;
  sequencer.Add(0, {Send(1, 1, 1), Send(2, 2, 1)}, 3, &decisions);
  sequencer.Add(1, {Receive(1, 0, 1)}, 3, &decisions);
  EXPECT_TRUE(decisions.empty());
  sequencer.Add(2, {Receive(1, 0, 1)}, 3, &decisions);
  EXPECT_EQ(GoneTo(decisions, 0), (std::vector<uint64_t>{1, 2}));
}

TEST(SequencerTest, DifferentTotalsFailBothAndFreeTheRest) {
  Sequencer sequencer;
  Decisions decisions;
  sequencer.Add(0, {Send(1, 1, 1, {8}), Send(2, 1, 2)}, 2, &decisions);
  sequencer.Add(1, {Receive(1, 0, 1, {9}), Receive(2, 0, 2)}, 2, &decisions);
  ASSERT_EQ(decisions.size(), 4u);
  EXPECT_EQ(decisions[0].message.type, MessageType::kMismatch);
  EXPECT_EQ(decisions[1].message.type, MessageType::kMismatch);
  EXPECT_EQ(decisions[0].message.number + decisions[1].message.number, 17u);
  EXPECT_EQ(GoneTo(decisions, 0), std::vector<uint64_t>{2});
  EXPECT_EQ(sequencer.waiting(), 0u);
}

TEST(SequencerTest, AWithdrawnOperationHoldsNobodyUp) {
  Sequencer sequencer;
  Decisions decisions;
  sequencer.Add(0, {Send(1, 1, 1), Send(2, 1, 2)}, 2, &decisions);
  sequencer.Add(1, {Receive(1, 0, 1)}, 2, &decisions);
  sequencer.Withdraw(0, 2, &decisions);
  ASSERT_EQ(decisions.size(), 3u);
  EXPECT_EQ(decisions[0].message.type, MessageType::kWithdrawn);
  EXPECT_EQ(GoneTo(decisions, 1), std::vector<uint64_t>{1});
  sequencer.Withdraw(1, 1, &decisions);  // gone before
  EXPECT_EQ(decisions.size(), 3u);
}

TEST(SequencerTest, WithdrawingAMatchedOneLeavesItsCounterpartWaiting) {
  Sequencer sequencer;
  Decisions decisions;
  sequencer.Add(0, {Send(1, 1, 1), Send(2, 1, 2)}, 2, &decisions);
  sequencer.Add(1, {Receive(1, 0, 1)}, 2, &decisions);
  sequencer.Withdraw(0, 1, &decisions);
  sequencer.Withdraw(0, 2, &decisions);
  EXPECT_EQ(sequencer.waiting(), 1u);
  EXPECT_TRUE(GoneTo(decisions, 1).empty());
}

TEST(SequencerTest, RefusesWhatCannotBe) {
  Decisions decisions;
  EXPECT_FALSE(Sequencer().Add(0, {Send(1, 0, 1)}, 2, &decisions));
  EXPECT_FALSE(Sequencer().Add(0, {Send(1, 2, 1)}, 2, &decisions));
  Sequencer sequencer;
  EXPECT_TRUE(sequencer.Add(0, {Send(1, 1, 1)}, 2, &decisions));
  EXPECT_FALSE(sequencer.Add(0, {Send(2, 1, 1)}, 2, &decisions));
}

TEST(SequencerTest, ManyTransfersAtOnceAreToldInSeveralOrders) {
  Sequencer sequencer;
  Decisions decisions;
  std::vector<OperationNote> sends;
  std::vector<OperationNote> receives;
  for (uint64_t i = 0; i < 1000; ++i) {
    sends.push_back(Send(i, 1, i));
    receives.push_back(Receive(i, 0, i));
  }
  sequencer.Add(0, sends, 2, &decisions);
  sequencer.Add(1, receives, 2, &decisions);
  EXPECT_EQ(decisions.size(), 8u);
  for (const auto& [member, message] : decisions) {
    EXPECT_LE(message.operations.size(), Sequencer::kOperationsOfGo);
    EXPECT_LE(message.operations.size() * message.number, Sequencer::kCallsOfGroup);
  }
  EXPECT_EQ(GoneTo(decisions, 0), GoneTo(decisions, 1));
}

// What NCCL does with the goes of a member: everything of one has to meet its counterpart, by
// order, before the next begins. True when all members come to the end.
bool NcclWouldEnd(const Decisions& decisions, int32_t members) {
  std::vector<std::deque<const Message*>> queues(static_cast<size_t>(members));
  for (const auto& [member, message] : decisions) {
    if (message.type == MessageType::kGo) queues[static_cast<size_t>(member)].push_back(&message);
  }
  using Edge = std::pair<int32_t, int32_t>;
  std::map<Edge, std::deque<uint64_t>> sent;  // tags of transfers whose send is on the GPU
  std::map<Edge, std::deque<uint64_t>> received;
  std::vector<size_t> open(static_cast<size_t>(members), 0);
  std::vector<bool> started(static_cast<size_t>(members), false);
  for (bool moved = true; moved;) {
    moved = false;
    for (int32_t member = 0; member < members; ++member) {
      auto& queue = queues[static_cast<size_t>(member)];
      if (queue.empty()) continue;
      if (!started[static_cast<size_t>(member)]) {
        started[static_cast<size_t>(member)] = moved = true;
        open[static_cast<size_t>(member)] = queue.front()->operations.size();
        for (const OperationNote& note : queue.front()->operations) {
          (note.is_send ? sent[{member, note.peer}] : received[{note.peer, member}])
              .push_back(note.tag);
        }
      }
      if (open[static_cast<size_t>(member)] == 0) {
        queue.pop_front();
        started[static_cast<size_t>(member)] = false;
        moved = true;
      }
    }
    for (auto& [edge, tags] : sent) {
      auto& other = received[edge];
      while (!tags.empty() && !other.empty()) {
        if (tags.front() != other.front()) return false;  // another transfer's bytes
        tags.pop_front();
        other.pop_front();
        --open[static_cast<size_t>(edge.first)];
        --open[static_cast<size_t>(edge.second)];
        moved = true;
      }
    }
  }
  return std::all_of(queues.begin(), queues.end(), [](const auto& queue) { return queue.empty(); });
}

// Random transfers in random batches, reported in any order, some never and some withdrawn.
TEST(SequencerTest, WhateverIsReportedNcclComesToAnEnd) {
  for (uint32_t seed = 0; seed < (kUnderSanitizer ? 100 : 1000); ++seed) {
    std::mt19937 random(seed);
    auto pick = [&](int low, int high) { return std::uniform_int_distribution(low, high)(random); };
    const int32_t members = pick(2, 6);
    std::vector<std::vector<OperationNote>> notes(static_cast<size_t>(members));
    for (uint64_t tag = 0; tag < static_cast<uint64_t>(pick(1, 40)); ++tag) {
      const int32_t from = pick(0, members - 1);
      const int32_t to = (from + pick(1, members - 1)) % members;
      auto& sends = notes[static_cast<size_t>(from)];
      auto& receives = notes[static_cast<size_t>(to)];
      const uint64_t bytes = static_cast<uint64_t>(pick(1, 9));
      const bool mismatch = pick(0, 20) == 0;
      if (pick(0, 15) > 0) sends.push_back(Send(sends.size(), to, tag, {bytes}));
      if (pick(0, 15) > 0) {
        receives.push_back(Receive(receives.size(), from, tag, {bytes + (mismatch ? 1 : 0)}));
      }
    }
    std::vector<std::pair<int32_t, std::vector<OperationNote>>> batches;
    for (int32_t member = 0; member < members; ++member) {
      auto& own = notes[static_cast<size_t>(member)];
      std::shuffle(own.begin(), own.end(), random);
      for (size_t at = 0; at < own.size();) {
        const size_t count = std::min(own.size() - at, static_cast<size_t>(pick(1, 4)));
        batches.push_back({member,
                           {own.begin() + static_cast<std::ptrdiff_t>(at),
                            own.begin() + static_cast<std::ptrdiff_t>(at + count)}});
        at += count;
      }
    }
    std::shuffle(batches.begin(), batches.end(), random);
    Sequencer sequencer;
    Decisions decisions;
    for (const auto& [member, batch] : batches) {
      ASSERT_TRUE(sequencer.Add(member, batch, members, &decisions));
      if (pick(0, 5) == 0) sequencer.Withdraw(member, batch.front().id, &decisions);
    }
    EXPECT_TRUE(NcclWouldEnd(decisions, members)) << "seed " << seed;
    std::set<std::pair<int32_t, uint64_t>> told;
    for (const auto& [member, message] : decisions) {
      if (message.type == MessageType::kWithdrawn) {
        EXPECT_TRUE(told.insert({member, message.number}).second);
      }
      for (const OperationNote& note : message.operations) {
        EXPECT_TRUE(told.insert({member, note.id}).second) << "told twice, seed " << seed;
      }
    }
    size_t posted = 0;
    for (const auto& own : notes) posted += own.size();
    EXPECT_EQ(told.size() + sequencer.waiting(), posted) << "seed " << seed;
    // Whatever waits can still be withdrawn, and nothing is left.
    for (const auto& [member, batch] : batches) {
      for (const OperationNote& note : batch) sequencer.Withdraw(member, note.id, &decisions);
    }
    EXPECT_EQ(sequencer.waiting(), 0u);
    EXPECT_TRUE(NcclWouldEnd(decisions, members)) << "seed " << seed;
  }
}

}  // namespace
}  // namespace annulus::transport::nccl
