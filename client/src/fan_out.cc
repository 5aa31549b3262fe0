// SPDX-License-Identifier: Apache-2.0
#include "client/src/fan_out.h"

#include <algorithm>

#include "absl/synchronization/mutex.h"

namespace annulus::client {
namespace {

// The workers end by the deadline themselves; this long their answers, which name the suspect, have
// to arrive.
constexpr absl::Duration kDeadlineSlack = absl::Milliseconds(600);

class Gathering {
 public:
  explicit Gathering(const std::vector<RankCall>& calls) : open_(calls.size()) {
    for (const RankCall& call : calls) answers_.push_back({{call.rank, call.worker, {}}, {}});
  }

  void Add(size_t index, const absl::Status& status, v1::AttendResponse& response) {
    absl::MutexLock lock(&mutex_);
    answers_[index].outcome.status = status;
    if (status.ok()) answers_[index].response.Swap(&response);
    --open_;
    if (!status.ok()) cancel_at_ = std::min(cancel_at_, absl::Now() + GraceAfter(status));
  }

  // True when all have ended, false when it is time to cancel the rest.
  bool Wait(absl::Time deadline) {
    absl::MutexLock lock(&mutex_);
    while (open_ > 0) {
      const absl::Time until = std::min(cancel_at_, deadline);
      if (absl::Now() >= until) return false;
      const size_t open_before = open_;
      const auto moved = [this, open_before]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return open_ != open_before; };
      mutex_.AwaitWithDeadline(absl::Condition(&moved), until);
    }
    return true;
  }
  void WaitForAll() {
    absl::MutexLock lock(&mutex_);
    const auto all = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return open_ == 0; };
    mutex_.Await(absl::Condition(&all));
  }
  std::vector<RankAnswer> Take() {
    absl::MutexLock lock(&mutex_);
    return std::move(answers_);
  }

 private:
  // A rank that refused has no better-informed peer: the others only wait for it.
  static absl::Duration GraceAfter(const absl::Status& status) {
    const bool fault = absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
                       absl::IsCancelled(status);
    return fault && !IsAuthoritative(status) ? kVerdictGrace : kQuietGrace;
  }

  absl::Mutex mutex_;
  std::vector<RankAnswer> answers_ ABSL_GUARDED_BY(mutex_);
  size_t open_ ABSL_GUARDED_BY(mutex_);
  absl::Time cancel_at_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
};

}  // namespace

std::vector<RankAnswer> FanOut(const std::vector<RankCall>& calls, absl::Time deadline) {
  auto gathering = std::make_shared<Gathering>(calls);
  std::vector<std::shared_ptr<PendingAttend>> pending;
  for (size_t i = 0; i < calls.size(); ++i) {
    pending.push_back(calls[i].link->StartAttend(
        calls[i].request, deadline + kDeadlineSlack,
        [gathering, i](const absl::Status& status, v1::AttendResponse& response) {
          gathering->Add(i, status, response);
        }));
  }
  if (!gathering->Wait(deadline + kDeadlineSlack)) {
    for (const auto& call : pending) call->Cancel();
    gathering->WaitForAll();  // a cancelled call ends at once on our side
  }
  return gathering->Take();
}

}  // namespace annulus::client
