// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "server/transport/nccl/message.h"

namespace annulus::transport::nccl {

// The leader's decision which operations of a communicator start, in which order.
//
// NCCL has no tags: between two members the n-th send meets the n-th receive, and a member that is
// asked to send to one that never receives spins on its GPU for ever. So nothing is given to NCCL
// before all of it can end. Members report their batches (operations posted together); operations
// are matched by (source, destination, tag). Batches that share a transfer hang together, and once
// every operation of all that hang together has its counterpart, they go: the same list, in the
// same order, to all members of it. The order of decisions is the one order of the communicator.
//
// Pure: no clock, no I/O. Not thread safe.
class Sequencer {
 public:
  // A message to a member.
  struct Decision {
    int32_t member = 0;
    Message message;
  };

  // A batch of member `member`. Decisions that follow are appended. False when the batch cannot be:
  // a peer that is no member, or an operation that is there already.
  bool Add(int32_t member, const std::vector<OperationNote>& batch, int32_t members,
           std::vector<Decision>* decisions);

  // The operation's deadline has passed. Answered with kWithdrawn unless it has gone, or failed,
  // before: then the member has been told that.
  void Withdraw(int32_t member, uint64_t id, std::vector<Decision>* decisions);

  // Operations that are waiting.
  size_t waiting() const { return posted_.size(); }

  // NCCL takes 2048 calls in a group; a member makes at most this many.
  static constexpr uint64_t kCallsOfGroup = 1024;
  // Operations of a member in one decision; more that go together are told in several.
  static constexpr uint64_t kOperationsOfGo = 256;

 private:
  struct Cluster;
  struct Posted {
    int32_t member = 0;
    OperationNote note;
    uint64_t total = 0;
    Posted* counterpart = nullptr;
    Cluster* cluster = nullptr;
  };
  // Batches that hang together.
  struct Cluster {
    std::vector<Posted*> operations;
    size_t unmatched = 0;
  };
  using Place = std::pair<int32_t, uint64_t>;                // member, id
  using Key = std::tuple<int32_t, int32_t, uint64_t, bool>;  // source, destination, tag, send

  static Key KeyOf(const Posted& posted, bool is_send);
  void Match(Posted* posted, std::vector<Decision>* decisions);
  void Refuse(Posted* posted, Posted* other, std::vector<Decision>* decisions);
  Cluster* Join(Cluster* a, Cluster* b);
  void Remove(Posted* posted);
  void GoIfComplete(Cluster* cluster, std::vector<Decision>* decisions);
  void Go(const std::vector<Posted*>& sends, std::vector<Decision>* decisions);

  std::map<Place, std::unique_ptr<Posted>> posted_;
  std::map<Key, Posted*> unmatched_;
  std::unordered_map<Cluster*, std::unique_ptr<Cluster>> clusters_;
};

}  // namespace annulus::transport::nccl
