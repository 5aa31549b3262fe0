// SPDX-License-Identifier: Apache-2.0
// What is made of NVML's answers, over a library of that form which says what a test wants.
#include "server/machine/gpu_links.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/unit/machine/fake_nvml.h"

namespace annulus::machine {
namespace {

using ring::GpuLink;
using ring::GpuPeer;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kBusIds[kFakeGpus][16] = {"0000:1b:00.0", "0000:43:00.0", "0000:9d:00.0",
                                         "0000:c3:00.0"};
constexpr int kNotSupported = 3;

class GpuLinksTest : public testing::Test {
 protected:
  GpuLinksTest() : library_(dlopen(ANNULUS_FAKE_NVML_PATH, RTLD_NOW)) {
    machine_ = reinterpret_cast<NewFakeNvmlFunction*>(dlsym(library_, "NewFakeNvml"))();
    // Nothing is reached until a test says so.
    for (auto& how : machine_->access) {
      for (auto& from : how) {
        for (int& status : from) status = kNotSupported;
      }
    }
  }
  ~GpuLinksTest() override {
    EXPECT_EQ(machine_->inits, machine_->shutdowns) << "NVML was not shut down";
    dlclose(library_);
  }

  void Join(int from, int to, bool nvlink) {
    for (const int how : {0, 1}) machine_->access[how][from][to] = 0;
    if (nvlink) machine_->access[2][from][to] = 0;
  }
  static absl::StatusOr<GpuLinks> Read(const char* bus_id) {
    return ReadGpuLinks({.bus_id = bus_id, .library = ANNULUS_FAKE_NVML_PATH});
  }

  void* const library_;
  FakeNvml* machine_ = nullptr;
};

TEST_F(GpuLinksTest, TellsNvlinkFromPcieFromNothing) {
  Join(1, 0, /*nvlink=*/true);
  Join(1, 2, /*nvlink=*/false);
  const auto links = Read("0000:43:00.0");
  ASSERT_TRUE(links.ok()) << links.status();
  EXPECT_EQ(links->uuid, "GPU-0");
  EXPECT_FALSE(links->partitioned);
  EXPECT_THAT(links->peers, ElementsAre(GpuPeer{"0000:1b:00.0", GpuLink::kNvlink},
                                        GpuPeer{"0000:9d:00.0", GpuLink::kPcie},
                                        GpuPeer{"0000:c3:00.0", GpuLink::kNone}));
}

// Any table of answers: reading and writing have to be there, and NVLink without them counts not.
TEST_F(GpuLinksTest, EveryTableOfAnswersGivesItsLinks) {
  std::mt19937 random(7);
  for (int round = 0; round < 50; ++round) {
    for (auto& how : machine_->access) {
      for (auto& from : how) {
        for (int& status : from) status = random() % 2 == 0 ? 0 : static_cast<int>(random() % 7);
      }
    }
    const int self = static_cast<int>(random() % kFakeGpus);
    const auto links = Read(kBusIds[self]);
    ASSERT_TRUE(links.ok());
    ASSERT_EQ(links->peers.size(), kFakeGpus - 1u);
    for (int peer = 0, at = 0; peer < kFakeGpus; ++peer) {
      if (peer == self) continue;
      const auto allowed = [&](int how) { return machine_->access[how][self][peer] == 0; };
      const bool reached = allowed(0) && allowed(1);
      const GpuLink expected = !reached     ? GpuLink::kNone
                               : allowed(2) ? GpuLink::kNvlink
                                            : GpuLink::kPcie;
      EXPECT_EQ(links->peers[at++], (GpuPeer{kBusIds[peer], expected}));
    }
  }
}

TEST_F(GpuLinksTest, APeerThatNvmlDoesNotTellOfIsLeftOut) {
  machine_->access_result[2] = kNotSupported;
  machine_->find_result[3] = 4;  // no permission
  const auto links = Read("0000:1b:00.0");
  ASSERT_TRUE(links.ok());
  EXPECT_THAT(links->peers, ElementsAre(GpuPeer{"0000:43:00.0", GpuLink::kNone}));
  EXPECT_TRUE(NamesAll(links->peers, {"0000:1b:00.0", "0000:43:00.0"}, "0000:1b:00.0"));
  EXPECT_FALSE(NamesAll(links->peers, {"0000:43:00.0", "0000:9d:00.0"}, "0000:1b:00.0"));
}

TEST_F(GpuLinksTest, APartitionedGpuReachesNoOther) {
  Join(0, 1, /*nvlink=*/true);
  machine_->mig = 1;
  const auto links = Read("0000:1b:00.0");
  ASSERT_TRUE(links.ok());
  EXPECT_TRUE(links->partitioned);
  for (const GpuPeer& peer : links->peers) EXPECT_EQ(peer.link, GpuLink::kNone);
}

TEST_F(GpuLinksTest, ANonsensicalCountOrTextDoesNoHarm) {
  machine_->gpus = 2'000'000'000;
  machine_->uuid = "GPU-\x01";
  const auto links = Read("0000:1b:00.0");
  ASSERT_TRUE(links.ok());
  EXPECT_EQ(links->peers.size(), kFakeGpus - 1u);
  EXPECT_EQ(links->uuid, "");
}

TEST_F(GpuLinksTest, SaysWhatIsMissing) {
  EXPECT_EQ(Read("0000:77:00.0").status().message(), "NVML knows no GPU 0000:77:00.0");
  machine_->init_result = 9;
  const absl::Status driver = Read("0000:1b:00.0").status();
  EXPECT_EQ(driver.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(driver.message(), "nvmlInit: Driver Not Loaded");
  const absl::Status none =
      ReadGpuLinks({.bus_id = kBusIds[0], .library = "/none/libnvidia-ml.so.1"}).status();
  EXPECT_EQ(none.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(none.message()), HasSubstr("/none/libnvidia-ml.so.1"));
  const absl::Status old =
      ReadGpuLinks({.bus_id = kBusIds[0], .library = ANNULUS_OLD_NVML_PATH}).status();
  EXPECT_EQ(old.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(old.message()), HasSubstr("has no nvmlDeviceGetP2PStatus"));
}

TEST_F(GpuLinksTest, ADriverThatHangsHoldsUpNobody) {
  machine_->hangs = true;
  const absl::Status status =
      ReadGpuLinks({.bus_id = kBusIds[0], .library = ANNULUS_FAKE_NVML_PATH, .limit_seconds = 0.01})
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr("NVML did not answer within 0.01 s"));
  std::unique_lock lock(machine_->mutex);
  machine_->hangs = false;
  machine_->changed.notify_all();
  // The thread that was left behind ends by itself.
  machine_->changed.wait(lock, [&] { return machine_->shutdowns == 1; });
}

}  // namespace
}  // namespace annulus::machine
