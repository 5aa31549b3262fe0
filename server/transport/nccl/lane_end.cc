// SPDX-License-Identifier: Apache-2.0
// How a communicator ends, on the thread that ends it; its own thread may hang in a call.
#include <algorithm>
#include <chrono>
#include <thread>

#include "server/transport/host/clock.h"
#include "server/transport/nccl/lane.h"

namespace annulus::transport::nccl {

bool Lane::Register(void* data, size_t bytes) {
  if (halted()) return false;
  Registration wanted{data, bytes, nullptr};
  if (initialised_.load(std::memory_order_acquire) &&
      !Good(nccl_->Register(comm_.load(), data, bytes, &wanted.handle), "ncclCommRegister")) {
    return false;
  }
  registrations_.push_back(wanted);
  return true;
}

bool Lane::Deregister(void* data) {
  const auto found = std::find_if(registrations_.begin(), registrations_.end(),
                                  [data](const Registration& each) { return each.data == data; });
  if (found == registrations_.end()) return false;
  void* const handle = found->handle;
  registrations_.erase(found);
  return handle == nullptr || Good(nccl_->Deregister(comm_.load(), handle), "ncclCommDeregister");
}

bool Lane::Revoked(Comm comm) {
  if (!nccl_->can_revoke()) return false;
  Result result = nccl_->Revoke(comm);
  const int64_t limit_ns = NowNs() + options_.abort_ns / 2;
  while (result == Result::kInProgress && NowNs() < limit_ns) {
    std::this_thread::sleep_for(std::chrono::microseconds(100));
    if (nccl_->AsyncError(comm, &result) != Result::kSuccess) return false;
  }
  return result == Result::kSuccess;
}

void Lane::Stop(bool for_good) {
  Halt();
  const bool out = WaitOut(options_.abort_ns / 4);
  const Comm comm = comm_.load(std::memory_order_acquire);
  if (comm == nullptr) return;
  (void)cuda_->Enter();
  // What was registered is the communicator's, and gone with it; while another thread is inside
  // NCCL nothing but the abort may be called.
  if (out) {
    for (const Registration& each : registrations_) {
      if (each.handle != nullptr) nccl_->Deregister(comm, each.handle);
    }
    registrations_.clear();
  }
  if (!for_good && initialised_.load(std::memory_order_acquire) && Revoked(comm)) return;
  AbortComm();
}

void Lane::Free() {
  (void)cuda_->Enter();
  WaitOut(options_.abort_ns / 4);
  AbortComm();
  if (!WaitOut(2 * options_.abort_ns)) {  // the abort may have brought it back
    std::lock_guard lock(mutex_);
    abandoned_ = !out_;
    if (abandoned_) return;
  }
  Release();
}

void Lane::AbortComm() {
  if (const Comm comm = comm_.exchange(nullptr); comm != nullptr) nccl_->Abort(comm);
}

void Lane::Release() {
  AbortComm();  // one that came up after all
  for (const CudaApi::Event event : events_) cuda_->DestroyEvent(event);
  if (warm_memory_ != nullptr) cuda_->Free(warm_memory_);
  if (stream_ != nullptr) cuda_->DestroyStream(stream_);
  events_.clear();
  warm_memory_ = nullptr;
  stream_ = nullptr;
}

}  // namespace annulus::transport::nccl
