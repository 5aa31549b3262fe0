// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "server/transport/nccl/lane.h"

namespace annulus::transport::nccl {

// One communicator as the transport uses it. No call waits for NCCL without a limit; results come
// as LaneReports. Where NCCL does not return by the limit, the thread inside it and all that it
// holds are left behind, knowingly: there is no way to take them back but to end the process.
//
// It ends in two steps. Stop after a fault: what runs is stopped everywhere, but the memory that
// peers may still reach stays. Free when the transport closes.
//
// Thread safe.
class Communicator {
 public:
  Communicator(LaneOptions options, const std::shared_ptr<NcclApi>& nccl,
               const std::shared_ptr<CudaApi>& cuda, const std::shared_ptr<ReportBox>& box);
  ~Communicator();  // Free
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  void MintId();
  void Init(const UniqueId& id);
  void Warm();
  void Enqueue(uint64_t go, std::vector<std::vector<Call>> rounds);

  // Both block, as long as NCCL takes or the limit.
  annulusTransportStatus Register(void* data, size_t bytes);
  annulusTransportStatus Deregister(void* data);

  // Idempotent. Ends with the report kStopped, if NCCL returns.
  void Stop();
  // False: left behind.
  bool Free();

  // Communicators of this process that were left behind.
  static int left_behind();

 private:
  // Who ends the communicator, in a thread of its own.
  struct Ending {
    std::mutex mutex;
    std::condition_variable changed;
    bool free_wanted = false;
    bool freed = false;
  };

  void StartEnding(bool for_good);
  annulusTransportStatus Ask(std::function<bool()> question);

  const annulusLevel level_;
  const int64_t abort_ns_;
  const std::shared_ptr<ReportBox> box_;
  const std::shared_ptr<Lane> lane_;
  const std::shared_ptr<Ending> ending_;
  std::mutex mutex_;
  bool freed_ = false;
  std::thread ender_;
  std::thread thread_;
};

}  // namespace annulus::transport::nccl
