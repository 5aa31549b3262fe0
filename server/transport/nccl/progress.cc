// SPDX-License-Identifier: Apache-2.0
// The progress thread of the NCCL transport.
#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "server/transport/host/clock.h"
#include "server/transport/nccl/nccl_transport.h"

namespace annulus::transport::nccl {
namespace {

constexpr int64_t kIdleNs = 1'000'000'000;
constexpr int64_t kClosingPollNs = 2'000'000;

}  // namespace

void NcclTransport::Run() {
  ::pthread_setname_np(::pthread_self(), "annulus-nccl-ctl");
  while (true) {
    Sleep();
    HandleControl();
    HandleReports();
    TakeInbox();
    DeliverLocal();
    RunTimers();
    DeliverLocal();
    ApplyFault();
    NotifyDone();
    if (closing_ && FinishClosing()) return;
  }
}

void NcclTransport::Sleep() {
  const int64_t now_ns = NowNs();
  int64_t next_ns = now_ns + (closing_ ? kClosingPollNs : kIdleNs);
  for (const Circle& circle : circles_) next_ns = std::min(next_ns, circle.seat->NextDeadline());
  if (joining_) next_ns = std::min(next_ns, JoinLimitNs());
  if (fault_applied_ && busy()) next_ns = std::min(next_ns, stop_limit_ns_);
  std::unique_lock lock(inbox_mutex_);
  woken_changed_.wait_for(lock, std::chrono::nanoseconds(std::max<int64_t>(0, next_ns - now_ns)),
                          [this] { return woken_; });
  woken_ = false;
}

void NcclTransport::TakeInbox() {
  std::vector<Batch> posted;
  std::optional<Fault> requested;
  bool join = false;
  bool close = false;
  {
    std::lock_guard lock(inbox_mutex_);
    posted.swap(posted_);
    requested.swap(requested_fault_);
    std::swap(join, join_requested_);
    close = closing_requested_;
  }
  if (join) StartJoining();
  for (const Batch& batch : posted) TakeBatch(batch);
  if (requested.has_value()) OnFault(*std::move(requested));
  if (close && !closing_) StartClosing();
}

// What goes together within a communicator; the two are told nothing of each other.
void NcclTransport::TakeBatch(const Batch& batch) {
  for (Circle& circle : circles_) {
    Batch own;
    for (const OperationPtr& operation : batch) {
      if (IndexOf(circle.membership, operation->peer) >= 0) own.push_back(operation);
    }
    if (!own.empty()) circle.seat->Post(own);
  }
}

void NcclTransport::StartJoining() {
  connected_ = true;
  joining_ = true;
  if (fault_.has_value()) return;
  if (!loaded_.ok()) {
    return OnFault({ANNULUS_TRANSPORT_RESOURCE, rank_,
                    "rank " + std::to_string(rank_) + ": " + std::string(loaded_.message())});
  }
  for (Circle& circle : circles_) {
    if (LeftOut(circle.membership)) {
      circle.seat->LeaveOut();
      continue;
    }
    if (circle.leader == nullptr) {
      control_->Listen(circle.membership.leader());
    } else {
      for (const int32_t rank : circle.membership.ranks) {
        if (rank != rank_) control_->Listen(rank);
      }
    }
    circle.seat->Hello(facts_);
  }
  InitNext();
}

// All or none of its members are peers, see CheckPeers.
bool NcclTransport::LeftOut(const Membership& membership) const {
  std::lock_guard lock(state_mutex_);
  return CountPeers(membership, is_peer_) == 0;
}

void NcclTransport::OnJoined() { InitNext(); }

// One communicator after the other; up when there is none left.
void NcclTransport::InitNext() {
  for (Circle& circle : circles_) {
    if (!circle.seat->joined()) return circle.seat->AllowInit();
  }
  joining_ = false;
  std::lock_guard lock(state_mutex_);
  if (phase_ != Phase::kJoining) return;
  phase_ = Phase::kUp;
  state_changed_.notify_all();
}

void NcclTransport::HandleControl() {
  if (!connected_) return;
  for (const auto& [from, message] : control_->Poll()) {
    Circle* const circle = CircleOf(from);
    const bool for_leader = ForLeader(message.type);
    if (circle == nullptr || (for_leader && circle->leader == nullptr) ||
        (!for_leader && circle->membership.leader() != from)) {
      OnFault({ANNULUS_TRANSPORT_CORRUPTED, from,
               "rank " + std::to_string(from) + " says what is not its to say"});
    } else if (for_leader) {
      circle->leader->OnMessage(IndexOf(circle->membership, from), message);
    } else {
      circle->seat->OnMessage(message);
    }
  }
  if (control_->fault().has_value()) OnFault(*control_->fault());
}

void NcclTransport::HandleReports() {
  for (const LaneReport& report : box_->Take()) {
    Circle* const circle = CircleOf(report.level);
    if (report.kind == LaneReport::Kind::kIdMinted && circle->leader != nullptr) {
      circle->leader->OnId(report.id);
    } else {
      circle->seat->OnReport(report);
    }
  }
}

void NcclTransport::DeliverLocal() {
  while (!local_.empty()) {
    const Local local = std::move(local_.front());
    local_.pop_front();
    if (local.for_leader) {
      local.circle->leader->OnMessage(local.circle->membership.index, local.message);
    } else {
      local.circle->seat->OnMessage(local.message);
    }
  }
}

void NcclTransport::RunTimers() {
  const int64_t now_ns = NowNs();
  for (Circle& circle : circles_) circle.seat->Expire(now_ns);
  if (joining_ && now_ns >= JoinLimitNs()) {
    int32_t suspect = -1;
    const std::string words = JoiningWords(&suspect);
    OnFault({ANNULUS_TRANSPORT_DEADLINE, suspect, "not joined by the deadline: " + words});
  }
  if (fault_applied_ && busy() && now_ns >= stop_limit_ns_) GiveUpStopping();
}

// Who leads knows whose word is missing and says so first.
int64_t NcclTransport::JoinLimitNs() const {
  const auto waits = std::find_if(circles_.begin(), circles_.end(),
                                  [](const Circle& circle) { return !circle.seat->joined(); });
  const bool leads = waits == circles_.end() || waits->leader != nullptr;
  return join_deadline_ns_ + (leads ? 0 : settings_.abort_ns / 8);
}

// Where joining stands, as far as this rank can see.
std::string NcclTransport::JoiningWords(int32_t* suspect) const {
  for (const Circle& circle : circles_) {
    if (circle.seat->joined()) continue;
    std::string words = std::string(LevelName(circle.membership.level)) + " communicator";
    if (circle.leader == nullptr) {
      return words + ", led by rank " + std::to_string(circle.membership.leader());
    }
    const std::vector<int32_t> missing = circle.leader->Missing();
    for (const int32_t rank : missing) {
      words += (rank == missing.front() ? ": no word from rank " : ", ") + std::to_string(rank);
    }
    if (missing.size() == 1) *suspect = missing.front();
    return words;
  }
  return "";
}

void NcclTransport::ApplyFault() {
  if (!fault_.has_value() || fault_applied_) return;
  // Before it is connected the control transport reaches nobody. What is wrong here is told then.
  if (!connected_ && !closing_ && fault_->status != ANNULUS_TRANSPORT_ABORTED) return;
  fault_applied_ = true;
  joining_ = false;
  SetError(fault_->suspect, fault_->text);
  control_->Abort(*fault_);
  stop_limit_ns_ = NowNs() + settings_.abort_ns;
  for (Circle& circle : circles_) circle.seat->Fail(fault_->status);
  std::lock_guard lock(state_mutex_);
  phase_ = Phase::kFailed;
  failure_ = fault_->status;
  state_changed_.notify_all();
}

// NCCL does not stop. Whoever waits gets an answer, and the truth about the memory.
void NcclTransport::GiveUpStopping() {
  {
    std::lock_guard lock(state_mutex_);
    error_text_ +=
        "; NCCL has not stopped in time: memory of transfers in flight may still be written to";
  }
  for (Circle& circle : circles_) circle.seat->GiveUp();
}

void NcclTransport::StartClosing() {
  closing_ = true;
  if (fault_.has_value() || !connected_) return;
  if (joining_ || busy()) {
    return OnFault({ANNULUS_TRANSPORT_ABORTED, -1,
                    joining_ ? "aborted: closed while joining"
                             : "aborted: closed with operations outstanding"});
  }
  leaving_ = true;
  leave_limit_ns_ = NowNs() + settings_.abort_ns;
  for (Circle& circle : circles_) circle.seat->Leave();
}

bool NcclTransport::FinishClosing() {
  if (!local_.empty()) return false;
  if (fault_applied_) return !busy();
  if (fault_.has_value()) return false;
  if (!leaving_) return true;
  const bool over = std::all_of(circles_.begin(), circles_.end(),
                                [](const Circle& circle) { return circle.seat->over(); });
  if (over && control_->Flushed()) return true;
  if (NowNs() >= leave_limit_ns_) {
    OnFault({ANNULUS_TRANSPORT_ABORTED, -1,
             "aborted: closed while transfers of other ranks were in flight"});
  }
  return false;
}

void NcclTransport::NotifyDone() {
  if (!completed_some_) return;
  completed_some_ = false;
  std::lock_guard lock(state_mutex_);
  if (notify_ != nullptr) notify_(notify_context_);
}

bool NcclTransport::busy() const {
  return std::any_of(circles_.begin(), circles_.end(),
                     [](const Circle& circle) { return circle.seat->busy(); });
}

void NcclTransport::ToLeader(const Membership& membership, const Message& message) {
  if (membership.leader() != rank_) return control_->Send(membership.leader(), message);
  local_.push_back({CircleOf(membership), true, message});
}

void NcclTransport::ToMember(const Membership& membership, int32_t member, const Message& message) {
  const int32_t rank = membership.ranks[static_cast<size_t>(member)];
  if (rank != rank_) return control_->Send(rank, message);
  local_.push_back({CircleOf(membership), false, message});
}

void NcclTransport::MintId(const Membership& membership) {
  CircleOf(membership)->seat->communicator()->MintId();
}

void NcclTransport::OnFault(Fault fault) {
  if (!fault_.has_value()) fault_ = std::move(fault);
}

void NcclTransport::OnNote(int32_t peer, const std::string& text) { SetError(peer, text); }

void NcclTransport::OnDone(const Operation& operation) {
  outstanding_.fetch_sub(1);
  completed_some_ = true;
  if (operation.completion.status != ANNULUS_TRANSPORT_OK) return;
  std::lock_guard lock(state_mutex_);
  (operation.is_send ? sent_bytes_ : received_bytes_) += operation.total;
}

}  // namespace annulus::transport::nccl
