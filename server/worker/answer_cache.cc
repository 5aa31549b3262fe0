// SPDX-License-Identifier: Apache-2.0
#include "server/worker/answer_cache.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/fault_info.h"
#include "server/worker/clock.h"

namespace annulus::worker {
namespace {

constexpr int64_t kCancelPollNs = 50'000'000;

}  // namespace

std::optional<AnswerCache::Result> AnswerCache::Begin(const Fence& fence, uint64_t content_hash,
                                                      int64_t deadline_ns,
                                                      const std::function<bool()>& cancelled) {
  const int64_t give_up_ns = deadline_ns == 0 ? kNever : deadline_ns;
  const Key key(fence.group, fence.epoch, fence.request_id);
  std::unique_lock lock(mutex_);
  while (true) {
    const auto [it, first] = entries_.try_emplace(key);
    Entry& entry = it->second;
    if (first) {
      entry.content_hash = content_hash;
      return std::nullopt;
    }
    if (entry.content_hash != content_hash) {
      return WithFaultInfo(
          absl::AbortedError(absl::StrCat("request id ", fence.request_id,
                                          " was used for another request in this epoch")),
          {"REQUEST_ID_REUSED", {{"request_id", fence.request_id}}});
    }
    if (entry.result) {
      Result result = *entry.result;
      if (result.ok()) result->replayed = true;
      return result;
    }
    const int64_t now_ns = NowNs();
    if (now_ns >= give_up_ns) {
      return absl::DeadlineExceededError(absl::StrCat(
          "the first request with id ", fence.request_id, " still runs at the deadline"));
    }
    const std::chrono::nanoseconds wake(std::min(give_up_ns, now_ns + kCancelPollNs));
    finished_.wait_until(lock, std::chrono::steady_clock::time_point(wake));
    if (cancelled && cancelled()) {
      return absl::CancelledError("the caller cancelled the request");
    }
  }
}

void AnswerCache::Finish(const Fence& fence, const Result& result, bool keep) {
  const Key key(fence.group, fence.epoch, fence.request_id);
  std::lock_guard lock(mutex_);
  finished_.notify_all();
  const auto it = entries_.find(key);
  if (it == entries_.end()) return;  // its epoch was dropped meanwhile
  if (!keep) {
    entries_.erase(it);
    return;
  }
  it->second.result = result;
  it->second.age = ages_.insert(ages_.end(), key);
  if (result.ok()) timeline_ops_ += result->timeline.ops.size();
  Evict();
}

void AnswerCache::Evict() {
  while (ages_.size() > kAnswersMax || (timeline_ops_ > kTimelineOpsMax && ages_.size() > 1)) {
    Drop(entries_.find(ages_.front()));
  }
}

void AnswerCache::Drop(std::map<Key, Entry>::iterator it) {
  const Entry& entry = it->second;
  if (entry.result->ok()) timeline_ops_ -= (*entry.result)->timeline.ops.size();
  ages_.erase(entry.age);
  entries_.erase(it);
}

void AnswerCache::DropBefore(const std::string& group, uint64_t epoch) {
  std::lock_guard lock(mutex_);
  auto it = entries_.lower_bound(Key(group, 0, ""));
  while (it != entries_.end() && it->first < Key(group, epoch, "")) {
    const auto next = std::next(it);
    if (it->second.result) Drop(it);
    it = next;
  }
}

}  // namespace annulus::worker
