// SPDX-License-Identifier: Apache-2.0
// The profiler plugin as NCCL drives it: through its table, in every order, from several threads.
#include "server/transport/nccl/profiler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/under_sanitizer.h"

namespace annulus::transport::nccl {
namespace {

const ProfilerV5& Table() { return *NcclProfiler(); }

// A communicator as NCCL has it.
class ProfiledNccl {
 public:
  explicit ProfiledNccl(const char* name, int index = 0, NcclLog log = nullptr) {
    EXPECT_EQ(Table().init(&context_, 1, &mask_, name, 1, 2, index, log), 0);
  }
  ~ProfiledNccl() { EXPECT_EQ(Table().finalize(context_), 0); }
  ProfiledNccl(const ProfiledNccl&) = delete;
  ProfiledNccl& operator=(const ProfiledNccl&) = delete;

  void* Start(uint64_t type, void* parent = nullptr, uint64_t timer_ns = 0) const {
    ProfilerEvent event{.type = type, .parent = parent, .timer_ns = timer_ns};
    void* handle = &event;
    EXPECT_EQ(Table().start_event(context_, &handle, &event), 0);
    return handle;
  }
  void* Post() const { return Start(kProfileP2p); }
  void* Run(void* parent, uint64_t timer_ns) const {
    return Start(kProfileKernelChannel, parent, timer_ns);
  }
  static void Stamp(void* channel, uint64_t timer_ns) {
    ProfilerState args{timer_ns};
    EXPECT_EQ(Table().record_event_state(channel, kKernelChannelStop, &args), 0);
  }
  static void Stop(void* handle) { EXPECT_EQ(Table().stop_event(handle), 0); }
  static void End(void* channel, uint64_t timer_ns) {
    Stamp(channel, timer_ns);
    Stop(channel);
  }

  void* context() const { return context_; }
  int mask() const { return mask_; }

 private:
  void* context_ = nullptr;
  int mask_ = 0;
};

void ExpectSpan(const std::optional<KernelSpan>& span, uint64_t start_ns, uint64_t stop_ns) {
  ASSERT_TRUE(span.has_value());
  EXPECT_EQ(span->start_ns, start_ns);
  EXPECT_EQ(span->stop_ns, stop_ns);
}

TEST(ProfilerTest, AsksForSendsAndTheirChannelsFromTheFirstCommunicatorOn) {
  const ProfiledNccl first("first");
  const ProfiledNccl second(nullptr);
  EXPECT_EQ(first.mask(), (1 << 2) | (1 << 6));
  EXPECT_EQ(second.mask(), first.mask());
}

TEST(ProfilerTest, FindsACommunicatorByNameAndIndexWhileItIsThereAndUnmistakable) {
  EXPECT_FALSE(ProfiledComm::Find("g/1/inner", 0).has_value());
  {
    const ProfiledNccl nccl("g/1/inner");
    EXPECT_TRUE(ProfiledComm::Find("g/1/inner", 0).has_value());
    EXPECT_FALSE(ProfiledComm::Find("g/1/inner", 1).has_value());
    EXPECT_FALSE(ProfiledComm::Find("g/2/inner", 0).has_value());
    const ProfiledNccl twin("g/1/inner");
    EXPECT_FALSE(ProfiledComm::Find("g/1/inner", 0).has_value());
  }
  EXPECT_FALSE(ProfiledComm::Find("g/1/inner", 0).has_value());
}

// One of two sends; each of their two channels starts, is stamped and stops, each send is stopped.
TEST(ProfilerTest, EveryOrderOfStartsAndStopsGivesTheSameSpan) {
  const ProfiledNccl nccl("orders");
  const auto comm = ProfiledComm::Find("orders", 0);
  ASSERT_TRUE(comm.has_value());
  // Channel c: 2c starts, 2c + 1 stops; 8 and 9 stop the sends.
  std::vector<int> order = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  const std::vector<uint64_t> starts = {70, 50, 60, 80};
  const std::vector<uint64_t> stops = {90, 75, 120, 100};
  std::mt19937 random(1);
  for (int round = 0; round < (kUnderSanitizer ? 200 : 5000); ++round) {
    std::shuffle(order.begin(), order.end(), random);
    const uint64_t from = comm->posted();
    const std::vector<void*> sends = {nccl.Post(), nccl.Post()};
    ASSERT_EQ(comm->posted(), from + 2);
    std::vector<void*> channels(4);
    std::vector<bool> wanted(4);  // told to stop before it was told to start: later
    int running = 0;
    int begun = 0;
    for (const int step : order) {
      if (step >= 8) {
        nccl.Stop(sends[static_cast<size_t>(step - 8)]);
        continue;
      }
      const auto channel = static_cast<size_t>(step / 2);
      if (step % 2 == 0) {
        channels[channel] = nccl.Run(sends[channel / 2], starts[channel]);
        ASSERT_NE(channels[channel], nullptr);
        ++running;
        ++begun;
      }
      if (step % 2 == 1) wanted[channel] = true;
      if (wanted[channel] && channels[channel] != nullptr) {
        nccl.End(channels[channel], stops[channel]);
        --running;
      }
      if (running > 0 || begun < 2) {
        EXPECT_FALSE(comm->SpanOf(from, from + 2).has_value());
      }
    }
    ExpectSpan(comm->SpanOf(from, from + 2), 50, 120);
    ExpectSpan(comm->SpanOf(from, from + 1), 50, 90);
    ExpectSpan(comm->SpanOf(from + 1, from + 2), 60, 120);
    EXPECT_FALSE(comm->SpanOf(from, from).has_value());
  }
  EXPECT_EQ(comm->dropped(), 0u);
}

TEST(ProfilerTest, WithoutAllItsStampsASpanIsUnknown) {
  const ProfiledNccl nccl("unknown");
  const auto comm = ProfiledComm::Find("unknown", 0);
  ASSERT_TRUE(comm.has_value());
  const uint64_t from = comm->posted();
  void* const send = nccl.Post();
  nccl.Stop(send);
  EXPECT_FALSE(comm->SpanOf(from, from + 1).has_value()) << "no channel";
  nccl.End(nccl.Run(send, 5), 9);
  ExpectSpan(comm->SpanOf(from, from + 1), 5, 9);
  nccl.Stop(nccl.Run(send, 6));
  EXPECT_FALSE(comm->SpanOf(from, from + 1).has_value()) << "stopped without a stamp";
  void* const other = nccl.Post();
  nccl.End(nccl.Run(other, 5), 9);
  EXPECT_EQ(nccl.Run(other, 0), nullptr);
  EXPECT_FALSE(comm->SpanOf(from + 1, from + 2).has_value()) << "started without one";
  EXPECT_EQ(comm->dropped(), 1u);
  EXPECT_FALSE(comm->SpanOf(from + 2, from + 3).has_value()) << "never posted";
}

TEST(ProfilerTest, AnEndBeforeTheStartIsClamped) {
  const ProfiledNccl nccl("clamped");
  const auto comm = ProfiledComm::Find("clamped", 0);
  ASSERT_TRUE(comm.has_value());
  const uint64_t from = comm->posted();
  nccl.End(nccl.Run(nccl.Post(), 100), 40);
  ExpectSpan(comm->SpanOf(from, from + 1), 100, 100);
}

TEST(ProfilerTest, WhatIsHeldIsNotOverwrittenAndWhatIsNotIs) {
  const ProfiledNccl nccl("full");
  const auto comm = ProfiledComm::Find("full", 0);
  ASSERT_TRUE(comm.has_value());
  const uint64_t from = comm->posted();
  std::vector<void*> sends;
  for (uint64_t i = 0; i < ProfiledComm::kEvents; ++i) sends.push_back(nccl.Post());
  void* const channel = nccl.Run(sends[0], 7);
  nccl.Stop(sends[0]);
  nccl.Stop(sends[1]);
  EXPECT_EQ(nccl.Post(), nullptr) << "a channel runs";
  EXPECT_EQ(comm->dropped(), 1u);
  nccl.Stamp(channel, 8);
  void* const reused = nccl.Post();
  EXPECT_NE(reused, nullptr);
  EXPECT_EQ(nccl.Post(), nullptr) << "not stopped yet";
  ExpectSpan(comm->SpanOf(from, from + 1), 7, 8);
  // What was forgotten takes no more channels, and does not disturb what has its place.
  EXPECT_EQ(nccl.Run(sends[1], 1), nullptr);
  nccl.Stop(sends[1]);
  nccl.End(nccl.Run(reused, 20), 30);
  EXPECT_FALSE(comm->SpanOf(from + 1, from + 2).has_value());
  const uint64_t at = from + ProfiledComm::kEvents + 2;
  ExpectSpan(comm->SpanOf(at - 1, at), 20, 30);
  EXPECT_EQ(comm->dropped(), 3u);
}

TEST(ProfilerTest, TakesWhateverItIsGiven) {
  const ProfiledNccl nccl("whatever");
  const auto comm = ProfiledComm::Find("whatever", 0);
  ASSERT_TRUE(comm.has_value());
  for (int bit = 0; bit < 64; ++bit) {
    if (bit != 2 && bit != 6) {
      EXPECT_EQ(nccl.Start(uint64_t{1} << bit), nullptr);
    }
  }
  EXPECT_EQ(nccl.Run(nullptr, 1), nullptr);
  EXPECT_EQ(Table().start_event(nccl.context(), nullptr, nullptr), 0);
  void* handle = &handle;
  EXPECT_EQ(Table().start_event(nccl.context(), &handle, nullptr), 0);
  EXPECT_EQ(handle, nullptr);
  ProfilerEvent event{.type = kProfileP2p};
  EXPECT_EQ(Table().start_event(nullptr, &handle, &event), 0);  // a communicator too many
  EXPECT_EQ(handle, nullptr);
  std::mt19937_64 random(2);
  const uint64_t from = comm->posted();
  void* const send = nccl.Post();
  nccl.End(nccl.Run(send, 3), 4);
  for (int i = 0; i < 10'000; ++i) {
    uint64_t number = random() >> (random() % 64);
    if (number >> 6 == from + 1) continue;  // the one that is real
    void* const wild = std::bit_cast<void*>(number);
    nccl.Run(wild, number);
    nccl.Stop(wild);
    ProfilerState args{number};
    Table().record_event_state(wild, static_cast<int>(random() % 40), i % 2 == 0 ? &args : nullptr);
  }
  ExpectSpan(comm->SpanOf(from, from + 1), 3, 4);
  EXPECT_EQ(Table().finalize(nullptr), 0);
}

TEST(ProfilerTest, CommunicatorsBeyondTheRoomAreLeftOutAndThePlaceOfOneComesBack) {
  std::vector<std::unique_ptr<ProfiledNccl>> comms;
  for (int i = 0; i < 17; ++i) comms.push_back(std::make_unique<ProfiledNccl>("many", i));
  EXPECT_TRUE(ProfiledComm::Find("many", 15).has_value());
  EXPECT_FALSE(ProfiledComm::Find("many", 16).has_value());
  EXPECT_EQ(comms[16]->mask(), comms[0]->mask());
  EXPECT_EQ(comms[16]->Post(), nullptr);
  void* const left = comms[3]->Post();
  void* const left_channel = comms[3]->Run(left, 1);
  comms[3].reset();
  const ProfiledNccl next("next");
  const auto comm = ProfiledComm::Find("next", 0);
  ASSERT_TRUE(comm.has_value());
  const uint64_t from = comm->posted();
  void* const send = next.Post();
  next.End(left_channel, 99);  // of the one before, late
  EXPECT_EQ(next.Run(left, 1), nullptr);
  next.End(next.Run(send, 10), 20);
  ExpectSpan(comm->SpanOf(from, from + 1), 10, 20);
}

std::atomic<int> logged{0};
void CountLog(int, unsigned long, const char*, int, const char*, ...) { logged.fetch_add(1); }

TEST(ProfilerTest, TellsWhatWasDroppedAtTheEnd) {
  { const ProfiledNccl nccl("good", 0, CountLog); }
  EXPECT_EQ(logged.load(), 0);
  {
    const ProfiledNccl nccl("lossy", 0, CountLog);
    nccl.Run(nccl.Post(), 0);
  }
  EXPECT_EQ(logged.load(), 1);
}

// Two communicators, each with a thread that posts, two that run its channels and one that reads.
TEST(ProfilerTest, FromManyThreadsEverySpanThatIsKnownIsThatOfTheModel) {
  constexpr uint64_t kPosts = kUnderSanitizer ? 3000 : 30'000;
  struct Side {
    explicit Side(int index) : nccl("threads", index), sends(kPosts) {}
    ProfiledNccl nccl;
    std::vector<std::atomic<void*>> sends;
    std::atomic<uint64_t> posted{0};
    std::atomic<uint64_t> known{0};
  };
  Side first(0);
  Side second(1);
  std::vector<std::thread> threads;
  for (Side* side : {&first, &second}) {
    const uint64_t base = side == &first ? 1'000 : 900'000'000;
    const auto comm = ProfiledComm::Find("threads", side == &first ? 0 : 1);
    ASSERT_TRUE(comm.has_value());
    const uint64_t from = comm->posted();
    threads.emplace_back([side] {
      for (uint64_t i = 0; i < kPosts; ++i) {
        void* const send = side->nccl.Post();
        side->sends[i].store(send);
        side->posted.store(i + 1, std::memory_order_release);
        ProfiledNccl::Stop(send);
      }
    });
    for (uint64_t channel = 0; channel < 2; ++channel) {
      threads.emplace_back([side, base, channel] {
        for (uint64_t i = 0; i < kPosts; ++i) {
          while (side->posted.load(std::memory_order_acquire) <= i) std::this_thread::yield();
          void* const run = side->nccl.Run(side->sends[i].load(), base + 10 * i + channel);
          ProfiledNccl::End(run, base + 10 * i + 8 + channel);
        }
      });
    }
    threads.emplace_back([side, comm, base, from] {
      for (uint64_t i = 0; i < kPosts; ++i) {
        while (side->posted.load(std::memory_order_acquire) <= i) std::this_thread::yield();
        const auto span = comm->SpanOf(from + i, from + i + 1);
        if (!span.has_value()) continue;
        side->known.fetch_add(1);
        // One channel alone, until the other is told of.
        const uint64_t start = span->start_ns - base - 10 * i;
        const uint64_t stop = span->stop_ns - base - 10 * i;
        EXPECT_LE(start, 1u);
        EXPECT_TRUE(stop == 8 || stop == 9) << stop;
        EXPECT_LE(stop - start, 9u);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Side* side : {&first, &second}) {
    const auto comm = ProfiledComm::Find("threads", side == &first ? 0 : 1);
    ASSERT_TRUE(comm.has_value());
    const uint64_t base = side == &first ? 1'000 : 900'000'000;
    uint64_t known = 0;
    for (uint64_t back = 0; back < 100; ++back) {
      const uint64_t i = kPosts - 1 - back;
      const auto span = comm->SpanOf(comm->posted() - 1 - back, comm->posted() - back);
      if (side->sends[i].load() == nullptr || !span.has_value()) continue;
      ++known;
      EXPECT_GE(span->start_ns, base + 10 * i);
      EXPECT_LE(span->stop_ns, base + 10 * i + 9);
    }
    // The last ones had their place, unless something was dropped.
    EXPECT_GE(known + comm->dropped(), 100u);
  }
}

TEST(ProfilerTest, IsOfferedToNcclUnlessAnotherIsNamed) {
  ::unsetenv("NCCL_PROFILER_PLUGIN");
  OfferProfiler();
  const char* const offered = std::getenv("NCCL_PROFILER_PLUGIN");
  ASSERT_NE(offered, nullptr);
  EXPECT_NE(std::string(offered).find("nccl_profiler_test"), std::string::npos) << offered;
  ::setenv("NCCL_PROFILER_PLUGIN", "another", 1);
  OfferProfiler();
  EXPECT_STREQ(std::getenv("NCCL_PROFILER_PLUGIN"), "another");
}

// The true distance of the clocks drifts by up to 100 ppm. A stamp is never early, and late by no
// more than the least delay so far and what the bound gave way since.
TEST(GlobaltimerClockTest, IsAsGoodAsTheBestGoSoFar) {
  std::mt19937_64 random(3);
  const auto pick = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  for (int clock_index = 0; clock_index < 50; ++clock_index) {
    GlobaltimerClock clock;
    const int64_t drift_ppm = pick(-100, 100);
    const int64_t distance_ns = pick(-2'000'000'000'000'000'000, 0);
    int64_t now_ns = pick(1, 1'000'000'000'000);
    const int64_t origin_ns = now_ns;
    const auto gpu = [&](int64_t mono_ns) {
      return static_cast<uint64_t>(mono_ns - distance_ns -
                                   (mono_ns - origin_ns) * drift_ppm / 1'000'000);
    };
    double allowed_ns = 1e18;
    int64_t last_ns = now_ns;
    for (int go = 0; go < 200; ++go) {
      const int64_t called_ns = now_ns;
      const int64_t start_ns = called_ns + pick(1000, 50'000);
      const int64_t end_ns = start_ns + pick(1000, 20'000'000);
      const int64_t delay_ns = pick(1000, pick(0, 9) == 0 ? 5'000'000 : 30'000);
      const int64_t seen_ns = end_ns + delay_ns;
      now_ns = seen_ns + pick(0, 10'000'000);
      const auto stamps =
          clock.Map({gpu(start_ns), gpu(end_ns)}, called_ns, end_ns - start_ns + 5000, seen_ns);
      ASSERT_TRUE(stamps.has_value());
      ASSERT_LE(called_ns, stamps->start_ns);
      ASSERT_LE(stamps->start_ns, stamps->end_ns);
      ASSERT_LE(stamps->end_ns, seen_ns);
      const auto passed_ns = static_cast<double>(seen_ns - last_ns);
      allowed_ns = std::min(allowed_ns + passed_ns * 600e-6 + 3, static_cast<double>(delay_ns));
      last_ns = seen_ns;
      ASSERT_GE(stamps->end_ns, end_ns - 3);
      ASSERT_LE(static_cast<double>(stamps->end_ns - end_ns), allowed_ns + 3 + 5'000'000 * 100e-6);
    }
  }
}

TEST(GlobaltimerClockTest, RefusesWhatCannotBeOfThisGoAndSurvivesAStep) {
  GlobaltimerClock clock;
  const KernelSpan span{5'000'000'000, 5'002'000'000};
  EXPECT_FALSE(clock.Map(span, 1000, 2'500'000, 1'500'000).has_value()) << "more than all of it";
  EXPECT_FALSE(clock.Map(span, 1000, 900'000, 3'000'000).has_value()) << "more than its events";
  ASSERT_TRUE(clock.Map(span, 1000, 2'100'000, 2'101'000).has_value());
  const KernelSpan stepped{9'000'000'000, 9'000'100'000};
  const auto stamps = clock.Map(stepped, 4'000'000, 110'000, 4'200'000);
  ASSERT_TRUE(stamps.has_value());
  EXPECT_EQ(stamps->end_ns, 4'200'000);
  EXPECT_EQ(stamps->start_ns, 4'100'000);
  const KernelSpan back{1'000'000'000, 1'000'100'000};
  const auto after = clock.Map(back, 5'000'000, 110'000, 5'200'000);
  ASSERT_TRUE(after.has_value());
  EXPECT_EQ(after->end_ns, 5'200'000);
}

}  // namespace
}  // namespace annulus::transport::nccl
