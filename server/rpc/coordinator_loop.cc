// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/coordinator_loop.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "server/coordinator/reducer.h"

namespace annulus::rpc {
namespace {

using Clock = std::chrono::steady_clock;
using coordinator::Action;
using coordinator::Event;
using coordinator::State;
using coordinator::TimeMs;

constexpr auto kTick = std::chrono::milliseconds(50);

class Loop final : public CoordinatorLoop {
 public:
  Loop(const coordinator::Settings& settings, uint64_t term, Callbacks callbacks)
      : settings_(settings), callbacks_(std::move(callbacks)) {
    state_.term = term;
    thread_ = std::thread([this] { Run(); });
  }

  ~Loop() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

  void Post(Event event, Done done) override { Push(Posted{std::move(event), std::move(done)}); }
  void Ask(Query query) override { Push(std::move(query)); }

  TimeMs Now() const override {
    return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now().time_since_epoch())
        .count();
  }

 private:
  struct Posted {
    Event event;
    Done done;
  };
  using Item = std::variant<Posted, Query>;

  void Push(Item item) {
    {
      const std::lock_guard lock(mutex_);
      queue_.push_back(std::move(item));
    }
    wake_.notify_one();
  }

  void Run() {
    Clock::time_point next_tick = Clock::now() + kTick;
    while (true) {
      std::deque<Item> batch;
      {
        std::unique_lock lock(mutex_);
        wake_.wait_until(lock, next_tick, [&] { return stopping_ || !queue_.empty(); });
        if (stopping_ && queue_.empty()) return;
        batch.swap(queue_);
      }
      for (Item& item : batch) Take(item);
      if (Clock::now() < next_tick) continue;
      Apply(coordinator::Tick{});
      if (callbacks_.after_tick) callbacks_.after_tick(state_, Now());
      next_tick = Clock::now() + kTick;
    }
  }

  void Take(Item& item) {
    if (Posted* posted = std::get_if<Posted>(&item)) {
      Apply(posted->event);
      if (posted->done) posted->done();
    } else {
      std::get<Query>(item)(state_, Now());
    }
  }

  void Apply(const Event& event) {
    std::vector<Action> actions = coordinator::Reduce(settings_, state_, event, Now());
    for (Action& action : actions) callbacks_.perform(action);
  }

  const coordinator::Settings settings_;
  const Callbacks callbacks_;
  State state_;  // the thread's own
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Item> queue_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<CoordinatorLoop> CoordinatorLoop::Start(const coordinator::Settings& settings,
                                                        uint64_t term, Callbacks callbacks) {
  return std::make_unique<Loop>(settings, term, std::move(callbacks));
}

}  // namespace annulus::rpc
