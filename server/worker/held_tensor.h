// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/worker/memory_pool.h"

namespace annulus::worker {

// A tensor that the worker holds for a client on another host: filled front to back by uploads,
// or written as a whole by Attend. Lies where the host can touch it. Thread safe, but for the bytes
// behind data(): those belong to the request or the download that uses them.
class HeldTensor {
 public:
  // Zeroed, so that nothing of an earlier session can be read back. RESOURCE_EXHAUSTED beyond the
  // limit.
  static absl::StatusOr<std::shared_ptr<HeldTensor>> Create(MemoryPool* pool, uint64_t bytes);

  uint64_t bytes() const { return bytes_; }
  uint64_t committed_bytes() const;
  uint8_t* data() const { return buffer_.data(); }

  // Appends at `offset`, which must be the count committed so far (OUT_OF_RANGE names it); returns
  // the new count.
  absl::StatusOr<uint64_t> Write(uint64_t offset, const void* data, size_t bytes);
  // All bytes are there: a request has written it.
  void CommitAll();

 private:
  HeldTensor(Buffer buffer, uint64_t bytes) : buffer_(std::move(buffer)), bytes_(bytes) {}

  const Buffer buffer_;
  const uint64_t bytes_;
  mutable std::mutex mutex_;
  uint64_t committed_bytes_ = 0;  // guarded by mutex_
};

}  // namespace annulus::worker
