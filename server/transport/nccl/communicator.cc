// SPDX-License-Identifier: Apache-2.0
#include "server/transport/nccl/communicator.h"

#include <atomic>
#include <chrono>
#include <future>
#include <utility>

#include "server/transport/quiet_thread.h"

namespace annulus::transport::nccl {
namespace {

std::atomic<int> left_behind_count{0};

}  // namespace

Communicator::Communicator(LaneOptions options, const std::shared_ptr<NcclApi>& nccl,
                           const std::shared_ptr<CudaApi>& cuda,
                           const std::shared_ptr<ReportBox>& box)
    : level_(options.membership.level),
      abort_ns_(options.abort_ns),
      box_(box),
      lane_(std::make_shared<Lane>(std::move(options), nccl, cuda, box)),
      ending_(std::make_shared<Ending>()) {
  thread_ = QuietThread([lane = lane_] { lane->Run(); });
}

Communicator::~Communicator() { Free(); }

void Communicator::MintId() {
  lane_->Post([lane = lane_.get()] { lane->MintId(); });
}

void Communicator::Init(const UniqueId& id) {
  lane_->Post([lane = lane_.get(), id] { lane->Init(id); });
}

void Communicator::Warm() {
  lane_->Post([lane = lane_.get()] { lane->Warm(); });
}

void Communicator::Enqueue(uint64_t go, std::vector<std::vector<Call>> rounds) {
  lane_->Post([lane = lane_.get(), go, rounds = std::move(rounds)] { lane->Enqueue(go, rounds); });
}

annulusTransportStatus Communicator::Register(void* data, size_t bytes) {
  return Ask([lane = lane_.get(), data, bytes] { return lane->Register(data, bytes); });
}

annulusTransportStatus Communicator::Deregister(void* data) {
  return Ask([lane = lane_.get(), data] { return lane->Deregister(data); });
}

annulusTransportStatus Communicator::Ask(std::function<bool()> question) {
  auto answer = std::make_shared<std::promise<bool>>();
  std::future<bool> said = answer->get_future();
  lane_->Post([answer, question = std::move(question)] { answer->set_value(question()); });
  answer.reset();
  if (said.wait_for(std::chrono::nanoseconds(abort_ns_)) != std::future_status::ready) {
    return ANNULUS_TRANSPORT_DEADLINE;
  }
  try {
    return said.get() ? ANNULUS_TRANSPORT_OK : ANNULUS_TRANSPORT_RESOURCE;
  } catch (const std::future_error&) {  // halted before it was asked
    return ANNULUS_TRANSPORT_ABORTED;
  }
}

void Communicator::StartEnding(bool for_good) {
  std::lock_guard lock(mutex_);
  if (ender_.joinable() || freed_) return;
  ender_ = QuietThread([lane = lane_, ending = ending_, box = box_, level = level_, for_good] {
    lane->Stop(for_good);
    box->Put({.kind = LaneReport::Kind::kStopped, .level = level});
    {
      std::unique_lock wait(ending->mutex);
      ending->changed.wait(wait, [&] { return ending->free_wanted; });
    }
    lane->Free();
    std::lock_guard done(ending->mutex);
    ending->freed = lane->WaitOut(0);
    ending->changed.notify_all();
  });
}

void Communicator::Stop() { StartEnding(false); }

bool Communicator::Free() {
  StartEnding(true);
  std::lock_guard guard(mutex_);
  if (freed_) return true;
  freed_ = true;
  bool freed = false;
  {
    std::unique_lock lock(ending_->mutex);
    ending_->free_wanted = true;
    ending_->changed.notify_all();
    freed = ending_->changed.wait_for(lock, std::chrono::nanoseconds(2 * abort_ns_),
                                      [this] { return ending_->freed; });
  }
  if (freed) {
    ender_.join();
    thread_.join();
    return true;
  }
  ender_.detach();
  thread_.detach();
  left_behind_count.fetch_add(1);
  return false;
}

int Communicator::left_behind() { return left_behind_count.load(); }

}  // namespace annulus::transport::nccl
