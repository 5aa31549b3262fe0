// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/compute_plugin.h"

namespace annulus::worker {

// An opened compute device and its streams, over the C table. Thread safe.
class Device {
 public:
  // `cpus`: none, or a processor for each thread to be bound to.
  // INVALID_ARGUMENT for a table that is too small; UNIMPLEMENTED for a device whose memory the
  // host cannot touch; else what the device says.
  static absl::StatusOr<std::shared_ptr<Device>> Open(const annulusComputeV1* table, int threads,
                                                      const std::vector<int>& cpus = {});
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  // In-order queue of work with an event to wait on; borrowed by one request at a time.
  class Queue {
   public:
    Queue() = default;
    Queue(Queue&& other) noexcept { *this = std::move(other); }
    Queue& operator=(Queue&& other) noexcept;
    ~Queue();

    annulusStream* stream() const { return stream_; }
    // Waits until all that was enqueued is done. DEADLINE_EXCEEDED past the CLOCK_MONOTONIC time.
    absl::Status Drain(int64_t deadline_ns) const;

   private:
    friend class Device;
    Device* device_ = nullptr;
    annulusStream* stream_ = nullptr;
    annulusEvent* event_ = nullptr;
  };

  absl::StatusOr<Queue> BorrowQueue();
  absl::Status Supports(annulusDtype dtype, int64_t head_dim, int64_t query_heads,
                        int64_t kv_heads) const;
  absl::StatusOr<void*> Allocate(size_t bytes);
  void Free(void* memory);

  const annulusComputeV1& table() const { return *table_; }
  bool asynchronous() const { return (table_->caps & ANNULUS_COMPUTE_CAP_ASYNC) != 0; }
  const std::string& description() const { return description_; }
  const std::string& bus_id() const { return bus_id_; }  // "": not on a bus

  // The device's failure in words, as a Status; OK for ANNULUS_COMPUTE_OK.
  absl::Status ToStatus(annulusComputeStatus status, const char* what) const;

 private:
  Device(const annulusComputeV1* table, annulusDevice* device) : table_(table), device_(device) {}

  const annulusComputeV1* table_;
  annulusDevice* device_;
  std::string description_;
  std::string bus_id_;
  std::mutex mutex_;
  std::vector<std::pair<annulusStream*, annulusEvent*>> idle_queues_;  // guarded by mutex_
};

}  // namespace annulus::worker
