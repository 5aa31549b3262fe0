// SPDX-License-Identifier: Apache-2.0
// Tensors in device memory of this process over faults of real workers: what is leased from a group
// that loses a worker, on devices apart from the host.
#include "client/cli/device_memory/device_ring.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <memory>
#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "annulus/client.h"
#include "client/cli/child_process.h"
#include "client/cli/device_memory/client_memory.h"
#include "client/cli/embedded_cluster.h"
#include "client/cli/verify.h"
#include "client/src/coordinator_link.h"

namespace annulus::cli {
namespace {

using testing::HasSubstr;

constexpr int kRanks = 3;

class DeviceRingFault : public testing::Test {
 protected:
  void SetUp() override {
    EmbeddedClusterOptions cluster;
    cluster.workers = kRanks;
    cluster.threads = 1;
    cluster.compute_plugin = ANNULUS_APART_PLUGIN;
    cluster.program_folder = ANNULUS_PROGRAM_FOLDER;
    auto started = EmbeddedCluster::Start(cluster);
    ASSERT_TRUE(started.ok()) << started.status();
    cluster_ = *std::move(started);
    auto connected = client::Client::Connect({.coordinator = coordinator()});
    ASSERT_TRUE(connected.ok()) << connected.status();
    client_ = *std::move(connected);
    flags_.backward = true;
    flags_.shape.mask = "causal";
    flags_.shape.context_parallel_size = kRanks;
    flags_.compute_plugin = ANNULUS_APART_PLUGIN;
    problem_ = {1, 300, 300, 4, 2, 32, client::DataType::kF32};
    group_ = {.name = "g", .size = kRanks};
    // A hop takes some tenths of a second, so that a fault falls into the middle of a call.
    group_.inner_link = {.bytes_per_second = 1.2e5, .latency_seconds = 0};
    options_.mask.kind = client::MaskKind::kCausal;
    options_.retain = true;
    options_.deadline = absl::Seconds(30);
  }

  const std::string& coordinator() const { return cluster_->coordinator().listen; }

  void MakeRing() {
    auto tensors = MakeTensors(client_.get(), problem_, flags_, std::nullopt);
    ASSERT_TRUE(tensors.ok()) << tensors.status();
    tensors_ = *std::move(tensors);
    const auto group = client_->EnsureGroup(group_);
    ASSERT_TRUE(group.ok()) << group.status();
    auto memory =
        ChooseClientMemory(flags_, coordinator(), *group, absl::Now() + absl::Seconds(10));
    ASSERT_TRUE(memory.ok()) << memory.status();
    memory_ = *std::move(memory);
    ASSERT_TRUE(memory_.on_device()) << memory_.reason;
    DeviceRingOptions options{coordinator(), "test", group_, memory_.workers, memory_.of_rank};
    auto ring = DeviceRing::Create(options, problem_, flags_.backward);
    ASSERT_TRUE(ring.ok()) << ring.status();
    ring_ = *std::move(ring);
    ASSERT_TRUE(ring_->Upload(tensors_).ok());
  }

  // Kills the worker once it is seen to work on a request.
  void KillInTheMiddle(const std::string& victim) {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    const auto link = client::CoordinatorLink::Connect(coordinator(), deadline);
    ASSERT_TRUE(link.ok()) << link.status();
    for (bool running = false; !running; absl::SleepFor(absl::Milliseconds(5))) {
      ASSERT_LT(absl::Now(), deadline) << "no request is running";
      const auto workers = (*link)->ListWorkers(deadline);
      ASSERT_TRUE(workers.ok()) << workers.status();
      for (const auto& worker : workers->workers()) {
        running = running || (worker.hello().name() == victim && worker.progress_size() > 0);
      }
    }
    for (const ServiceAddresses& process : cluster_->addresses()) {
      if (process.name == victim) kill(process.pid, SIGKILL);
    }
  }

  void Replace(const std::string& worker) {
    auto child = ChildProcess::Start(
        ANNULUS_PROGRAM_FOLDER "/annulus-worker",
        {"--coordinator", coordinator(), "--name", worker, "--node", "node-0", "--listen",
         "127.0.0.1:0", "--threads", "1", "--compute-plugin", ANNULUS_APART_PLUGIN});
    ASSERT_TRUE(child.ok()) << child.status();
    replacement_ = *std::move(child);
  }

  void ExpectExact() {
    const auto forward = ring_->Attend(options_);
    ASSERT_TRUE(forward.ok()) << forward.status();
    EXPECT_EQ(forward->ranks.size(), static_cast<size_t>(kRanks));
    const auto backward = ring_->AttendBackward(forward->request_id, options_);
    ASSERT_TRUE(backward.ok()) << backward.status();
    ASSERT_TRUE(ring_->Download(tensors_).ok());
    for (const Check& check : Verify(flags_, problem_, tensors_).checks) {
      EXPECT_TRUE(check.passed()) << check.name << ": " << check.error;
    }
  }

  std::unique_ptr<EmbeddedCluster> cluster_;
  std::unique_ptr<ChildProcess> replacement_;
  std::unique_ptr<client::Client> client_;
  RunFlags flags_;
  Problem problem_;
  client::GroupOptions group_;
  client::AttendOptions options_;
  ClientMemory memory_;
  ProblemTensors tensors_;
  std::unique_ptr<DeviceRing> ring_;
};

TEST_F(DeviceRingFault, AWorkerKilledOnLeasedMemoryIsNamedAndTheNextRunOnItIsExact) {
  MakeRing();
  const std::string victim = memory_.workers[1];
  absl::StatusOr<client::AttendReport> failed;
  std::thread call([&] { failed = ring_->Attend(options_); });
  KillInTheMiddle(victim);
  call.join();
  ASSERT_FALSE(failed.ok()) << "the fault fell behind the call";
  EXPECT_THAT(std::string(failed.status().message()), HasSubstr(victim));
  Replace(victim);
  const absl::Status attached = ring_->Reattach();
  ASSERT_TRUE(attached.ok()) << attached;
  ExpectExact();
}

TEST_F(DeviceRingFault, ASecondRingOnTheSameWorkersIsExactBesideTheFirst) {
  group_.inner_link = {};
  MakeRing();
  ExpectExact();
  const ClientMemory devices = std::move(memory_);
  const std::unique_ptr<DeviceRing> first = std::move(ring_);  // goes before its devices
  MakeRing();
  ExpectExact();
}

}  // namespace
}  // namespace annulus::cli
