// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "server/transport/nccl/cuda_api.h"
#include "server/transport/nccl/lane_report.h"
#include "server/transport/nccl/membership.h"
#include "server/transport/nccl/nccl_api.h"
#include "server/transport/nccl/profiler.h"

namespace annulus::transport::nccl {

// One piece of a transfer, as NCCL is given it. `peer` is a member index.
struct Call {
  bool is_send = false;
  int32_t peer = 0;
  void* data = nullptr;
  uint64_t bytes = 0;
};

struct LaneOptions {
  Membership membership;
  CommSettings comm;
  uint64_t epoch = 0;
  int64_t abort_ns = 0;
};

// A communicator, its stream, and the thread that alone calls NCCL for it. NCCL and CUDA may block
// for ever in any call; so nobody waits for this thread without a limit, and it shares what it
// holds with those that end it (communicator.h).
//
// Stamps: an event is recorded before and one after the calls of a go. The end is when the thread,
// looking every 20 us, found the second reached; the start is as much earlier as CUDA says that the
// two are apart, but not before the calls were made. Nothing has to be calibrated, nothing drifts.
// Where NCCL's profiler has told of all kernels of the go by then, both are what it says.
class Lane {
 public:
  Lane(LaneOptions options, std::shared_ptr<NcclApi> nccl, std::shared_ptr<CudaApi> cuda,
       std::shared_ptr<ReportBox> box);

  // The body of the thread; returns after Halt or a fault.
  void Run();
  // Has `command` run on the thread, unless it has been halted.
  void Post(std::function<void()> command);

  // Commands.
  void MintId();
  void Init(const UniqueId& id);
  // One payload to each neighbour on the ring and back, checked: edges connect at their first use.
  void Warm();
  // Each round is one group call; they are executed in order.
  void Enqueue(uint64_t go, const std::vector<std::vector<Call>>& rounds);
  // Before Init they are kept for it. False: NCCL refused.
  bool Register(void* data, size_t bytes);
  bool Deregister(void* data);

  // From another thread; each may hang as NCCL may.
  void Halt();
  bool WaitOut(int64_t limit_ns);  // true: the thread has returned from Run
  void Stop(bool for_good);        // revokes, or aborts where it cannot or need not be kept
  // Aborts what is left, and frees stream and events. If the thread does not come back, it is left
  // to do that itself, should NCCL ever return.
  void Free();

 private:
  struct Flight {
    uint64_t go = 0;
    CudaApi::Event start = nullptr;
    CudaApi::Event end = nullptr;
    int64_t called_ns = 0;
    uint64_t profiled_from = 0;  // its sends and receives, as ProfiledComm counts them
    uint64_t profiled_to = 0;
  };
  struct Registration {
    void* data = nullptr;
    size_t bytes = 0;
    void* handle = nullptr;  // null before Init
  };

  // Lets commands run until there is one to take, `limit_ns` passes or the lane is halted.
  void Sleep(int64_t limit_ns);
  std::function<void()> Next();
  void PollFlights();
  GlobaltimerClock::Stamps StampsOf(const Flight& flight, int64_t elapsed_ns, int64_t seen_ns);
  void CheckHealth();
  bool WaitFor(CudaApi::Event event);
  // Until NCCL is no longer busy with what it was asked; kInProgress only when halted.
  Result Settle(Result result);
  bool Revoked(Comm comm);
  void AbortComm();
  void Release();
  bool GroupOf(const std::vector<Call>& calls);
  bool Good(Result result, const char* call);
  bool Good(const absl::Status& status);
  CudaApi::Event TakeEvent();
  void Report(LaneReport report);
  void Fail(annulusTransportStatus status, int32_t suspect, const std::string& text);
  void CheckPayload(const std::string& got, int32_t from, bool forwards);
  std::string Payload(int32_t from, int32_t to, bool forwards) const;
  bool halted() const { return halted_.load(std::memory_order_acquire); }

  const LaneOptions options_;
  const std::shared_ptr<NcclApi> nccl_;
  const std::shared_ptr<CudaApi> cuda_;
  const std::shared_ptr<ReportBox> box_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> commands_;
  bool out_ = false;
  bool abandoned_ = false;  // nobody waits for the thread any more
  std::atomic<bool> halted_{false};
  std::atomic<Comm> comm_{nullptr};
  std::atomic<bool> initialised_{false};

  // The thread's own while it runs, then of who ends it.
  Stream stream_ = nullptr;
  std::vector<CudaApi::Event> events_;
  std::vector<CudaApi::Event> idle_events_;
  std::deque<Flight> flights_;
  std::optional<ProfiledComm> profiled_;
  GlobaltimerClock gpu_clock_;
  std::vector<Registration> registrations_;
  uint64_t current_go_ = 0;
  int64_t health_ns_ = 0;
  void* warm_memory_ = nullptr;
  std::string warm_out_;  // here, since a copy may outlive the call that asked for it
  std::string warm_in_;
};

}  // namespace annulus::transport::nccl
