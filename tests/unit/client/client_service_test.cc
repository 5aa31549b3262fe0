// SPDX-License-Identifier: Apache-2.0
// The client library against real daemons: what it promises about faults, data paths and RPCs.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <thread>

#include "annulus/client.h"
#include "annulus/rank_client.h"
#include "client/cli/embedded_cluster.h"
#include "client/examples/naive_attention.h"
#include "client/src/coordinator_link.h"

namespace annulus::client {
namespace {

constexpr int64_t kLength = 67;
constexpr int kHeads = 2;
constexpr int kHeadDim = 32;

const examples::Sequence& TheSequence() {
  static const auto& sequence =
      *new examples::Sequence(examples::MakeSequence(kLength, kHeads, kHeadDim));
  return sequence;
}

const examples::NaiveResult& TheAnswer() {
  static const auto& answer =
      *new examples::NaiveResult(examples::NaiveCausalAttention(TheSequence()));
  return answer;
}

class ClientService : public testing::Test {
 protected:
  void StartCluster(int workers) {
    cli::EmbeddedClusterOptions options;
    options.workers = workers;
    options.program_folder = ANNULUS_PROGRAM_FOLDER;
    auto started = cli::EmbeddedCluster::Start(options);
    ASSERT_TRUE(started.ok()) << started.status();
    cluster_ = *std::move(started);
    auto connected = Client::Connect({.coordinator = cluster_->coordinator().listen});
    ASSERT_TRUE(connected.ok()) << connected.status();
    client_ = *std::move(connected);
    for (Tensor* tensor : {&q_, &k_, &v_, &d_o_, &o_, &dq_, &dk_, &dv_}) {
      *tensor = *client_->AllocateTensor(DataType::kF32, 1, kLength, kHeads, kHeadDim);
    }
    lse_ = *client_->AllocateTensor(DataType::kF32, 1, kLength, kHeads, 0);
    Fill(TheSequence().q, q_);
    Fill(TheSequence().k, k_);
    Fill(TheSequence().v, v_);
    Fill(TheSequence().d_o, d_o_);
    options_.mask.kind = MaskKind::kCausal;
    options_.deadline = absl::Seconds(30);
  }
  void Signal(const std::string& worker, int number) {
    for (const cli::ServiceAddresses& process : cluster_->addresses()) {
      if (process.name == worker) kill(process.pid, number);
    }
  }
  // Until a worker reports a step of a running request.
  void AwaitRunning() {
    auto link =
        CoordinatorLink::Connect(cluster_->coordinator().listen, absl::Now() + absl::Seconds(5));
    ASSERT_TRUE(link.ok()) << link.status();
    const absl::Time deadline = absl::Now() + absl::Seconds(10);
    while (absl::Now() < deadline) {
      const auto workers = (*link)->ListWorkers(deadline);
      ASSERT_TRUE(workers.ok()) << workers.status();
      for (const auto& worker : workers->workers()) {
        if (worker.progress_size() > 0) return;
      }
      absl::SleepFor(absl::Milliseconds(5));
    }
    FAIL() << "no request is running";
  }
  absl::StatusOr<AttendReport> Attend() {
    std::fill_n(o_.as<float>(), kLength * kHeads * kHeadDim, NAN);
    return client_->Attend({"g", q_, k_, v_, o_, lse_}, options_);
  }
  static void Fill(const std::vector<float>& from, const Tensor& to) {
    std::copy(from.begin(), from.end(), to.as<float>());
  }
  static double Error(const float* got, const std::vector<double>& want) {
    double worst = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      const double error = std::abs(got[i] - want[i]);
      worst = std::isnan(error) ? INFINITY : std::max(worst, error);
    }
    return worst;
  }
  void ExpectExact() {
    EXPECT_LT(Error(o_.as<float>(), TheAnswer().o), 1e-5);
    EXPECT_LT(Error(lse_.as<float>(), TheAnswer().lse), 1e-5);
  }

  std::unique_ptr<cli::EmbeddedCluster> cluster_;
  std::unique_ptr<Client> client_;
  AttendOptions options_;
  Tensor q_, k_, v_, d_o_, o_, lse_, dq_, dk_, dv_;
};

TEST_F(ClientService, EveryDataPathAndKindOfMemoryIsExact) {
  StartCluster(3);
  ASSERT_TRUE(client_->EnsureGroup({.name = "g", .size = 3}).ok());
  std::vector<float> plain(TheAnswer().o.size());
  const TensorView plain_o{plain.data(), DataType::kF32, 1, kLength, kHeads, kHeadDim};
  for (const Layout layout : {Layout::kContiguous, Layout::kZigzag, Layout::kStriped}) {
    options_.layout = layout;
    for (const DataPath path : {DataPath::kAuto, DataPath::kMemfd, DataPath::kStream}) {
      options_.data_path = path;
      const auto report = Attend();
      ASSERT_TRUE(report.ok()) << report.status();
      ExpectExact();
      const DataPath taken = path == DataPath::kStream ? DataPath::kStream : DataPath::kMemfd;
      for (const RankReport& rank : report->ranks) EXPECT_EQ(rank.data_path, taken);
      // Plain memory of the caller's is brought to the workers and back.
      std::fill(plain.begin(), plain.end(), NAN);
      ASSERT_TRUE(client_->Attend({"g", q_, k_, v_, plain_o, lse_}, options_).ok());
      EXPECT_LT(Error(plain.data(), TheAnswer().o), 1e-5);
    }
  }
}

TEST_F(ClientService, BackwardFromRetainedKvAndWithout) {
  StartCluster(4);
  ASSERT_TRUE(client_->EnsureGroup({.name = "g", .size = 4, .window_size = 2}).ok());
  options_.retain = true;
  const auto forward = Attend();
  ASSERT_TRUE(forward.ok()) << forward.status();
  for (const std::string& from : {forward->request_id, std::string()}) {
    for (const Tensor* tensor : {&dq_, &dk_, &dv_}) {
      std::fill_n(tensor->as<float>(), kLength * kHeads * kHeadDim, NAN);
    }
    const auto backward =
        client_->AttendBackward({"g", q_, k_, v_, o_, lse_, d_o_, dq_, dk_, dv_, from}, options_);
    ASSERT_TRUE(backward.ok()) << backward.status();
    EXPECT_LT(Error(dq_.as<float>(), TheAnswer().dq), 1e-5);
    EXPECT_LT(Error(dk_.as<float>(), TheAnswer().dk), 1e-5);
    EXPECT_LT(Error(dv_.as<float>(), TheAnswer().dv), 1e-5);
  }
  EXPECT_TRUE(client_->ReleaseRetained("g", forward->request_id).ok());
  const auto too_late = client_->AttendBackward(
      {"g", q_, k_, v_, o_, lse_, d_o_, dq_, dk_, dv_, forward->request_id}, options_);
  EXPECT_TRUE(absl::IsFailedPrecondition(too_late.status())) << too_late.status();
}

TEST_F(ClientService, AStoppedOrKilledWorkerIsNamedAndTheNextCallIsExact) {
  StartCluster(5);
  // Hops of some tenths of a second, so that the fault falls into the call.
  GroupOptions options{.name = "g", .size = 3, .inner_link = {.bytes_per_second = 30e3}};
  options.outer_link = options.inner_link;
  for (const int number : {SIGSTOP, SIGKILL}) {
    const auto group = client_->EnsureGroup(options);
    ASSERT_TRUE(group.ok()) << group.status();
    absl::StatusOr<AttendReport> failed = absl::UnknownError("");
    std::thread call([&] { failed = Attend(); });
    AwaitRunning();
    const std::string victim = group->members[1].worker;
    Signal(victim, number);
    const absl::Time struck = absl::Now();
    call.join();
    EXPECT_LT(absl::Now() - struck, absl::Seconds(3));
    ASSERT_FALSE(failed.ok());
    const auto detail = GetFaultDetail(failed.status());
    ASSERT_TRUE(detail) << failed.status();
    EXPECT_EQ(detail->metadata.at("worker"), victim) << failed.status();
    EXPECT_EQ(detail->metadata.at("rank"), "1") << failed.status();
    const auto next = Attend();
    ASSERT_TRUE(next.ok()) << next.status();
    ExpectExact();
    EXPECT_GT(next->epoch, group->epoch);
    if (number == SIGSTOP) {
      // The woken worker may finish what it was at: into memory that nobody looks at.
      Signal(victim, SIGCONT);
      ASSERT_TRUE(Attend().ok());
      ExpectExact();
    }
  }
}

TEST_F(ClientService, ALossBetweenCallsIsMadeGoodWithoutTheCallersHelp) {
  StartCluster(3);
  const auto group = client_->EnsureGroup({.name = "g", .size = 2});
  ASSERT_TRUE(group.ok()) << group.status();
  ASSERT_TRUE(Attend().ok());
  Signal(group->members[0].worker, SIGKILL);
  // The first call may still meet the loss; it ends soon, and the second one is exact.
  if (!Attend().ok()) {
    ASSERT_TRUE(Attend().ok());
  }
  ExpectExact();
}

TEST_F(ClientService, RefusalsComeBeforeAnyRpcAndSayWhy) {
  StartCluster(2);
  const auto unknown = Attend();
  EXPECT_TRUE(absl::IsNotFound(unknown.status()));
  EXPECT_NE(unknown.status().message().find("EnsureGroup"), absl::string_view::npos);
  ASSERT_TRUE(client_->EnsureGroup({.name = "g", .size = 2}).ok());
  const auto misfit = client_->Attend({"g", q_, k_, k_, lse_, lse_}, options_);
  EXPECT_TRUE(absl::IsInvalidArgument(misfit.status()));
  const auto other = client_->EnsureGroup({.name = "g", .size = 1});
  EXPECT_TRUE(absl::IsFailedPrecondition(other.status())) << other.status();
}

TEST_F(ClientService, RanksCallTogether) {
  StartCluster(3);
  std::vector<std::string> failures(3);
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 3; ++rank) {
    ranks.emplace_back([&, rank] {
      RankClientOptions attach{.coordinator = cluster_->coordinator().listen};
      attach.group = {.name = "spmd", .size = 3, .members = cluster_->worker_names()};
      attach.worker = cluster_->worker_names()[static_cast<size_t>(rank)];
      auto self = RankClient::Attach(attach);
      if (!self.ok()) {
        failures[static_cast<size_t>(rank)] = self.status().ToString();
        return;
      }
      for (const DataPath path : {DataPath::kMemfd, DataPath::kStream}) {
        const auto shard = (*self)->Shard(Layout::kStriped, kLength, kLength);
        std::vector<Tensor> t;
        for (int i = 0; i < 4; ++i) {
          t.push_back(
              *(*self)->AllocateTensor(DataType::kF32, 1, shard->q_rows(), kHeads, kHeadDim));
        }
        const auto lse = (*self)->AllocateTensor(DataType::kF32, 1, shard->q_rows(), kHeads, 0);
        constexpr int64_t kRow = kHeads * kHeadDim;
        int64_t row = 0;
        for (int64_t token = rank; token < kLength; token += 3, ++row) {
          std::copy_n(&TheSequence().q[token * kRow], kRow, t[0].as<float>() + row * kRow);
          std::copy_n(&TheSequence().k[token * kRow], kRow, t[1].as<float>() + row * kRow);
          std::copy_n(&TheSequence().v[token * kRow], kRow, t[2].as<float>() + row * kRow);
        }
        AttendOptions options = options_;
        options.layout = Layout::kStriped;
        options.data_path = path;
        const auto report =
            (*self)->Attend({kLength, kLength, t[0], t[1], t[2], t[3], *lse}, options);
        if (!report.ok()) failures[static_cast<size_t>(rank)] = report.status().ToString();
        row = 0;
        for (int64_t token = rank; token < kLength; token += 3, ++row) {
          for (int64_t i = 0; i < kRow; ++i) {
            const double want = TheAnswer().o[static_cast<size_t>(token * kRow + i)];
            if (!(std::abs(t[3].as<float>()[row * kRow + i] - want) < 1e-5)) {
              failures[static_cast<size_t>(rank)] = "wrong at token " + std::to_string(token);
            }
          }
        }
      }
    });
  }
  for (std::thread& rank : ranks) rank.join();
  for (const std::string& failure : failures) EXPECT_EQ(failure, "");
}

}  // namespace
}  // namespace annulus::client
