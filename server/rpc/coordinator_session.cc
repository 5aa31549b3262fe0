// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/coordinator_session.h"

#include <grpcpp/grpcpp.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "annulus/v1/coordinator.grpc.pb.h"
#include "server/rpc/channel_args.h"
#include "server/rpc/facts_convert.h"
#include "server/rpc/status_codec.h"
#include "server/rpc/worker_command_queue.h"
#include "server/rpc/worker_group_convert.h"
#include "server/rpc/worker_outbox.h"

namespace annulus::rpc {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

using Stream = grpc::ClientReaderWriter<v1::WorkerMessage, v1::WorkerCommand>;

v1::WorkerMessage Hello(const WorkerIdentity& identity) {
  v1::WorkerMessage message;
  v1::WorkerHello* hello = message.mutable_hello();
  hello->set_name(identity.name);
  hello->set_incarnation(identity.incarnation);
  hello->set_address(identity.address);
  hello->set_node(identity.node);
  hello->set_host_id(identity.host_id);
  hello->set_region_socket(identity.region_socket);
  hello->set_metrics_address(identity.metrics_address);
  hello->set_memory_limit_bytes(identity.memory_limit_bytes);
  hello->set_compute_device(identity.compute_device);
  hello->set_transport(identity.transport);
  hello->set_version(identity.version);
  *hello->mutable_facts() = FactsToProto(identity.facts);
  return message;
}

// A checked plan from the coordinator. Holds no more than the channel, so it may outlive the
// session.
worker::Engine::PlanSource MakePlanSource(std::shared_ptr<grpc::Channel> channel,
                                          milliseconds timeout) {
  std::shared_ptr<v1::Coordinator::Stub> stub = v1::Coordinator::NewStub(channel);
  return [stub, timeout](const std::string& digest) -> absl::StatusOr<std::string> {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + timeout);
    v1::GetPlanRequest request;
    request.set_digest(digest);
    v1::GetPlanResponse response;
    const grpc::Status status = stub->GetPlan(&context, request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return std::move(*response.mutable_json());
  };
}

class CoordinatorSessionImpl : public CoordinatorSession {
 public:
  CoordinatorSessionImpl(const CoordinatorSessionOptions& options, worker::Engine* engine,
                         metrics::MetricSink* sink)
      : options_(options),
        engine_(engine),
        sink_(sink),
        channel_(grpc::CreateCustomChannel(options.coordinator_address,
                                           grpc::InsecureChannelCredentials(),
                                           ClientChannelArguments())),
        stub_(v1::Coordinator::NewStub(channel_)),
        commands_(engine, sink, [outbox = outbox_](uint64_t stream, v1::WorkerMessage message) {
          outbox->Put(stream, std::move(message));
        }) {
    engine_->SetPlanSource(MakePlanSource(channel_, options_.plan_timeout));
    // Shares the outbox, so that the engine may report beyond the end of the session.
    engine_->SetFaultSink([outbox = outbox_](const worker::FaultObservation& observation) {
      v1::WorkerMessage message;
      *message.mutable_fault() = ObservationToProto(observation);
      outbox->Put(std::move(message));
    });
    thread_ = std::thread([this] { Run(); });
  }

  ~CoordinatorSessionImpl() override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
      if (context_ != nullptr) context_->TryCancel();
    }
    changed_.notify_all();
    thread_.join();
    // Ends a Connect that blocks, for the command queue to join.
    engine_->FaultAllGroups("the worker is stopping");
  }

 private:
  // ---- thread 1: one stream after the other ----

  void Run() {
    milliseconds backoff = options_.backoff_min;
    while (true) {
      welcomed_ = false;
      const absl::Status status = RunStream();
      if (welcomed_) backoff = options_.backoff_min;
      std::unique_lock<std::mutex> lock(mutex_);
      if (stopping_) return;
      LogLoss(status);
      changed_.wait_for(lock, backoff, [this] { return stopping_; });
      if (stopping_) return;
      backoff = std::min(backoff * 2, options_.backoff_max);
    }
  }

  absl::Status RunStream() {
    grpc::ClientContext context;  // without a deadline: open as long as both live
    if (!Attach(&context)) return absl::CancelledError("stopping");
    const std::unique_ptr<Stream> stream = stub_->WorkerSession(&context);
    outbox_->Open(++stream_number_);
    if (stream->Write(Hello(options_.identity))) {
      std::thread writer([&] { Write(stream.get(), &context); });
      v1::WorkerCommand command;
      while (stream->Read(&command) && Obey(command)) {
      }
      context.TryCancel();
      outbox_->Close();
      LoseGroups();
      writer.join();
    }
    const grpc::Status status = stream->Finish();
    Attach(nullptr);
    for (absl::Status* own : {&refusal_, &given_up_}) {
      if (!own->ok()) return std::exchange(*own, absl::OkStatus());
    }
    return FromGrpcStatus(status);
  }

  // Makes the running call known to the destructor. False: it has been called.
  bool Attach(grpc::ClientContext* context) {
    const std::lock_guard<std::mutex> lock(mutex_);
    context_ = context;
    return !stopping_;
  }

  void LoseGroups() {
    commands_.Clear();
    if (!welcomed_) return;
    engine_->FaultAllGroups(absl::StrCat("coordinator ", options_.coordinator_address, " lost"));
    if (options_.on_connected) options_.on_connected(false);
  }

  void LogLoss(const absl::Status& status) {
    const std::string text = status.ToString();
    if (text == last_loss_ && !welcomed_) return;
    last_loss_ = text;
    spdlog::warn("coordinator {}: {}; trying again", options_.coordinator_address, text);
  }

  // False: the stream must end, `refusal_` says why.
  bool Obey(const v1::WorkerCommand& command) {
    if (!welcomed_ && !command.has_welcome()) {
      return Refuse(absl::FailedPreconditionError("a command before Welcome"));
    }
    switch (command.command_case()) {
      case v1::WorkerCommand::kWelcome:
        return Begin(command.welcome());
      case v1::WorkerCommand::kPrepare:
        return Enqueue(command.prepare());
      case v1::WorkerCommand::kConnect:
        return Enqueue(command.connect());
      case v1::WorkerCommand::kFault:
        EndEpoch(VerdictFromProto(command.fault()));
        return true;
      case v1::WorkerCommand::kRelease:
        Release(command.release());
        return Enqueue(command.release());
      case v1::WorkerCommand::COMMAND_NOT_SET:
        break;
    }
    // Of a newer coordinator: what it is for is not known here, so that it is ours to do neither.
    spdlog::warn("coordinator {}: a command that this version does not know",
                 options_.coordinator_address);
    return true;
  }

  bool Begin(const v1::Welcome& welcome) {
    if (welcome.term() < term_) {
      if (sink_ != nullptr) sink_->Increment(metrics::MetricId::kStaleEpoch, {});
      return Refuse(absl::FailedPreconditionError(absl::StrCat(
          "a coordinator of term ", welcome.term(), ", but term ", term_, " has been seen")));
    }
    term_ = welcome.term();
    engine_->SetTerm(term_);
    interval_ms_ = std::clamp(welcome.heartbeat_interval_ms(), 10, 10'000);
    lease_ms_ = std::max(welcome.lease_ms(), 2 * interval_ms_.load());
    spdlog::info("coordinator {}: welcomed as {}, term {}", options_.coordinator_address,
                 options_.identity.name, term_);
    last_loss_.clear();
    welcomed_ = true;
    outbox_->Wake();
    if (options_.on_connected) options_.on_connected(true);
    return true;
  }

  bool Enqueue(WorkerCommandQueue::Command command) {
    if (commands_.Push(stream_number_, std::move(command))) return true;
    return Refuse(absl::ResourceExhaustedError(absl::StrCat(
        "more than ", WorkerCommandQueue::kMaxWaiting, " commands of the coordinator wait")));
  }

  // At once, whatever the command queue is doing.
  void EndEpoch(const worker::FaultVerdict& verdict) {
    spdlog::warn("group {} epoch {}: {} ({}, rank {}, step {})", verdict.group, verdict.epoch,
                 verdict.message, verdict.reason, verdict.culprit_rank, verdict.step);
    commands_.Forget(verdict.group, verdict.epoch);
    engine_->FaultGroup(verdict);
  }

  void Release(const v1::ReleaseGroup& release) {
    commands_.Forget(release.group(), release.epoch());
    worker::FaultVerdict verdict;
    verdict.group = release.group();
    verdict.epoch = release.epoch();
    verdict.reason = "RELEASED";
    verdict.message = "the group was released";
    engine_->FaultGroup(verdict);
  }

  bool Refuse(absl::Status why) {
    refusal_ = std::move(why);
    return false;
  }

  // ---- thread 2: heartbeats, answers and reports ----

  void Write(Stream* stream, grpc::ClientContext* context) {
    const Clock::time_point welcome_by = Clock::now() + options_.welcome_timeout;
    Clock::time_point last_beat{};
    uint64_t sequence = 0;
    while (true) {
      const bool beating = welcomed_;
      const bool first = last_beat == Clock::time_point{};
      const Clock::time_point due = !beating ? welcome_by
                                    : first  ? Clock::now()
                                             : last_beat + milliseconds(interval_ms_);
      WorkerOutbox::Next next = outbox_->Take(due);
      if (!next.open) return;
      const Clock::time_point now = Clock::now();
      if (!beating && !welcomed_ && now >= welcome_by) {
        return GiveUp(context, absl::DeadlineExceededError("it did not welcome this worker"));
      }
      if (!first && now - last_beat > milliseconds(lease_ms_)) {
        return GiveUp(context, absl::AbortedError("this worker stood still for longer than its "
                                                  "lease: it must be taken for lost"));
      }
      if (beating && now >= due) {
        next.messages.push_back(Heartbeat(++sequence));
        last_beat = now;
      }
      for (const v1::WorkerMessage& message : next.messages) {
        if (!stream->Write(message)) return;
      }
    }
  }

  // The reading thread sees the end of the stream and does the rest.
  void GiveUp(grpc::ClientContext* context, absl::Status why) {
    given_up_ = std::move(why);
    context->TryCancel();
  }

  v1::WorkerMessage Heartbeat(uint64_t sequence) const {
    v1::WorkerMessage message;
    v1::WorkerHeartbeat* beat = message.mutable_heartbeat();
    beat->set_sequence(sequence);
    beat->set_used_bytes(engine_->used_bytes());
    for (const worker::Progress& progress : engine_->RunningRequests()) {
      *beat->add_progress() = ProgressToProto(progress);
    }
    return message;
  }

  const CoordinatorSessionOptions options_;
  worker::Engine* const engine_;
  metrics::MetricSink* const sink_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Coordinator::Stub> stub_;
  const std::shared_ptr<WorkerOutbox> outbox_ = std::make_shared<WorkerOutbox>();
  WorkerCommandQueue commands_;

  // Written by thread 1, read by thread 2.
  std::atomic<bool> welcomed_{false};
  std::atomic<int> interval_ms_{250};
  std::atomic<int> lease_ms_{1000};

  // Of thread 1 alone.
  uint64_t stream_number_ = 0;
  uint64_t term_ = 0;
  absl::Status refusal_;
  absl::Status given_up_;  // of thread 2 until it is joined
  std::string last_loss_;

  std::mutex mutex_;
  std::condition_variable changed_;
  grpc::ClientContext* context_ = nullptr;  // guarded by mutex_
  bool stopping_ = false;                   // guarded by mutex_
  std::thread thread_;
};

}  // namespace

std::unique_ptr<CoordinatorSession> CoordinatorSession::Start(
    const CoordinatorSessionOptions& options, worker::Engine* engine, metrics::MetricSink* sink) {
  return std::make_unique<CoordinatorSessionImpl>(options, engine, sink);
}

}  // namespace annulus::rpc
