// SPDX-License-Identifier: Apache-2.0
// A worker's session with a coordinator that does what the test says, over a real channel.
#include "server/rpc/coordinator_session.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "annulus/v1/coordinator.grpc.pb.h"
#include "server/rpc/channel_args.h"
#include "tests/support/fake_engine.h"
#include "tests/support/recording_sink.h"

namespace annulus::rpc {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using testing_support::FakeEngine;
using testing_support::RecordingSink;
using Stream = grpc::ServerReaderWriter<v1::WorkerCommand, v1::WorkerMessage>;

constexpr auto kPatience = std::chrono::seconds(10);

// Keeps what workers say and sends what the test wants.
class ScriptedCoordinator : public v1::Coordinator::Service {
 public:
  explicit ScriptedCoordinator(int port = 0) {
    grpc::ServerBuilder builder;
    ApplyServerSettings(&builder);
    builder.AddListeningPort("127.0.0.1:" + std::to_string(port), grpc::InsecureServerCredentials(),
                             &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~ScriptedCoordinator() override {
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
  }

  int port() const { return port_; }

  grpc::Status WorkerSession(grpc::ServerContext* context, Stream* stream) override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stream_ = stream;
      context_ = context;
      changed_.notify_all();
    }
    v1::WorkerMessage message;
    while (stream->Read(&message)) {
      const std::lock_guard<std::mutex> lock(mutex_);
      messages_.push_back(message);
      changed_.notify_all();
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    stream_ = nullptr;
    context_ = nullptr;
    return grpc::Status::OK;
  }

  grpc::Status GetPlan(grpc::ServerContext*, const v1::GetPlanRequest* request,
                       v1::GetPlanResponse* response) override {
    if (request->digest() != "known") return {grpc::StatusCode::NOT_FOUND, "no such plan"};
    response->set_json("{}");
    return grpc::Status::OK;
  }

  // The next message of that kind; others before it are passed over.
  v1::WorkerMessage Await(v1::WorkerMessage::MessageCase kind) {
    std::unique_lock<std::mutex> lock(mutex_);
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (true) {
      while (!messages_.empty()) {
        v1::WorkerMessage message = std::move(messages_.front());
        messages_.pop_front();
        if (message.message_case() == kind) return message;
      }
      if (changed_.wait_until(lock, deadline) == std::cv_status::timeout) {
        ADD_FAILURE() << "no message of kind " << kind;
        return {};
      }
    }
  }

  void Send(const v1::WorkerCommand& command) {
    const std::lock_guard<std::mutex> lock(mutex_);
    ASSERT_NE(stream_, nullptr);
    ASSERT_TRUE(stream_->Write(command));
  }

  void Welcome(uint64_t term = 5, int interval_ms = 20, int lease_ms = 5000) {
    Await(v1::WorkerMessage::kHello);
    v1::WorkerCommand command;
    command.mutable_welcome()->set_term(term);
    command.mutable_welcome()->set_heartbeat_interval_ms(interval_ms);
    command.mutable_welcome()->set_lease_ms(lease_ms);
    Send(command);
  }

  void CutStream() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (context_ != nullptr) context_->TryCancel();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<v1::WorkerMessage> messages_;
  Stream* stream_ = nullptr;
  grpc::ServerContext* context_ = nullptr;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

class CoordinatorSessionTest : public ::testing::Test {
 protected:
  void Start(int port) {
    CoordinatorSessionOptions options;
    options.coordinator_address = "127.0.0.1:" + std::to_string(port);
    options.identity.name = "w0";
    options.identity.incarnation = 42;
    options.identity.address = "127.0.0.1:1";
    options.identity.memory_limit_bytes = 1 << 20;
    session_ = CoordinatorSession::Start(options, &engine_, &sink_);
  }
  void StartWelcomed() {
    Start(coordinator_.port());
    coordinator_.Welcome();
    ASSERT_TRUE(engine_.AwaitEvent("term 5"));
  }

  ScriptedCoordinator coordinator_;
  FakeEngine engine_;
  RecordingSink sink_;
  std::unique_ptr<CoordinatorSession> session_;
};

v1::WorkerCommand Prepare(uint64_t epoch) {
  v1::WorkerCommand command;
  v1::PrepareGroup* prepare = command.mutable_prepare();
  prepare->set_group("g");
  prepare->set_epoch(epoch);
  prepare->set_rank(1);
  prepare->mutable_options()->set_size(2);
  for (int rank = 0; rank < 2; ++rank) {
    v1::GroupMember* member = prepare->add_members();
    member->set_rank(rank);
    member->set_worker("w" + std::to_string(rank));
  }
  return command;
}

v1::WorkerCommand Connect(uint64_t epoch) {
  v1::WorkerCommand command;
  command.mutable_connect()->set_group("g");
  command.mutable_connect()->set_epoch(epoch);
  command.mutable_connect()->add_transport_handles("a");
  command.mutable_connect()->add_transport_handles("b");
  return command;
}

v1::WorkerCommand Fault(uint64_t epoch) {
  v1::WorkerCommand command;
  command.mutable_fault()->set_group("g");
  command.mutable_fault()->set_epoch(epoch);
  command.mutable_fault()->set_reason("WORKER_LOST");
  return command;
}

TEST_F(CoordinatorSessionTest, SaysHelloAndBeats) {
  worker::Progress progress;
  progress.fence.group = "g";
  progress.fence.request_id = "r";
  progress.step = 4;
  progress.hop = 9;
  progress.waiting_for_rank = 1;
  progress.advances = 123;
  engine_.running = {progress};
  Start(coordinator_.port());
  const v1::WorkerHello hello = coordinator_.Await(v1::WorkerMessage::kHello).hello();
  EXPECT_EQ(hello.name(), "w0");
  EXPECT_EQ(hello.incarnation(), 42u);
  EXPECT_EQ(hello.memory_limit_bytes(), 1u << 20);
  v1::WorkerCommand welcome;
  welcome.mutable_welcome()->set_term(5);
  welcome.mutable_welcome()->set_heartbeat_interval_ms(20);
  welcome.mutable_welcome()->set_lease_ms(5000);
  coordinator_.Send(welcome);

  const auto first = coordinator_.Await(v1::WorkerMessage::kHeartbeat).heartbeat();
  const auto second = coordinator_.Await(v1::WorkerMessage::kHeartbeat).heartbeat();
  EXPECT_EQ(second.sequence(), first.sequence() + 1);
  EXPECT_EQ(first.used_bytes(), 4096u);
  ASSERT_EQ(first.progress_size(), 1);
  EXPECT_EQ(first.progress(0).fence().request_id(), "r");
  EXPECT_EQ(first.progress(0).fence().step(), 4);
  EXPECT_EQ(first.progress(0).fence().hop(), 9);
  EXPECT_EQ(first.progress(0).waiting_for_rank(), 1);
  EXPECT_EQ(first.progress(0).advances(), 123u);
}

TEST_F(CoordinatorSessionTest, FormsAGroup) {
  StartWelcomed();
  coordinator_.Send(Prepare(3));
  const auto prepared = coordinator_.Await(v1::WorkerMessage::kPrepared).prepared();
  EXPECT_EQ(prepared.group(), "g");
  EXPECT_EQ(prepared.epoch(), 3u);
  EXPECT_EQ(prepared.error(), "");
  ASSERT_EQ(prepared.transport_handle().size(), 128u);
  EXPECT_EQ(prepared.transport_handle()[0], 2);
  coordinator_.Send(Connect(3));
  const auto connected = coordinator_.Await(v1::WorkerMessage::kConnected).connected();
  EXPECT_EQ(connected.error(), "");
  EXPECT_EQ(connected.epoch(), 3u);
  EXPECT_THAT(engine_.events(), Contains("prepare g@3 rank 1/2"));
  EXPECT_THAT(engine_.events(), Contains("connect g@3 of 2"));
  EXPECT_EQ(sink_.Value(metrics::MetricId::kRingSize), 2);
  EXPECT_EQ(sink_.Value(metrics::MetricId::kRingEpoch), 3);
}

TEST_F(CoordinatorSessionTest, ReportsWhatItCouldNotDo) {
  engine_.on_connect = [](const std::string&, uint64_t) {
    return absl::UnavailableError("rank 0 does not answer");
  };
  StartWelcomed();
  v1::WorkerCommand bad = Prepare(3);
  bad.mutable_prepare()->set_rank(2);
  coordinator_.Send(bad);
  EXPECT_THAT(coordinator_.Await(v1::WorkerMessage::kPrepared).prepared().error(),
              HasSubstr("rank: expected 0..1, got 2"));
  coordinator_.Send(Connect(3));
  EXPECT_THAT(coordinator_.Await(v1::WorkerMessage::kConnected).connected().error(),
              HasSubstr("rank 0 does not answer"));
}

TEST_F(CoordinatorSessionTest, FaultIsAppliedWhileAConnectBlocks) {
  // Connect ends only once the fault of its epoch has been applied.
  engine_.on_connect = [this](const std::string&, uint64_t) -> absl::Status {
    EXPECT_TRUE(engine_.AwaitEvent("fault g@3 WORKER_LOST"));
    return absl::AbortedError("faulted");
  };
  StartWelcomed();
  coordinator_.Send(Prepare(3));
  coordinator_.Send(Connect(3));
  ASSERT_TRUE(engine_.AwaitEvent("connect g@3 of 2"));
  coordinator_.Send(Connect(3));
  coordinator_.Send(Fault(3));
  coordinator_.Send(Prepare(4));
  // The second Connect of the dead epoch was dropped from the queue.
  ASSERT_TRUE(engine_.AwaitEvent("prepare g@4 rank 1/2"));
  const auto events = engine_.events();
  EXPECT_EQ(std::count(events.begin(), events.end(), "connect g@3 of 2"), 1);
}

TEST_F(CoordinatorSessionTest, ReleaseEndsAndForgets) {
  StartWelcomed();
  coordinator_.Send(Prepare(3));
  coordinator_.Await(v1::WorkerMessage::kPrepared);
  v1::WorkerCommand release;
  release.mutable_release()->set_group("g");
  release.mutable_release()->set_epoch(3);
  coordinator_.Send(release);
  EXPECT_TRUE(engine_.AwaitEvent("release g@3"));
  EXPECT_THAT(engine_.events(), Contains("fault g@3 RELEASED"));
}

TEST_F(CoordinatorSessionTest, PassesOnWhatTheEngineSaw) {
  StartWelcomed();
  worker::FaultObservation observation;
  observation.group = "g";
  observation.epoch = 3;
  observation.suspect_rank = 1;
  observation.step = 7;
  observation.request_id = "r";
  observation.message = "rank 1 is silent";
  engine_.fault_sink()(observation);
  const v1::FaultReport report = coordinator_.Await(v1::WorkerMessage::kFault).fault();
  EXPECT_EQ(report.group(), "g");
  EXPECT_EQ(report.epoch(), 3u);
  EXPECT_EQ(report.suspect_rank(), 1);
  EXPECT_EQ(report.step(), 7);
  EXPECT_EQ(report.request_id(), "r");
  EXPECT_EQ(report.message(), "rank 1 is silent");
}

TEST_F(CoordinatorSessionTest, LostStreamFaultsEveryGroupAndStartsAnew) {
  StartWelcomed();
  coordinator_.CutStream();
  ASSERT_TRUE(engine_.Await([&] {
    for (const std::string& event : engine_.events()) {
      if (event.find("fault all: coordinator") == 0) return true;
    }
    return false;
  }));
  coordinator_.Welcome(6);
  EXPECT_TRUE(engine_.AwaitEvent("term 6"));
}

TEST_F(CoordinatorSessionTest, AnswersOfAnEarlierStreamAreDropped) {
  engine_.on_connect = [this](const std::string&, uint64_t epoch) -> absl::Status {
    if (epoch == 3) {
      EXPECT_TRUE(engine_.AwaitEvent("term 6"));
    }
    return absl::OkStatus();
  };
  StartWelcomed();
  coordinator_.Send(Prepare(3));
  coordinator_.Send(Connect(3));
  ASSERT_TRUE(engine_.AwaitEvent("connect g@3 of 2"));
  coordinator_.CutStream();
  coordinator_.Welcome(6);
  ASSERT_TRUE(engine_.AwaitEvent("term 6"));
  coordinator_.Send(Prepare(4));
  coordinator_.Send(Connect(4));
  EXPECT_EQ(coordinator_.Await(v1::WorkerMessage::kConnected).connected().epoch(), 4u);
}

TEST_F(CoordinatorSessionTest, CoordinatorOfThePastIsRefused) {
  StartWelcomed();
  coordinator_.CutStream();
  coordinator_.Welcome(4);
  // It comes back, because it did not accept that one; and this one it does.
  coordinator_.Welcome(5);
  ASSERT_TRUE(engine_.Await([&] {
    const auto events = engine_.events();
    return std::count(events.begin(), events.end(), "term 5") == 2;
  }));
  EXPECT_EQ(sink_.Value(metrics::MetricId::kStaleEpoch), 1);
  const auto events = engine_.events();
  EXPECT_EQ(std::count(events.begin(), events.end(), "term 4"), 0);
}

TEST_F(CoordinatorSessionTest, CommandBeforeWelcomeEndsTheStream) {
  Start(coordinator_.port());
  coordinator_.Await(v1::WorkerMessage::kHello);
  coordinator_.Send(Prepare(3));
  coordinator_.Welcome();
  EXPECT_TRUE(engine_.AwaitEvent("term 5"));
  const auto events = engine_.events();
  EXPECT_EQ(std::count(events.begin(), events.end(), "prepare g@3 rank 1/2"), 0);
}

TEST_F(CoordinatorSessionTest, PlansComeFromTheCoordinator) {
  StartWelcomed();
  const auto plan = engine_.plan_source()("known");
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(*plan, "{}");
  EXPECT_EQ(engine_.plan_source()("unknown").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(CoordinatorSessionTest, EngineMayReportAndAskAfterTheSession) {
  StartWelcomed();
  session_.reset();
  engine_.fault_sink()({});
  EXPECT_TRUE(engine_.plan_source()("known").ok());
  EXPECT_THAT(engine_.events(), Contains("fault all: the worker is stopping"));
}

TEST_F(CoordinatorSessionTest, WaitsForACoordinatorThatIsNotThereYet) {
  int port = 0;
  {
    const ScriptedCoordinator gone;
    port = gone.port();
  }
  Start(port);
  // Twice, so that the first attempt to connect has failed for certain.
  EXPECT_FALSE(engine_.plan_source()("known").ok());
  EXPECT_FALSE(engine_.plan_source()("known").ok());
  ScriptedCoordinator late(port);
  late.Welcome();
  EXPECT_TRUE(engine_.AwaitEvent("term 5"));
  session_.reset();
}

}  // namespace
}  // namespace annulus::rpc
