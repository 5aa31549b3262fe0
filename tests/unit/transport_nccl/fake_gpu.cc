// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/transport_nccl/fake_gpu.h"

#include <algorithm>
#include <cstring>

#include "server/transport/host/clock.h"
#include "server/transport/nccl/profiler.h"
#include "tests/unit/transport_nccl/fake_model.h"

namespace annulus::transport::nccl {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;

uint64_t GlobaltimerNs() { return static_cast<uint64_t>(NowNs()) + 1'700'000'000'000'000'000; }

}  // namespace

FakeGpu& FakeGpu::Get() {
  static FakeGpu gpu;
  return gpu;
}

FakeGpu::FakeGpu() : thread_([this] { Run(); }) {}

FakeGpu::~FakeGpu() {
  ReleaseHangs();
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void FakeGpu::Arrange(uint32_t seed, std::vector<FakeFault> faults) {
  std::lock_guard lock(mutex_);
  random_.seed(seed);
  faults_ = std::move(faults);
  calls_.clear();
  violations_.clear();
  struck_ = 0;
  hangs_released_ = false;
  version_ = 22809;
  can_revoke_ = true;
  profiled_ = false;
  missing_.clear();
}

void FakeGpu::ReleaseHangs() {
  std::lock_guard lock(mutex_);
  hangs_released_ = true;
  changed_.notify_all();
}

int FakeGpu::struck() {
  std::lock_guard lock(mutex_);
  return struck_;
}

std::string FakeGpu::Alive() {
  std::lock_guard lock(mutex_);
  std::string words;
  const std::pair<const char*, size_t> kinds[] = {{"communicators", comms_.size()},
                                                  {"streams", streams_.size()},
                                                  {"events", events_.size()},
                                                  {"allocations", allocations_.size()},
                                                  {"registrations", registrations_.size()}};
  for (const auto& [kind, count] : kinds) {
    if (count > 0) words += std::to_string(count) + " " + kind + " ";
  }
  return words;
}

std::vector<std::string> FakeGpu::violations() {
  std::lock_guard lock(mutex_);
  return violations_;
}

bool FakeGpu::StruckLocked(FakeCall call, FakeAction* action) {
  const int nth = calls_[call]++;
  const auto found = std::find_if(faults_.begin(), faults_.end(), [&](const FakeFault& fault) {
    return fault.call == call && fault.nth == nth;
  });
  if (found == faults_.end()) return false;
  ++struck_;
  *action = found->action;
  return true;
}

bool FakeGpu::Strike(FakeCall call) {
  std::unique_lock lock(mutex_);
  FakeAction action;
  if (!StruckLocked(call, &action)) return false;
  if (action == FakeAction::kDelay) {
    changed_.wait_for(lock, std::chrono::milliseconds(15), [this] { return ending_; });
  }
  if (action == FakeAction::kHang) changed_.wait(lock, [this] { return hangs_released_; });
  return action == FakeAction::kFail;
}

void FakeGpu::Run() {
  std::unique_lock lock(mutex_);
  while (!ending_) {
    std::vector<FakeStream*> streams;
    for (const auto& [key, stream] : streams_) streams.push_back(stream.get());
    std::shuffle(streams.begin(), streams.end(), random_);
    bool moved = false;
    for (FakeStream* const stream : streams) moved |= AdvanceStream(stream);
    for (const auto& [id, world] : worlds_) moved |= AdvanceWorld(world.get());
    if (moved) {
      lock.unlock();  // others have to get in between two pieces
      std::this_thread::yield();
      lock.lock();
    } else {
      changed_.wait_for(lock, std::chrono::milliseconds(1));
    }
  }
}

bool FakeGpu::AdvanceStream(FakeStream* stream) {
  if (stream->items.empty()) return false;
  Item& item = stream->items.front();
  if (item.event != nullptr) {
    item.event->reached = true;
    item.event->reached_ns = NowNs();
  } else if (item.to != nullptr) {
    std::memcpy(item.to, item.from, item.bytes);
  } else if (item.comm != nullptr) {
    if (!item.posted) {
      Post(&item);
      return true;
    }
    const bool done = std::all_of(item.transfers.begin(), item.transfers.end(),
                                  [](const TransferPtr& each) { return each->done; });
    if (!done) return false;
    StopChannels(item);
  }
  stream->items.pop_front();
  changed_.notify_all();
  return true;
}

void FakeGpu::Post(Item* item) {
  item->posted = true;
  for (const TransferPtr& each : item->transfers) {
    const int self = item->comm->index;
    if (each->event != nullptr) {
      ProfilerEvent channel{
          .type = kProfileKernelChannel, .parent = each->event, .timer_ns = GlobaltimerNs()};
      NcclProfiler()->start_event(item->comm->profiler, &each->channel, &channel);
    }
    each->lazy = std::uniform_int_distribution(0, 3)(random_);
    if (each->is_send) {
      FakeAction action;
      if (StruckLocked(FakeCall::kTransfer, &action)) {
        each->never = action == FakeAction::kHang || action == FakeAction::kFail;
        each->damaged = action == FakeAction::kDamage;
        each->lazy += action == FakeAction::kDelay ? 20 : 0;
      }
      item->comm->world->sends[{self, each->peer}].push_back(each);
    } else {
      item->comm->world->receives[{each->peer, self}].push_back(each);
    }
  }
}

void FakeGpu::StopChannels(const Item& item) {
  for (const TransferPtr& each : item.transfers) {
    ProfilerState stop{GlobaltimerNs()};
    NcclProfiler()->record_event_state(each->channel, kKernelChannelStop, &stop);
    NcclProfiler()->stop_event(each->channel);
  }
}

bool FakeGpu::AdvanceWorld(World* world) {
  bool moved = false;
  for (auto& [edge, sends] : world->sends) {
    std::deque<TransferPtr>& receives = world->receives[edge];
    if (sends.empty() || receives.empty() || sends.front()->never) continue;
    Transfer& send = *sends.front();
    Transfer& receive = *receives.front();
    moved = true;
    if (send.lazy-- > 0) continue;
    if (send.bytes != receive.bytes) {
      Violate("a send of " + std::to_string(send.bytes) + " bytes met a receive of " +
              std::to_string(receive.bytes));
      send.moved = send.bytes;
    }
    const size_t bytes = std::min(kPieceBytes, send.bytes - send.moved);
    if (bytes > 0) std::memcpy(receive.data + send.moved, send.data + send.moved, bytes);
    if (send.damaged && bytes > 0) receive.data[send.moved] ^= 0x10;
    send.moved += bytes;
    if (send.moved < send.bytes) continue;
    send.done = receive.done = true;
    sends.pop_front();
    receives.pop_front();
  }
  return moved;
}

// The kernels of `comm` end at once; nothing of it is read or written any more.
void FakeGpu::Drop(FakeComm* comm) {
  for (auto* table : {&comm->world->sends, &comm->world->receives}) {
    for (auto& [edge, waiting] : *table) {
      std::erase_if(waiting, [comm](const TransferPtr& each) { return each->comm == comm; });
    }
  }
  for (const auto& [key, stream] : streams_) {
    for (Item& item : stream->items) {
      if (item.comm != comm) continue;
      item.transfers.clear();
      item.posted = true;
    }
  }
  changed_.notify_all();
}

}  // namespace annulus::transport::nccl
