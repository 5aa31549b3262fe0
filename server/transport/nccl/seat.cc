// SPDX-License-Identifier: Apache-2.0
#include "server/transport/nccl/seat.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "server/transport/host/clock.h"
#include "server/transport/nccl/pieces.h"

namespace annulus::transport::nccl {
namespace {

std::string Words(const Operation& operation) {
  return std::string(operation.is_send ? "send to" : "receive from") + " peer " +
         std::to_string(operation.peer) + ", tag " + std::to_string(operation.tag);
}

}  // namespace

Seat::Seat(Membership membership, std::unique_ptr<Communicator> communicator, int64_t grace_ns,
           SeatOwner* owner)
    : membership_(std::move(membership)),
      communicator_(std::move(communicator)),
      grace_ns_(grace_ns),
      owner_(owner) {}

void Seat::Hello(const Facts& own) {
  owner_->ToLeader(membership_, {.type = MessageType::kHello, .text = EncodeFacts(own)});
}

void Seat::LeaveOut() {
  joined_ = true;
  over_ = true;
}

void Seat::AllowInit() {
  init_allowed_ = true;
  InitIfReady();
}

void Seat::InitIfReady() {
  if (!init_allowed_ || !id_.has_value() || failed_.has_value()) return;
  communicator_->Init(*id_);
  id_.reset();
}

void Seat::Post(const Batch& batch) {
  Message report{.type = MessageType::kReport};
  for (const OperationPtr& operation : batch) {
    if (failed_.has_value()) {
      FinishNow(operation, *failed_);
      continue;
    }
    if (leaver_ >= 0) {
      owner_->OnNote(leaver_, "peer " + std::to_string(leaver_) +
                                  " has closed its transport, but is still needed");
      FinishNow(operation, ANNULUS_TRANSPORT_PEER_LOST);
      continue;
    }
    if (!in_use_.insert({operation->peer, operation->tag, operation->is_send}).second) {
      owner_->OnNote(operation->peer, Words(*operation) + ": the tag is already in use");
      FinishNow(operation, ANNULUS_TRANSPORT_INVALID_ARGUMENT);
      continue;
    }
    operation->id = next_operation_++;
    waiting_.emplace(operation->id, operation);
    report.operations.push_back({operation->id, operation->is_send, operation->peer_index,
                                 operation->tag, LengthsOf(operation->segments)});
  }
  if (!report.operations.empty()) owner_->ToLeader(membership_, report);
}

void Seat::OnMessage(const Message& message) {
  switch (message.type) {
    case MessageType::kId:
      if (message.text.size() != UniqueId().size()) return Nonsense("gave no unique id");
      id_.emplace();
      std::memcpy(id_->data(), message.text.data(), id_->size());
      return InitIfReady();
    case MessageType::kWarm:
      return communicator_->Warm();
    case MessageType::kUp:
      joined_ = true;
      return owner_->OnJoined();
    case MessageType::kGo:
      return OnGo(message);
    case MessageType::kMismatch:
      return OnMismatch(message);
    case MessageType::kWithdrawn:
      return OnWithdrawn(message.number);
    case MessageType::kEnd:
      return OnEnd(message.number);
    case MessageType::kOver:
      over_ = true;
      return;
    default:
      return Nonsense("says what only a member says");
  }
}

void Seat::OnGo(const Message& message) {
  Flight flight;
  flight.limit_ns = std::numeric_limits<int64_t>::max();
  std::vector<std::vector<Call>> rounds;
  const size_t pieces_of_round = std::max<uint64_t>(1, message.number);
  for (const OperationNote& note : message.operations) {
    const OperationPtr operation = TakeWaiting(note.id);
    if (operation == nullptr) return Nonsense("lets an operation go that does not wait");
    flight.operations.push_back(operation);
    std::vector<annulusSegment> placed;
    if (!PlacePieces(operation->segments, note.lengths, &placed)) {
      return Nonsense("cuts a transfer in pieces that do not fit");
    }
    for (size_t i = 0; i < placed.size(); ++i) {
      if (rounds.size() <= i / pieces_of_round) rounds.resize(i / pieces_of_round + 1);
      rounds[i / pieces_of_round].push_back(
          {operation->is_send, operation->peer_index, placed[i].data, placed[i].bytes});
    }
    // What would never end comes to the end of its time all the same.
    const int64_t limit_ns = std::max(operation->deadline_ns, NowNs());
    if (limit_ns < std::numeric_limits<int64_t>::max() - grace_ns_) {
      flight.limit_ns = std::min(flight.limit_ns, limit_ns + grace_ns_);
    }
  }
  const uint64_t go = next_go_++;
  flights_.emplace(go, std::move(flight));
  if (!failed_.has_value()) communicator_->Enqueue(go, std::move(rounds));
}

void Seat::OnMismatch(const Message& message) {
  for (const OperationNote& note : message.operations) {
    const OperationPtr operation = TakeWaiting(note.id);
    if (operation == nullptr) continue;
    owner_->OnNote(operation->peer, Words(*operation) + ": " + std::to_string(operation->total) +
                                        " bytes here, but the peer names " +
                                        std::to_string(message.number));
    FinishNow(operation, ANNULUS_TRANSPORT_MISMATCH);
  }
}

void Seat::OnWithdrawn(uint64_t id) {
  const OperationPtr operation = TakeWaiting(id);
  if (operation == nullptr) return;
  owner_->OnNote(operation->peer, Words(*operation) + ": 0 of " + std::to_string(operation->total) +
                                      " bytes by its deadline; the peer has not joined in");
  FinishNow(operation, ANNULUS_TRANSPORT_DEADLINE);
  in_use_.insert({operation->peer, operation->tag, operation->is_send});  // used up
}

void Seat::OnEnd(uint64_t leaver) {
  if (leaver >= membership_.ranks.size()) return Nonsense("names a member that is none");
  leaver_ = membership_.ranks[leaver];
  if (!waiting_.empty()) {
    owner_->OnNote(leaver_, "peer " + std::to_string(leaver_) +
                                " has closed its transport, but is still needed");
  }
  while (!waiting_.empty()) {
    FinishNow(TakeWaiting(waiting_.begin()->first), ANNULUS_TRANSPORT_PEER_LOST);
  }
  EndIfQuiet();
}

void Seat::EndIfQuiet() {
  if (leaver_ < 0 || ended_ || !flights_.empty() || failed_.has_value()) return;
  ended_ = true;
  owner_->ToLeader(membership_, {.type = MessageType::kEnded});
}

void Seat::Leave() {
  if (leaver_ < 0 && !over_ && !failed_.has_value()) {
    owner_->ToLeader(membership_, {.type = MessageType::kLeave});
  }
}

void Seat::OnReport(const LaneReport& report) {
  switch (report.kind) {
    case LaneReport::Kind::kIdMinted:
      return;  // the leader's
    case LaneReport::Kind::kInitialised:
      return owner_->ToLeader(membership_, {.type = MessageType::kReady});
    case LaneReport::Kind::kWarmed:
      return owner_->ToLeader(membership_, {.type = MessageType::kWarmed});
    case LaneReport::Kind::kDone:
      return Land(report);
    case LaneReport::Kind::kFault: {
      Fault fault = report.fault;
      if (fault.suspect < 0) fault.suspect = SuspectOf(report);
      return owner_->OnFault(std::move(fault));
    }
    case LaneReport::Kind::kStopped:
      return GiveUp();
  }
}

// NCCL does not say which peer it was; a go with a single one leaves no doubt.
int32_t Seat::SuspectOf(const LaneReport& report) const {
  const auto flight = flights_.find(report.go);
  if (flight == flights_.end()) return -1;
  std::set<int32_t> peers;
  for (const OperationPtr& operation : flight->second.operations) peers.insert(operation->peer);
  return peers.size() == 1 ? *peers.begin() : -1;
}

void Seat::Land(const LaneReport& report) {
  const auto found = flights_.find(report.go);
  if (found == flights_.end()) return;
  const Batch landed = std::move(found->second.operations);
  flights_.erase(found);
  for (const OperationPtr& operation : landed) {
    Finish(operation, ANNULUS_TRANSPORT_OK, report.start_ns, report.end_ns);
  }
  EndIfQuiet();
}

void Seat::Expire(int64_t now_ns) {
  if (failed_.has_value()) return;
  for (const auto& [id, operation] : waiting_) {
    if (operation->withdrawing || operation->deadline_ns > now_ns) continue;
    operation->withdrawing = true;
    owner_->ToLeader(membership_, {.type = MessageType::kWithdraw, .number = id});
  }
  for (const auto& [go, flight] : flights_) {
    if (flight.limit_ns > now_ns) continue;
    const auto late = std::min_element(
        flight.operations.begin(), flight.operations.end(),
        [](const auto& a, const auto& b) { return a->deadline_ns < b->deadline_ns; });
    return owner_->OnFault({ANNULUS_TRANSPORT_DEADLINE, (*late)->peer,
                            Words(**late) + ": started, but not complete by its deadline"});
  }
}

int64_t Seat::NextDeadline() const {
  int64_t next = std::numeric_limits<int64_t>::max();
  if (failed_.has_value()) return next;
  for (const auto& [id, operation] : waiting_) {
    if (!operation->withdrawing) next = std::min(next, operation->deadline_ns);
  }
  for (const auto& [go, flight] : flights_) next = std::min(next, flight.limit_ns);
  return next;
}

void Seat::Fail(annulusTransportStatus status) {
  if (failed_.has_value()) return;
  failed_ = status;
  while (!waiting_.empty()) FinishNow(TakeWaiting(waiting_.begin()->first), status);
  communicator_->Stop();
}

void Seat::GiveUp() {
  if (!failed_.has_value()) return;
  for (const auto& [go, flight] : flights_) {
    for (const OperationPtr& operation : flight.operations) FinishNow(operation, *failed_);
  }
  flights_.clear();
}

OperationPtr Seat::TakeWaiting(uint64_t id) {
  const auto found = waiting_.find(id);
  if (found == waiting_.end()) return nullptr;
  OperationPtr operation = found->second;
  waiting_.erase(found);
  return operation;
}

void Seat::FinishNow(const OperationPtr& operation, annulusTransportStatus status) {
  const int64_t now_ns = NowNs();
  Finish(operation, status, now_ns, now_ns);
}

void Seat::Finish(const OperationPtr& operation, annulusTransportStatus status, int64_t start_ns,
                  int64_t end_ns) {
  if (operation->id > 0) in_use_.erase({operation->peer, operation->tag, operation->is_send});
  const uint64_t moved = status == ANNULUS_TRANSPORT_OK ? operation->total : 0;
  operation->completion = {status, operation->peer, start_ns, end_ns, moved};
  owner_->OnDone(*operation);
  operation->done.store(1, std::memory_order_release);
  operation->done.notify_all();
}

void Seat::Nonsense(const char* what) {
  owner_->OnFault({ANNULUS_TRANSPORT_CORRUPTED, membership_.leader(),
                   "rank " + std::to_string(membership_.leader()) + " " + what});
}

}  // namespace annulus::transport::nccl
