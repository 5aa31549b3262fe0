// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>

#include "absl/status/statusor.h"
#include "server/worker/engine.h"

namespace annulus::worker {

// Makes a request that is repeated with its id have one effect.
//
// Answers are kept by (group, epoch, request id), the kAnswersMax last ones. What a repeated
// request gets:
//   - same content, the first still running or done: the first answer, `replayed` set;
//   - other content: ABORTED, reason REQUEST_ID_REUSED;
//   - the first failed before it had begun (no transfer posted, no output written): it runs as if
//     it were the first, since nothing happened;
//   - the first failed after it had begun: the same error, for its epoch is over (a group of one
//     has no epoch to lose, so there it runs again);
//   - at a later epoch: it runs again, on every rank. A rank that had answered at the old epoch
//   must
//     take part, or its peers would wait for it; the same inputs give the same bytes.
// Thread safe.
class AnswerCache {
 public:
  static constexpr size_t kAnswersMax = 1024;
  static constexpr size_t kTimelineOpsMax = size_t{1} << 20;  // in all kept answers

  using Result = absl::StatusOr<AttendAnswer>;

  // Empty: the caller is the first and must call Finish. Else the answer to give. Waits for a
  // first that still runs, up to the deadline (DEADLINE_EXCEEDED) or cancellation (CANCELLED).
  std::optional<Result> Begin(const Fence& fence, uint64_t content_hash, int64_t deadline_ns,
                              const std::function<bool()>& cancelled);
  // keep false: forget that the request was ever there.
  void Finish(const Fence& fence, const Result& result, bool keep);
  void DropBefore(const std::string& group, uint64_t epoch);

 private:
  using Key = std::tuple<std::string, uint64_t, std::string>;
  struct Entry {
    uint64_t content_hash = 0;
    std::optional<Result> result;  // empty: running
    std::list<Key>::iterator age;  // valid with a result
  };
  void Evict();  // with mutex_ held
  void Drop(std::map<Key, Entry>::iterator it);

  std::mutex mutex_;
  std::condition_variable finished_;
  std::map<Key, Entry> entries_;  // guarded by mutex_
  std::list<Key> ages_;           // guarded by mutex_; oldest answer first
  size_t timeline_ops_ = 0;       // guarded by mutex_
};

}  // namespace annulus::worker
