// SPDX-License-Identifier: Apache-2.0
#pragma once

// A model of NCCL and CUDA in this process: all ranks are threads, device memory is host memory.
// Linked instead of the real two.
//
// What it keeps of NCCL: communicators come up when all members have called; a call may leave one
// "in progress", and then nothing else may be asked of it; sends and receives between two members
// match by order; a group occupies its stream until all of it has moved; what never matches never
// ends, until abort or revoke. Copies happen late, a piece at a time, on a thread of the model.
// What NCCL's documentation forbids is written down as a violation.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "server/transport/nccl/cuda_api.h"
#include "server/transport/nccl/nccl_api.h"

namespace annulus::transport::nccl {

enum class FakeCall {
  kGetUniqueId,
  kInit,
  kAsyncError,
  kGroupStart,
  kGroupEnd,
  kSend,
  kRecv,
  kRegister,
  kDeregister,
  kRevoke,
  kAbort,
  kEnter,
  kCreateStream,
  kCreateEvent,
  kRecord,
  kReached,
  kElapsed,
  kAllocate,
  kCopyIn,
  kCopyOut,
  kTransfer,  // not a call: the bytes of one send
  kCount,
};

enum class FakeAction {
  kFail,    // an error, and of NCCL's calls also an asynchronous one from then on
  kHang,    // does not return before ReleaseHangs; of a transfer: never moves
  kDelay,   // returns some milliseconds later
  kDamage,  // of a transfer: a byte arrives changed
};

// The nth call of its kind in this process, from 0, does `action`.
struct FakeFault {
  FakeCall call = FakeCall::kCount;
  int nth = 0;
  FakeAction action = FakeAction::kFail;
};

class FakeGpu {
 public:
  static FakeGpu& Get();

  // Before ranks are opened. Precondition: nothing is alive.
  void Arrange(uint32_t seed, std::vector<FakeFault> faults);
  // Lets every call that hangs return; nothing hangs any more until Arrange.
  void ReleaseHangs();
  // Which faults have struck.
  int struck();
  // Communicators, streams, events, allocations and registrations that are alive, in words; "" for
  // none.
  std::string Alive();
  std::vector<std::string> violations();

  void set_version(int version) { version_ = version; }  // of the next to open
  void set_can_revoke(bool can) { can_revoke_ = can; }
  // NCCL has our profiler, and a globaltimer of its own, while this is set.
  void set_profiled(bool profiled) { profiled_ = profiled; }
  void set_missing(std::string why) { missing_ = std::move(why); }

 private:
  friend class FakeNccl;
  friend class FakeCuda;
  friend absl::StatusOr<std::shared_ptr<NcclApi>> OpenNccl();
  friend absl::StatusOr<std::shared_ptr<CudaApi>> OpenCuda(int ordinal);

  struct World;
  struct FakeComm;
  struct FakeEvent;
  struct FakeStream;
  struct Transfer;
  struct Item;
  using TransferPtr = std::shared_ptr<Transfer>;

  FakeGpu();
  ~FakeGpu();

  // Does what the plan says for this call. True: it fails.
  bool Strike(FakeCall call);
  bool StruckLocked(FakeCall call, FakeAction* action);
  void Violate(const std::string& what) { violations_.push_back(what); }

  // The thread of the model.
  void Run();
  bool AdvanceStream(FakeStream* stream);
  bool AdvanceWorld(World* world);
  void Post(Item* item);
  static void StopChannels(const Item& item);
  void Drop(FakeComm* comm);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::mt19937 random_;
  std::vector<FakeFault> faults_;
  std::map<FakeCall, int> calls_;
  bool hangs_released_ = false;
  int struck_ = 0;
  std::vector<std::string> violations_;
  std::atomic<int> version_{22809};
  std::atomic<bool> can_revoke_{true};
  std::atomic<bool> profiled_{false};
  std::string missing_;

  uint64_t next_id_ = 1;
  std::map<uint64_t, std::unique_ptr<World>> worlds_;
  std::map<void*, std::unique_ptr<FakeComm>> comms_;
  std::map<void*, std::unique_ptr<FakeStream>> streams_;
  std::map<void*, std::unique_ptr<FakeEvent>> events_;
  std::set<void*> allocations_;
  std::set<void*> registrations_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace annulus::transport::nccl
