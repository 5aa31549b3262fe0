// SPDX-License-Identifier: Apache-2.0
#include "server/worker/group.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"

namespace annulus::worker {

Group::Group(GroupAssignment assignment, std::unique_ptr<transport::Transport> transport,
             std::shared_ptr<WireMemory> wire_memory)
    : assignment_(std::move(assignment)),
      wire_memory_(std::move(wire_memory)),
      transport_(std::move(transport)) {
  if (transport_ != nullptr) wire_memory_->AddTransport(transport_.get());
}

Group::~Group() {
  if (transport_ != nullptr) wire_memory_->RemoveTransport(transport_.get());
}

Group::State Group::state() const {
  std::lock_guard lock(mutex_);
  return state_;
}

RankHandles Group::handles() const {
  if (transport_ == nullptr) return {};
  return {transport_->handle(), transport_->outer_handle()};
}

absl::Status Group::ConnectTransport(const std::vector<RankHandles>& handles, int64_t deadline_ns) {
  if (transport_ == nullptr) return absl::OkStatus();
  const bool by_level = transport_->outer_handle().has_value();
  std::vector<annulusTransportHandle> inner, outer;
  for (const RankHandles& rank : handles) {
    if (rank.outer.has_value() != by_level) {
      return absl::InvalidArgumentError(absl::StrCat("rank ", inner.size(), " has ",
                                                     by_level ? "one transport" : "two transports",
                                                     ", this rank has ", by_level ? "two" : "one"));
    }
    inner.push_back(rank.inner);
    if (by_level) outer.push_back(*rank.outer);
  }
  return by_level ? transport_->ConnectByLevel(inner, outer, deadline_ns)
                  : transport_->Connect(inner, deadline_ns);
}

absl::Status Group::Connect(const std::vector<RankHandles>& handles, int64_t deadline_ns) {
  {
    std::lock_guard lock(mutex_);
    if (state_ == State::kReady) return absl::OkStatus();
    if (state_ != State::kPrepared) {
      return absl::FailedPreconditionError(
          absl::StrCat("group ", assignment_.group, ", epoch ", assignment_.epoch,
                       state_ == State::kOver ? " is over" : " is being connected already"));
    }
    if (handles.size() != static_cast<size_t>(assignment_.size)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "got ", handles.size(), " transport handles for a group of ", assignment_.size));
    }
    state_ = State::kConnecting;
  }
  absl::Status connected = ConnectTransport(handles, deadline_ns);
  std::lock_guard lock(mutex_);
  if (state_ != State::kConnecting) {
    return absl::FailedPreconditionError(absl::StrCat("group ", assignment_.group, ", epoch ",
                                                      assignment_.epoch,
                                                      " ended while it was being connected"));
  }
  state_ = connected.ok() ? State::kReady : State::kPrepared;
  return connected;
}

void Group::Fault(const FaultVerdict& verdict) {
  {
    std::lock_guard lock(mutex_);
    if (!verdict_) verdict_ = verdict;
    state_ = State::kOver;
    changed_.notify_all();
  }
  if (transport_ != nullptr) transport_->Abort(verdict.message);
}

void Group::Fail(const std::string& why) {
  {
    std::lock_guard lock(mutex_);
    state_ = State::kOver;
  }
  if (transport_ != nullptr) transport_->Abort(why);
}

std::optional<FaultVerdict> Group::verdict() const {
  std::lock_guard lock(mutex_);
  return verdict_;
}

std::optional<FaultVerdict> Group::WaitForVerdict(int64_t deadline_ns) const {
  const std::chrono::steady_clock::time_point deadline{std::chrono::nanoseconds(deadline_ns)};
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, deadline, [this] { return verdict_.has_value(); });
  return verdict_;
}

std::string Group::WorkerOf(int rank) const {
  const bool known = rank >= 0 && static_cast<size_t>(rank) < assignment_.workers.size();
  return known ? assignment_.workers[static_cast<size_t>(rank)] : "";
}

}  // namespace annulus::worker
