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
#include "server/worker/device_options.h"

namespace annulus::worker {

// Which memory something lies in. A device that works on the host's own memory has one alone,
// called kDevice; kHost is what only a device apart from the host is told from.
enum class Memory { kDevice, kHost };

// An opened compute device and its streams, over the C table. Thread safe.
class Device {
 public:
  // INVALID_ARGUMENT for a table that is too small, or that knows nothing of an option that is set;
  // UNIMPLEMENTED for a device whose memory the host cannot touch and that cannot copy; else what
  // the device says.
  static absl::StatusOr<std::shared_ptr<Device>> Open(const annulusComputeV1* table,
                                                      const DeviceOptions& options);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  // In-order queue of work with an event to wait on; borrowed by one request at a time.
  class Queue {
   public:
    Queue() = default;
    Queue(Queue&& other) noexcept { *this = std::move(other); }
    Queue& operator=(Queue&& other) noexcept;
    // Waits, however long it takes, for what is still enqueued: its memory may be given back after
    // this. A device that has failed is waited for no longer.
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
  // 64-byte aligned, not zeroed. Host memory of a device apart is pinned where that can be had.
  absl::StatusOr<void*> Allocate(size_t bytes, Memory memory);
  void Free(void* data, Memory memory);
  // Enqueues a copy within or between the two memories; at once where the device works on the
  // host's.
  absl::Status Copy(const Queue& queue, const annulusCopyArgs& args) const;
  // Host memory that copies will name, whole pages. Best effort: copies from memory that is not
  // pinned are right, but slow. False: not pinned, nothing to unpin.
  bool Pin(void* data, size_t bytes);
  void Unpin(void* data);
  // Memory of another process on this device, see annulusMemoryHandle; goes with Release.
  // UNIMPLEMENTED where the device takes none.
  absl::StatusOr<void*> Import(const annulusMemoryHandle& handle);
  void Release(void* memory);

  const annulusComputeV1& table() const { return *table_; }
  bool asynchronous() const { return (table_->caps & ANNULUS_COMPUTE_CAP_ASYNC) != 0; }
  // Whether the host may touch what Allocate returns, and the device the host's memory.
  bool host_memory() const { return host_memory_; }
  const std::string& description() const { return description_; }
  // "0000:3b:00.0"; empty: not on a bus, or unknown.
  const std::string& bus_id() const { return bus_id_; }
  int ordinal() const { return ordinal_; }

  // The device's failure in words, as a Status; OK for ANNULUS_COMPUTE_OK.
  absl::Status ToStatus(annulusComputeStatus status, const char* what) const;

 private:
  Device(const annulusComputeV1* table, annulusDevice* device) : table_(table), device_(device) {}
  absl::Status ReadInfo();

  const annulusComputeV1* table_;
  annulusDevice* device_;
  int ordinal_ = 0;
  bool host_memory_ = true;
  std::string description_;
  std::string bus_id_;
  std::mutex mutex_;
  std::vector<std::pair<annulusStream*, annulusEvent*>> idle_queues_;  // guarded by mutex_
};

}  // namespace annulus::worker
