// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/fault_info.h"
#include "server/ring/checker/checker.h"
#include "server/ring/plan_json.h"
#include "server/ring/topology/presets.h"
#include "server/rpc/channel_args.h"
#include "server/rpc/coordinator_server.h"
#include "server/rpc/facts_convert.h"
#include "server/rpc/status_codec.h"
#include "tests/unit/rpc_coordinator/fake_worker.h"

namespace annulus::rpc {
namespace {

using testing::HasSubstr;

class Service : public testing::Test {
 protected:
  void SetUp() override {
    CoordinatorServerOptions options;
    options.term = 42;
    options.settings.lease_ms = 600;
    options.settings.heartbeat_ms = 100;
    auto server = CoordinatorServer::Start(options, nullptr);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    address_ = absl::StrCat("127.0.0.1:", server_->port());
    channel_ = NewChannel();
    stub_ = v1::Coordinator::NewStub(channel_);
  }

  std::shared_ptr<grpc::Channel> NewChannel() {
    return grpc::CreateCustomChannel(address_, grpc::InsecureChannelCredentials(),
                                     ClientChannelArguments());
  }

  std::unique_ptr<FakeWorker> Join(const std::string& name, uint64_t incarnation = 1) {
    auto worker = std::make_unique<FakeWorker>(channel_, FakeWorker::Hello(name, incarnation));
    EXPECT_TRUE(worker->Await([](const auto& command) { return command.has_welcome(); }));
    return worker;
  }

  absl::Status Ensure(const std::string& name, int size, v1::Group* group, uint64_t after = 0,
                      std::chrono::milliseconds within = kTestDeadline) {
    v1::EnsureGroupRequest request;
    request.set_name(name);
    request.mutable_options()->set_size(size);
    request.set_after_epoch(after);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + within);
    return FromGrpcStatus(stub_->EnsureGroup(&context, request, group));
  }

  v1::ListGroupsResponse Groups() {
    grpc::ClientContext context;
    v1::ListGroupsResponse response;
    EXPECT_TRUE(stub_->ListGroups(&context, {}, &response).ok());
    return response;
  }

  v1::ListWorkersResponse Workers() {
    grpc::ClientContext context;
    v1::ListWorkersResponse response;
    EXPECT_TRUE(stub_->ListWorkers(&context, {}, &response).ok());
    return response;
  }

  absl::Status Prepare(const v1::PlanSpec& spec, v1::PreparePlanResponse* response) {
    grpc::ClientContext context;
    v1::PreparePlanRequest request;
    *request.mutable_spec() = spec;
    return FromGrpcStatus(stub_->PreparePlan(&context, request, response));
  }

  static v1::PlanSpec GoodSpec() {
    v1::PlanSpec spec;
    spec.set_direction(v1::DIRECTION_FORWARD);
    spec.set_query_length(64);
    spec.set_kv_length(64);
    spec.set_context_parallel_size(4);
    spec.set_window_size(2);
    spec.mutable_mask()->set_kind(v1::MASK_KIND_CAUSAL);
    spec.set_layout(v1::LAYOUT_ZIGZAG);
    spec.set_algorithm("megatron_cp_algo");
    return spec;
  }

  std::unique_ptr<CoordinatorServer> server_;
  std::string address_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Coordinator::Stub> stub_;
};

TEST_F(Service, WelcomesWorkersAndListsThem) {
  auto worker = Join("w0", 7);
  v1::WorkerCommand welcome;
  ASSERT_TRUE(worker->Await([](const auto& command) { return command.has_welcome(); }, &welcome));
  EXPECT_EQ(welcome.welcome().term(), 42u);
  EXPECT_EQ(welcome.welcome().lease_ms(), 600);
  EXPECT_EQ(welcome.welcome().heartbeat_interval_ms(), 100);
  const auto workers = Workers();
  EXPECT_EQ(workers.term(), 42u);
  ASSERT_EQ(workers.workers_size(), 1);
  EXPECT_EQ(workers.workers(0).hello().name(), "w0");
  EXPECT_EQ(workers.workers(0).hello().incarnation(), 7u);
  EXPECT_EQ(workers.workers(0).state(), v1::WorkerInfo::STATE_LIVE);
}

TEST_F(Service, FormsListsAndDeletesAGroup) {
  auto w0 = Join("w0");
  auto w1 = Join("w1");
  v1::Group group;
  ASSERT_EQ(Ensure("g", 2, &group), absl::OkStatus());
  EXPECT_EQ(group.state(), v1::Group::STATE_READY);
  EXPECT_EQ(group.term(), 42u);
  EXPECT_GT(group.epoch(), 42u);
  EXPECT_EQ(group.options().window_size(), 2);
  ASSERT_EQ(group.members_size(), 2);
  EXPECT_EQ(group.members(1).worker(), "w1");
  EXPECT_EQ(group.members(1).address(), "w1:1");
  EXPECT_EQ(Groups().groups_size(), 1);
  for (int repeat = 0; repeat < 2; ++repeat) {
    grpc::ClientContext context;
    v1::DeleteGroupRequest request;
    request.set_name("g");
    v1::DeleteGroupResponse response;
    EXPECT_TRUE(stub_->DeleteGroup(&context, request, &response).ok());
  }
  EXPECT_TRUE(w1->Await([&](const auto& c) { return c.release().epoch() == group.epoch(); }));
  grpc::ClientContext context;
  v1::GetGroupRequest request;
  request.set_name("g");
  EXPECT_EQ(stub_->GetGroup(&context, request, &group).error_code(), grpc::StatusCode::NOT_FOUND);
}

// From what workers tell of their GPUs over the wire to the group's transport and its reason.
TEST_F(Service, AGroupOfLiveGpusTakesWhatTheirLinksAllow) {
  std::vector<std::unique_ptr<FakeWorker>> workers;
  const std::vector<ring::WorkerFacts> gpus = ring::PresetFacts("two-gpus").value();
  for (const ring::WorkerFacts& facts : gpus) {
    v1::WorkerHello hello = FakeWorker::Hello(facts.worker);
    hello.set_host_id(facts.host_id);
    *hello.mutable_facts() = FactsToProto(facts);
    workers.push_back(std::make_unique<FakeWorker>(channel_, hello));
    EXPECT_TRUE(workers.back()->Await([](const auto& command) { return command.has_welcome(); }));
  }
  EXPECT_EQ(Workers().workers(1).hello().facts().peers(0).link(), v1::WorkerFacts::GPU_LINK_PCIE);
  v1::Group group;
  ASSERT_EQ(Ensure("g", 2, &group), absl::OkStatus());
  EXPECT_EQ(group.topology().inner().transport(), "cuipc");
  EXPECT_EQ(group.topology().inner().reason(),
            "one host, every two GPUs joined by PCIe peer access or better");
}

TEST_F(Service, ABrokenStreamIsToldToTheSurvivorsAndTheGroupFormsAnew) {
  auto w0 = Join("w0");
  auto w1 = Join("w1");
  v1::Group group;
  ASSERT_EQ(Ensure("g", 2, &group), absl::OkStatus());
  w1->Kill();
  v1::WorkerCommand fault;
  ASSERT_TRUE(w0->Await([](const auto& command) { return command.has_fault(); }, &fault));
  EXPECT_EQ(fault.fault().epoch(), group.epoch());
  EXPECT_EQ(fault.fault().culprit_rank(), 1);
  EXPECT_EQ(fault.fault().culprit_worker(), "w1");
  EXPECT_EQ(fault.fault().reason(), "WORKER_LOST");
  auto w2 = Join("w2");
  v1::Group next;
  ASSERT_EQ(Ensure("g", 2, &next, group.epoch()), absl::OkStatus());
  EXPECT_GT(next.epoch(), group.epoch());
  EXPECT_EQ(next.members(1).worker(), "w2");
  EXPECT_EQ(next.last_fault().culprit_worker(), "w1");
}

TEST_F(Service, ASilentWorkerIsLostAndItsStreamClosed) {
  auto w0 = Join("w0");
  auto w1 = Join("w1");
  v1::Group group;
  ASSERT_EQ(Ensure("g", 2, &group), absl::OkStatus());
  w1->Silence();
  v1::WorkerCommand fault;
  ASSERT_TRUE(w0->Await([](const auto& command) { return command.has_fault(); }, &fault));
  EXPECT_EQ(fault.fault().reason(), "WORKER_SILENT");
  EXPECT_EQ(fault.fault().culprit_worker(), "w1");
  const grpc::Status end = w1->AwaitEnd();
  EXPECT_EQ(end.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(end.error_message(), HasSubstr("lease"));
}

TEST_F(Service, AReportAboutABeatingPeerEndsInAVerdictForAll) {
  auto w0 = Join("w0");
  auto w1 = Join("w1");
  v1::Group group;
  ASSERT_EQ(Ensure("g", 2, &group), absl::OkStatus());
  v1::WorkerMessage message;
  message.mutable_fault()->set_group("g");
  message.mutable_fault()->set_epoch(group.epoch());
  message.mutable_fault()->set_suspect_rank(1);
  message.mutable_fault()->set_message("no data for 1 s");
  ASSERT_TRUE(w0->Write(message));
  for (FakeWorker* worker : {w0.get(), w1.get()}) {
    v1::WorkerCommand fault;
    ASSERT_TRUE(worker->Await([](const auto& command) { return command.has_fault(); }, &fault));
    EXPECT_EQ(fault.fault().reason(), "PEER_UNREACHABLE");
    EXPECT_EQ(fault.fault().culprit_rank(), 1);
    EXPECT_THAT(fault.fault().message(), HasSubstr("no data for 1 s"));
  }
}

TEST_F(Service, ANewerProcessOfTheNameDisplacesTheOlder) {
  auto old_process = Join("w0", 1);
  auto new_process = Join("w0", 2);
  EXPECT_EQ(old_process->AwaitEnd().error_code(), grpc::StatusCode::ABORTED);
  FakeWorker again(channel_, FakeWorker::Hello("w0", 1));
  EXPECT_EQ(again.AwaitEnd().error_code(), grpc::StatusCode::ALREADY_EXISTS);
}

TEST_F(Service, TheReasonComesBeforeTheCallersOwnDeadline) {
  auto w0 = Join("w0");
  v1::Group group;
  const absl::Status status = Ensure("g", 3, &group, 0, std::chrono::milliseconds(1000));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  ASSERT_TRUE(GetFaultInfo(status));
  EXPECT_EQ(GetFaultInfo(status)->reason, "NOT_ENOUGH_WORKERS");
  EXPECT_EQ(GetFaultInfo(status)->metadata.at("have"), "1");
  EXPECT_EQ(Groups().groups_size(), 0);
}

TEST_F(Service, ACancelledCallLeavesNothingBehind) {
  grpc::ClientContext context;
  v1::EnsureGroupRequest request;
  request.set_name("g");
  request.mutable_options()->set_size(2);
  v1::Group group;
  std::thread caller([&] {
    EXPECT_EQ(stub_->EnsureGroup(&context, request, &group).error_code(),
              grpc::StatusCode::CANCELLED);
  });
  while (Groups().groups_size() == 0) std::this_thread::yield();
  context.TryCancel();
  caller.join();
  while (Groups().groups_size() != 0) std::this_thread::yield();
}

TEST_F(Service, PlansAreMadeOnceCheckedAndFoundByDigest) {
  v1::PreparePlanResponse first, second;
  ASSERT_EQ(Prepare(GoodSpec(), &first), absl::OkStatus());
  ASSERT_EQ(Prepare(GoodSpec(), &second), absl::OkStatus());
  EXPECT_FALSE(first.cached());
  EXPECT_TRUE(second.cached());
  EXPECT_EQ(first.digest(), second.digest());
  EXPECT_EQ(first.steps(), 4);
  grpc::ClientContext context;
  v1::GetPlanRequest request;
  request.set_digest(first.digest());
  v1::GetPlanResponse response;
  ASSERT_TRUE(stub_->GetPlan(&context, request, &response).ok());
  const auto plan = ring::ParsePlanJson(response.json());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->digest, first.digest());
  EXPECT_EQ(ring::CheckPlan(*plan), absl::OkStatus());
  grpc::ClientContext other;
  request.set_digest("00");
  EXPECT_EQ(stub_->GetPlan(&other, request, &response).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(Service, BadSpecsSayWhatWasExpectedAndGot) {
  const auto refused = [&](const std::function<void(v1::PlanSpec*)>& spoil, absl::StatusCode code,
                           const std::string& words) {
    v1::PlanSpec spec = GoodSpec();
    spoil(&spec);
    v1::PreparePlanResponse response;
    const absl::Status status = Prepare(spec, &response);
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  refused([](auto* s) { s->set_window_size(3); }, kInvalid, "1, 2, 4");
  refused([](auto* s) { s->set_query_length(0); }, kInvalid, "0");
  refused([](auto* s) { s->set_context_parallel_size(1 << 20); }, kInvalid, "4096");
  refused([](auto* s) { s->clear_direction(); }, kInvalid, "direction");
  refused([](auto* s) { s->clear_mask(); }, kInvalid, "mask");
  refused([](auto* s) { s->set_layout(static_cast<v1::Layout>(99)); }, kInvalid, "99");
  refused([](auto* s) { s->set_algorithm("ulysses_cp_algo"); }, absl::StatusCode::kUnimplemented,
          "ulysses_cp_algo");
  refused([](auto* s) { s->mutable_heads()->set_end(1); }, absl::StatusCode::kUnimplemented,
          "heads");
}

TEST_F(Service, BadHellosEndTheStreamWithTheReason) {
  const auto refused = [&](const std::function<void(v1::WorkerHello*)>& spoil,
                           const std::string& words) {
    v1::WorkerHello hello = FakeWorker::Hello("w0");
    spoil(&hello);
    FakeWorker worker(channel_, hello);
    const grpc::Status end = worker.AwaitEnd();
    EXPECT_EQ(end.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(end.error_message(), HasSubstr(words));
  };
  refused([](auto* h) { h->set_name("No Good"); }, "No Good");
  refused([](auto* h) { h->set_name(std::string(64, 'a')); }, "64 bytes");
  refused([](auto* h) { h->set_incarnation(0); }, "incarnation");
  refused([](auto* h) { h->clear_address(); }, "address");
  refused([](auto* h) { h->set_node("a\nb"); }, "node");
  refused([](auto* h) { h->set_region_socket(std::string(108, 'x')); }, "region_socket");
  EXPECT_EQ(Workers().workers_size(), 0);
}

TEST_F(Service, TheFirstMessageMustBeHello) {
  grpc::ClientContext context;
  auto stream = stub_->WorkerSession(&context);
  v1::WorkerMessage beat;
  beat.mutable_heartbeat();
  stream->Write(beat);
  v1::WorkerCommand command;
  EXPECT_FALSE(stream->Read(&command));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(Service, AFloodOfHeartbeatsStarvesNobody) {
  auto flooder = Join("w0");
  v1::WorkerMessage beat;
  for (int i = 0; i < 64; ++i) {
    v1::Fence* fence = beat.mutable_heartbeat()->add_progress()->mutable_fence();
    fence->set_group("g");
    fence->set_request_id("r");
  }
  std::thread flood([&] {
    for (int i = 0; i < 3'000; ++i) ASSERT_TRUE(flooder->Write(beat));
  });
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Workers().workers_size(), 1);
  flood.join();
}

TEST_F(Service, HealthIsServedByTheStandardProtocol) {
  grpc::GenericStub generic(channel_);
  grpc::ClientContext context;
  const std::string service = "annulus.v1.Coordinator";
  // HealthCheckRequest { string service = 1; }
  const grpc::Slice slice(
      absl::StrCat("\x0a", std::string(1, static_cast<char>(service.size())), service));
  grpc::ByteBuffer request(&slice, 1), response;
  grpc::CompletionQueue queue;
  auto call = generic.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", request, &queue);
  call->StartCall();
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  ASSERT_TRUE(queue.Next(&tag, &ok));
  ASSERT_TRUE(status.ok()) << status.error_message();
  grpc::Slice answer;
  ASSERT_TRUE(response.DumpToSingleSlice(&answer).ok());
  // HealthCheckResponse { status = SERVING }
  EXPECT_EQ(std::string(answer.begin(), answer.end()), "\x08\x01");
}

TEST_F(Service, StoppingTellsEverybodyWhy) {
  auto w0 = Join("w0");
  absl::Status waiting;
  std::thread caller([&] {
    v1::Group group;
    waiting = Ensure("g", 3, &group);
  });
  while (Groups().groups_size() == 0) std::this_thread::yield();
  server_.reset();
  caller.join();
  EXPECT_EQ(waiting.code(), absl::StatusCode::kUnavailable);
  ASSERT_TRUE(GetFaultInfo(waiting)) << waiting;
  EXPECT_EQ(GetFaultInfo(waiting)->reason, "COORDINATOR_STOPPING");
  const absl::Status end = FromGrpcStatus(w0->AwaitEnd());
  ASSERT_TRUE(GetFaultInfo(end)) << end;
  EXPECT_EQ(GetFaultInfo(end)->reason, "COORDINATOR_STOPPING");
}

TEST(ServerStart, AnAddressInUseIsNamed) {
  const auto first = CoordinatorServer::Start({}, nullptr);
  ASSERT_TRUE(first.ok());
  const std::string address = absl::StrCat("127.0.0.1:", (*first)->port());
  const auto second = CoordinatorServer::Start({.listen_address = address}, nullptr);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(address));
}

}  // namespace
}  // namespace annulus::rpc
