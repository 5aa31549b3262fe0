// SPDX-License-Identifier: Apache-2.0
// The Worker service as its clients see it: real channels to a real server, in front of an engine
// that computes nothing.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <future>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "annulus/v1/worker.grpc.pb.h"
#include "server/base/fault_info.h"
#include "server/rpc/channel_args.h"
#include "server/rpc/status_codec.h"
#include "server/rpc/worker_server.h"
#include "tests/support/attend_request.h"
#include "tests/support/fake_engine.h"
#include "tests/support/recording_sink.h"

namespace annulus::rpc {
namespace {

using ::testing::HasSubstr;
using testing_support::FakeEngine;
using Session = grpc::ClientReaderWriter<v1::SessionMessage, v1::SessionOpened>;

constexpr char kSessionId[] = "00000000000000000000000000000001";

std::string Pattern(size_t bytes) {
  std::string data(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<char>((i * 131 + (i >> 11)) & 0xff);
  return data;
}

class WorkerServiceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    WorkerServerOptions options;
    options.incarnation = 77;
    options.host_id = "host";
    options.region_socket = "/run/regions.sock";
    options.max_concurrent_requests = 2;
    auto server = WorkerServer::Start(options, &engine_, &sink_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = std::move(*server);
    stub_ = v1::Worker::NewStub(
        grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(server_->port()),
                                  grpc::InsecureChannelCredentials(), ClientChannelArguments()));
  }

  static std::unique_ptr<grpc::ClientContext> Context(int seconds = 20) {
    auto context = std::make_unique<grpc::ClientContext>();
    context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(seconds));
    return context;
  }

  // A session of the engine that lives as long as the test.
  std::string OpenSession() { return engine_.OpenSession("test"); }

  absl::Status CreateTensor(const std::string& session, const std::string& id, uint64_t bytes) {
    v1::CreateTensorRequest request;
    request.set_session_id(session);
    request.set_tensor_id(id);
    request.set_bytes(bytes);
    v1::CreateTensorResponse response;
    return FromGrpcStatus(stub_->CreateTensor(Context().get(), request, &response));
  }

  absl::StatusOr<uint64_t> Upload(const std::vector<v1::TensorFrame>& frames) {
    const auto context = Context();
    v1::UploadResponse response;
    const auto writer = stub_->Upload(context.get(), &response);
    for (const v1::TensorFrame& frame : frames) {
      if (!writer->Write(frame)) break;
    }
    writer->WritesDone();
    const absl::Status status = FromGrpcStatus(writer->Finish());
    if (!status.ok()) return status;
    return response.committed_bytes();
  }

  absl::StatusOr<std::string> Download(const v1::DownloadRequest& request) {
    const auto context = Context();
    const auto reader = stub_->Download(context.get(), request);
    std::string data;
    v1::TensorFrame frame;
    while (reader->Read(&frame)) {
      EXPECT_EQ(frame.offset(), request.offset() + data.size());
      EXPECT_LE(frame.data().size(), size_t{4} << 20);
      data += frame.data();
    }
    const absl::Status status = FromGrpcStatus(reader->Finish());
    if (!status.ok()) return status;
    return data;
  }

  absl::Status Attend(const v1::AttendRequest& request, v1::AttendResponse* response) {
    return FromGrpcStatus(stub_->Attend(Context().get(), request, response));
  }

  bool AwaitAnswers(const std::string& code, int count) {
    return engine_.Await([&] {
      return sink_.Value(metrics::MetricId::kRequests, {"Attend", code}) >= count;
    });
  }

  FakeEngine engine_;
  testing_support::RecordingSink sink_;
  std::unique_ptr<WorkerServer> server_;
  std::unique_ptr<v1::Worker::Stub> stub_;
};

v1::TensorFrame Frame(const std::string& session, const std::string& tensor, uint64_t offset,
                      std::string data) {
  v1::TensorFrame frame;
  frame.set_session_id(session);
  frame.set_tensor_id(tensor);
  frame.set_offset(offset);
  frame.set_data(std::move(data));
  return frame;
}

// ---- sessions ----

TEST_F(WorkerServiceTest, SessionLivesAsLongAsItsStream) {
  const auto context = Context();
  const auto stream = stub_->Session(context.get());
  v1::SessionMessage open;
  open.set_client("a client");
  ASSERT_TRUE(stream->Write(open));
  v1::SessionOpened opened;
  ASSERT_TRUE(stream->Read(&opened));
  EXPECT_EQ(opened.session_id(), kSessionId);
  EXPECT_EQ(opened.incarnation(), 77u);
  EXPECT_EQ(opened.host_id(), "host");
  EXPECT_EQ(opened.region_socket(), "/run/regions.sock");
  EXPECT_EQ(engine_.sessions(), 1u);

  stream->WritesDone();
  EXPECT_FALSE(stream->Read(&opened));
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_TRUE(engine_.Await([&] { return engine_.sessions() == 0; }));
}

TEST_F(WorkerServiceTest, CancelledSessionIsClosed) {
  const auto context = Context();
  const auto stream = stub_->Session(context.get());
  ASSERT_TRUE(stream->Write(v1::SessionMessage()));
  v1::SessionOpened opened;
  ASSERT_TRUE(stream->Read(&opened));
  context->TryCancel();
  stream->Finish();
  EXPECT_TRUE(engine_.Await([&] { return engine_.sessions() == 0; }));
}

TEST_F(WorkerServiceTest, SecondOpenEndsTheSession) {
  const auto context = Context();
  const auto stream = stub_->Session(context.get());
  ASSERT_TRUE(stream->Write(v1::SessionMessage()));
  ASSERT_TRUE(stream->Write(v1::SessionMessage()));
  v1::SessionOpened opened;
  ASSERT_TRUE(stream->Read(&opened));
  EXPECT_FALSE(stream->Read(&opened));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_TRUE(engine_.Await([&] { return engine_.sessions() == 0; }));
}

TEST_F(WorkerServiceTest, LongClientNameIsRefused) {
  const auto context = Context();
  const auto stream = stub_->Session(context.get());
  v1::SessionMessage open;
  open.set_client(std::string(65, 'c'));
  ASSERT_TRUE(stream->Write(open));
  v1::SessionOpened opened;
  EXPECT_FALSE(stream->Read(&opened));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(engine_.sessions(), 0u);
}

// ---- tensors ----

TEST_F(WorkerServiceTest, TensorGoesUpAndComesDownUnchanged) {
  const std::string session = OpenSession();
  const std::string data = Pattern((size_t{5} << 20) + 321);
  ASSERT_TRUE(CreateTensor(session, "t", data.size()).ok());
  const auto committed = Upload({Frame(session, "t", 0, data.substr(0, 3 << 20)),
                                 Frame("", "", 3 << 20, data.substr(3 << 20))});
  ASSERT_TRUE(committed.ok()) << committed.status();
  EXPECT_EQ(*committed, data.size());

  v1::DownloadRequest request;
  request.set_session_id(session);
  request.set_tensor_id("t");
  auto down = Download(request);
  ASSERT_TRUE(down.ok()) << down.status();
  EXPECT_TRUE(*down == data);

  request.set_offset(1234567);
  request.set_length(3'000'001);
  down = Download(request);
  ASSERT_TRUE(down.ok()) << down.status();
  EXPECT_TRUE(*down == data.substr(1234567, 3'000'001));
}

TEST_F(WorkerServiceTest, UploadResumesWhereItStopped) {
  const std::string session = OpenSession();
  ASSERT_TRUE(CreateTensor(session, "t", 100).ok());
  ASSERT_TRUE(Upload({Frame(session, "t", 0, Pattern(40))}).ok());

  v1::GetTensorRequest get;
  get.set_session_id(session);
  get.set_tensor_id("t");
  v1::GetTensorResponse got;
  ASSERT_TRUE(stub_->GetTensor(Context().get(), get, &got).ok());
  EXPECT_EQ(got.bytes(), 100u);
  EXPECT_EQ(got.committed_bytes(), 40u);

  const auto gap = Upload({Frame(session, "t", 41, Pattern(10))});
  EXPECT_EQ(gap.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(gap.status().message()), HasSubstr("40"));
  const auto again = Upload({Frame(session, "t", 0, Pattern(10))});
  EXPECT_EQ(again.status().code(), absl::StatusCode::kOutOfRange);
  const auto rest = Upload({Frame(session, "t", 40, Pattern(60))});
  ASSERT_TRUE(rest.ok()) << rest.status();
  EXPECT_EQ(*rest, 100u);
}

TEST_F(WorkerServiceTest, UploadBeyondTheEndIsRefused) {
  const std::string session = OpenSession();
  ASSERT_TRUE(CreateTensor(session, "t", 10).ok());
  EXPECT_EQ(Upload({Frame(session, "t", 0, Pattern(11))}).status().code(),
            absl::StatusCode::kOutOfRange);
}

TEST_F(WorkerServiceTest, UploadFillsOneTensorOnly) {
  const std::string session = OpenSession();
  ASSERT_TRUE(CreateTensor(session, "t", 10).ok());
  ASSERT_TRUE(CreateTensor(session, "u", 10).ok());
  EXPECT_EQ(Upload({Frame(session, "t", 0, "ab"), Frame(session, "u", 2, "cd")}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Upload({}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(WorkerServiceTest, UnknownTensorsAndSessionsAreNotFound) {
  const std::string session = OpenSession();
  EXPECT_EQ(CreateTensor("ffffffffffffffffffffffffffffffff", "t", 10).code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(Upload({Frame(session, "t", 0, "ab")}).status().code(), absl::StatusCode::kNotFound);
  v1::DownloadRequest request;
  request.set_session_id(session);
  request.set_tensor_id("t");
  EXPECT_EQ(Download(request).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(WorkerServiceTest, MalformedNamesAreRefused) {
  EXPECT_EQ(CreateTensor("short", "t", 10).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CreateTensor(OpenSession(), "a/b", 10).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(WorkerServiceTest, DownloadBeyondTheEndIsRefused) {
  const std::string session = OpenSession();
  ASSERT_TRUE(CreateTensor(session, "t", 10).ok());
  v1::DownloadRequest request;
  request.set_session_id(session);
  request.set_tensor_id("t");
  request.set_offset(4);
  request.set_length(7);
  EXPECT_EQ(Download(request).status().code(), absl::StatusCode::kOutOfRange);
  request.set_offset(std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(Download(request).status().code(), absl::StatusCode::kOutOfRange);
  request.set_offset(10);
  request.set_length(0);
  const auto nothing = Download(request);
  ASSERT_TRUE(nothing.ok());
  EXPECT_EQ(*nothing, "");
}

TEST_F(WorkerServiceTest, TooMuchMemoryIsRefused) {
  EXPECT_EQ(CreateTensor(OpenSession(), "t", uint64_t{1} << 40).code(),
            absl::StatusCode::kResourceExhausted);
}

// ---- attend ----

TEST_F(WorkerServiceTest, AttendPassesTheCallAndTheAnswer) {
  worker::AttendCall seen;
  engine_.on_attend = [&](const worker::AttendCall& call) {
    seen = call;
    worker::AttendAnswer answer;
    answer.rank = 3;
    answer.timeline.start_ns = 1000;
    answer.timeline.ops = {
        {metrics::OpKind::kReceive, 1, metrics::Level::kOuter, 2, 1500, 1900, 64, "kv"}};
    answer.summary.compute_seconds = 0.25;
    answer.steps = {{0, 0.1, 0.2, 0.3}};
    answer.peak_bytes = 99;
    return answer;
  };
  v1::AttendRequest request = testing_support::ForwardRequest();
  request.set_record_timeline(true);
  v1::AttendResponse response;
  const absl::Status status = Attend(request, &response);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(seen.fence.request_id, request.fence().request_id());
  EXPECT_GT(seen.deadline_ns, 0);
  EXPECT_EQ(response.fence().SerializeAsString(), request.fence().SerializeAsString());
  EXPECT_EQ(response.rank(), 3);
  EXPECT_EQ(response.timing().compute_seconds(), 0.25);
  EXPECT_EQ(response.timing().peak_bytes(), 99u);
  ASSERT_EQ(response.steps_size(), 1);
  EXPECT_EQ(response.steps(0).exposed_seconds(), 0.3);
  ASSERT_EQ(response.timeline_size(), 1);
  EXPECT_EQ(response.timeline(0).kind(), v1::TimelineOp::KIND_RECEIVE);
  EXPECT_EQ(response.timeline(0).level(), v1::LEVEL_OUTER);
  EXPECT_EQ(response.timeline(0).start_ns(), 500);
  EXPECT_EQ(response.timeline(0).end_ns(), 900);
}

TEST_F(WorkerServiceTest, FaultTravelsWithItsDetails) {
  engine_.on_attend = [](const worker::AttendCall&) -> absl::StatusOr<worker::AttendAnswer> {
    return WithFaultInfo(absl::UnavailableError("worker w2 is lost"),
                         {"WORKER_LOST", {{"rank", "2"}, {"step", "5"}}});
  };
  v1::AttendResponse response;
  const absl::Status status = Attend(testing_support::ForwardRequest(), &response);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  const auto info = GetFaultInfo(status);
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(info->reason, "WORKER_LOST");
  EXPECT_EQ(info->metadata.at("rank"), "2");
}

TEST_F(WorkerServiceTest, BadRequestNeverReachesTheEngine) {
  v1::AttendRequest request = testing_support::ForwardRequest();
  request.set_head_dim(20);
  v1::AttendResponse response;
  const absl::Status status = Attend(request, &response);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("head_dim"));
  EXPECT_TRUE(engine_.events().empty());
}

TEST_F(WorkerServiceTest, RequestsTimeoutIsItsDeadline) {
  int64_t deadline_ns = 0;
  engine_.on_attend = [&](const worker::AttendCall& call) {
    deadline_ns = call.deadline_ns;
    return worker::AttendAnswer{};
  };
  v1::AttendResponse response;
  v1::AttendRequest request = testing_support::ForwardRequest();
  ASSERT_TRUE(Attend(request, &response).ok());
  const int64_t by_call_ns = deadline_ns;
  request.set_timeout_seconds(1);
  ASSERT_TRUE(Attend(request, &response).ok());
  // The call's own deadline is 20 s away: the timeout is nearer by far.
  EXPECT_LT(deadline_ns, by_call_ns - 10'000'000'000);
}

// Holds requests in the engine until told to go on.
class Gate {
 public:
  absl::StatusOr<worker::AttendAnswer> Pass(const worker::AttendCall& call) {
    while (open_.wait_for(std::chrono::milliseconds(5)) != std::future_status::ready) {
      if (call.cancelled()) return absl::CancelledError("seen");
    }
    return worker::AttendAnswer{};
  }
  void Open() { promise_.set_value(); }

 private:
  std::promise<void> promise_;
  std::shared_future<void> open_ = promise_.get_future().share();
};

TEST_F(WorkerServiceTest, CancelReachesARunningRequest) {
  Gate gate;
  engine_.on_attend = [&](const worker::AttendCall& call) { return gate.Pass(call); };
  const auto context = Context();
  auto done = std::async(std::launch::async, [&] {
    v1::AttendResponse response;
    return stub_->Attend(context.get(), testing_support::ForwardRequest("r0"), &response);
  });
  ASSERT_TRUE(engine_.AwaitEvent("attend r0"));
  context->TryCancel();
  EXPECT_EQ(done.get().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(AwaitAnswers("CANCELLED", 1));
}

TEST_F(WorkerServiceTest, FullQueueRefusesAtOnce) {
  Gate gate;
  engine_.on_attend = [&](const worker::AttendCall& call) { return gate.Pass(call); };
  std::vector<std::future<absl::Status>> held;
  const auto attend = [&](const std::string& id) {
    held.push_back(std::async(std::launch::async, [this, id] {
      v1::AttendResponse response;
      return Attend(testing_support::ForwardRequest(id), &response);
    }));
  };
  // Two run, two wait; of a fifth and sixth at least two are refused, whichever come last.
  for (int i = 0; i < 6; ++i) attend("r" + std::to_string(i));
  ASSERT_TRUE(AwaitAnswers("RESOURCE_EXHAUSTED", 2));
  gate.Open();
  int refused = 0;
  for (auto& call : held) {
    const absl::Status status = call.get();
    if (status.ok()) continue;
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_EQ(GetFaultInfo(status)->reason, "TOO_MANY_REQUESTS");
    ++refused;
  }
  EXPECT_EQ(refused, 2);
}

TEST_F(WorkerServiceTest, DrainRefusesNewRequestsAndWaitsForRunningOnes) {
  Gate gate;
  engine_.on_attend = [&](const worker::AttendCall& call) { return gate.Pass(call); };
  auto running = std::async(std::launch::async, [&] {
    v1::AttendResponse response;
    return Attend(testing_support::ForwardRequest("r0"), &response);
  });
  ASSERT_TRUE(engine_.AwaitEvent("attend r0"));
  EXPECT_FALSE(server_->Drain(std::chrono::steady_clock::now()));
  v1::AttendResponse response;
  const absl::Status refused = Attend(testing_support::ForwardRequest("r1"), &response);
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(GetFaultInfo(refused)->reason, "WORKER_STOPPING");
  gate.Open();
  EXPECT_TRUE(server_->Drain(std::chrono::steady_clock::now() + std::chrono::seconds(10)));
  EXPECT_TRUE(running.get().ok());
}

TEST_F(WorkerServiceTest, CallsAreCounted) {
  const std::string session = OpenSession();
  ASSERT_TRUE(CreateTensor(session, "t", 10).ok());
  ASSERT_FALSE(CreateTensor(session, "?", 10).ok());
  ASSERT_TRUE(Upload({Frame(session, "t", 0, "0123456789")}).ok());
  EXPECT_EQ(sink_.Value(metrics::MetricId::kRequests, {"CreateTensor", "OK"}), 1);
  EXPECT_EQ(sink_.Value(metrics::MetricId::kRequests, {"CreateTensor", "INVALID_ARGUMENT"}), 1);
  EXPECT_EQ(sink_.Value(metrics::MetricId::kRequests, {"Upload", "OK"}), 1);
  EXPECT_EQ(sink_.Value(metrics::MetricId::kRpcPayloadBytes, {"stream"}), 10);
}

TEST(WorkerServer, AddressInUseIsNamed) {
  FakeEngine engine;
  WorkerServerOptions options;
  auto first = WorkerServer::Start(options, &engine, nullptr);
  ASSERT_TRUE(first.ok());
  options.listen_address = "127.0.0.1:" + std::to_string((*first)->port());
  const auto second = WorkerServer::Start(options, &engine, nullptr);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(options.listen_address));
}

}  // namespace
}  // namespace annulus::rpc
