// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>

#include "server/transport/nccl/communicator.h"
#include "server/transport/nccl/facts.h"
#include "server/transport/nccl/message.h"
#include "server/transport/nccl/operation.h"

namespace annulus::transport::nccl {

// What a seat asks of the transport it is part of.
class SeatOwner {
 public:
  virtual void ToLeader(const Membership& membership, const Message& message) = 0;
  virtual void OnJoined() = 0;
  virtual void OnFault(Fault fault) = 0;
  // One operation failed and the transport goes on.
  virtual void OnNote(int32_t peer, const std::string& text) = 0;
  // About to complete.
  virtual void OnDone(const Operation& operation) = 0;

 protected:
  ~SeatOwner() = default;
};

// This rank's membership of one communicator: between what its leader says and what the
// communicator does. An operation waits until the leader says go, is then in flight, and done.
//
// Deadlines: a waiting operation is withdrawn, and fails alone once the leader has agreed; if the
// leader had let it go before, it moves. One in flight may run past its deadline by the grace that
// Options names, and is then a fault of the whole transport: NCCL can give up a communicator only.
//
// Not thread safe: belongs to the progress thread. No call blocks.
class Seat {
 public:
  Seat(Membership membership, std::unique_ptr<Communicator> communicator, int64_t grace_ns,
       SeatOwner* owner);

  const Membership& membership() const { return membership_; }
  Communicator* communicator() { return communicator_.get(); }
  bool joined() const { return joined_; }
  // Operations that are not complete.
  bool busy() const { return !waiting_.empty() || !flights_.empty(); }
  // Left in good order, as all others have.
  bool over() const { return over_; }

  void Hello(const Facts& own);
  // Instead of Hello: no member is a peer, so the communicator stays uninitialised. It counts as
  // joined and as left in good order; nothing may be posted.
  void LeaveOut();
  // Communicators are initialised one after the other, in the same order everywhere.
  void AllowInit();
  void Post(const Batch& batch);
  void OnMessage(const Message& message);
  void OnReport(const LaneReport& report);
  void Leave();

  void Expire(int64_t now_ns);
  int64_t NextDeadline() const;

  // The transport has failed. What waits is complete at once, what is in flight when nothing runs
  // any more: after the communicator has stopped, or GiveUp.
  void Fail(annulusTransportStatus status);
  void GiveUp();

 private:
  using Key = std::tuple<int32_t, uint64_t, bool>;  // peer, tag, send
  struct Flight {
    Batch operations;
    int64_t limit_ns = 0;
  };

  void InitIfReady();
  void OnGo(const Message& message);
  void OnMismatch(const Message& message);
  void OnWithdrawn(uint64_t id);
  void OnEnd(uint64_t leaver);
  void EndIfQuiet();
  void Land(const LaneReport& report);
  int32_t SuspectOf(const LaneReport& report) const;
  OperationPtr TakeWaiting(uint64_t id);
  void Finish(const OperationPtr& operation, annulusTransportStatus status, int64_t start_ns,
              int64_t end_ns);
  void FinishNow(const OperationPtr& operation, annulusTransportStatus status);
  void Nonsense(const char* what);

  const Membership membership_;
  const std::unique_ptr<Communicator> communicator_;
  const int64_t grace_ns_;
  SeatOwner* const owner_;

  bool init_allowed_ = false;
  std::optional<UniqueId> id_;
  bool joined_ = false;
  int32_t leaver_ = -1;  // rank; nothing new starts once there is one
  bool ended_ = false;
  bool over_ = false;
  std::optional<annulusTransportStatus> failed_;

  uint64_t next_operation_ = 1;
  uint64_t next_go_ = 1;
  std::map<uint64_t, OperationPtr> waiting_;  // by id
  std::map<uint64_t, Flight> flights_;        // by go
  std::set<Key> in_use_;                      // by operations, or used up by a missed deadline
};

}  // namespace annulus::transport::nccl
