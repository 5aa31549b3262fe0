// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/coordinator_service.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "annulus/v1/coordinator.grpc.pb.h"
#include "server/base/fault_info.h"
#include "server/base/rpc_settings.h"
#include "server/coordinator/group_options.h"
#include "server/coordinator/plan_cache.h"
#include "server/rpc/call_pool.h"
#include "server/rpc/call_record.h"
#include "server/rpc/coordinator_convert.h"
#include "server/rpc/coordinator_loop.h"
#include "server/rpc/coordinator_observer.h"
#include "server/rpc/coordinator_stream.h"
#include "server/rpc/status_codec.h"

namespace annulus::rpc {
namespace {

using coordinator::CallId;
using coordinator::SessionId;
using coordinator::State;
using coordinator::TimeMs;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

constexpr TimeMs kDefaultEnsureMs = 60'000;
constexpr TimeMs kEnsureMaxMs = 3'600'000;
constexpr TimeMs kHelloWithinMs = 5'000;
constexpr size_t kSpareSessions = 64;
constexpr size_t kPlansWaitingMax = 64;
// A plan must fit into a message beside its frame.
constexpr size_t kPlanBytesMax = kMaxMessageBytes - 1024;

absl::Status Stopping() {
  return WithFaultInfo(absl::UnavailableError("this coordinator is stopping"),
                       FaultInfo{"COORDINATOR_STOPPING", {}});
}

// How long an EnsureGroup may wait: the answer has to leave before the caller's own deadline.
TimeMs WaitFor(const CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return kDefaultEnsureMs;
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
      deadline - std::chrono::system_clock::now());
  const TimeMs left_ms = std::clamp<TimeMs>(left.count(), 0, kEnsureMaxMs);
  return left_ms - std::min<TimeMs>(left_ms / 5, 250);
}

// A unary call that is answered later, by whoever takes it from the service.
class EnsureCall final : public ServerUnaryReactor {
 public:
  EnsureCall(metrics::MetricSink* sink, v1::Group* response, std::function<void()> on_cancel)
      : record_(sink, "EnsureGroup"), response_(response), on_cancel_(std::move(on_cancel)) {}
  v1::Group* response() { return response_; }
  void Answer(const absl::Status& status) {
    record_.End(status);
    Finish(ToGrpcStatus(status));
  }

 private:
  void OnCancel() override { on_cancel_(); }
  void OnDone() override { delete this; }

  CallRecord record_;
  v1::Group* const response_;
  const std::function<void()> on_cancel_;
};

class Service final : public CoordinatorService, public v1::Coordinator::CallbackService {
 public:
  Service(const CoordinatorServiceOptions& options, metrics::MetricSink* sink)
      : settings_(options.settings),
        sink_(sink),
        observer_(sink),
        plans_({}),
        planner_(std::make_unique<CallPool>(1, kPlansWaitingMax)),
        loop_(CoordinatorLoop::Start(
            options.settings, options.term,
            {.perform = [this](coordinator::Action& action) { Perform(action); },
             .after_tick = [this](const State& state, TimeMs now) { AfterTick(state, now); }})) {}

  grpc::Service* service() override { return this; }
  void BeginStop() override;

 private:
  grpc::ServerBidiReactor<v1::WorkerMessage, v1::WorkerCommand>* WorkerSession(
      CallbackServerContext* context) override;
  ServerUnaryReactor* EnsureGroup(CallbackServerContext* context,
                                  const v1::EnsureGroupRequest* request,
                                  v1::Group* response) override;
  ServerUnaryReactor* GetGroup(CallbackServerContext* context, const v1::GetGroupRequest* request,
                               v1::Group* response) override;
  ServerUnaryReactor* ListGroups(CallbackServerContext* context, const v1::ListGroupsRequest*,
                                 v1::ListGroupsResponse* response) override;
  ServerUnaryReactor* DeleteGroup(CallbackServerContext* context,
                                  const v1::DeleteGroupRequest* request,
                                  v1::DeleteGroupResponse*) override;
  ServerUnaryReactor* ListWorkers(CallbackServerContext* context, const v1::ListWorkersRequest*,
                                  v1::ListWorkersResponse* response) override;
  ServerUnaryReactor* PreparePlan(CallbackServerContext* context,
                                  const v1::PreparePlanRequest* request,
                                  v1::PreparePlanResponse* response) override;
  ServerUnaryReactor* GetPlan(CallbackServerContext* context, const v1::GetPlanRequest* request,
                              v1::GetPlanResponse* response) override;

  // Answers `method` at once.
  ServerUnaryReactor* Answer(CallbackServerContext* context, const char* method,
                             const absl::Status& status);
  // Answers `method` from the loop, with what `fill` says of the state.
  template <typename Fill>
  ServerUnaryReactor* AnswerFromState(CallbackServerContext* context, const char* method,
                                      Fill fill);
  absl::StatusOr<coordinator::SharedPlan> MakePlan(const ring::Spec& spec, bool* cached);

  // On the loop's thread.
  void Perform(coordinator::Action& action);
  void AfterTick(const State& state, TimeMs now);

  void AnswerEnsure(CallId id, const absl::Status& status, const coordinator::GroupView* view);
  std::shared_ptr<CoordinatorStream> FindStream(SessionId id);
  // Ends the streams that `choose` picks, outside the lock.
  template <typename Choose>
  void CloseStreams(const absl::Status& status, Choose choose);

  const coordinator::Settings settings_;
  metrics::MetricSink* const sink_;
  CoordinatorObserver observer_;
  coordinator::PlanCache plans_;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::map<SessionId, std::shared_ptr<CoordinatorStream>> streams_;  // guarded by mutex_
  std::map<CallId, EnsureCall*> calls_;                              // guarded by mutex_
  uint64_t next_id_ = 1;                                             // guarded by mutex_
  // The loop uses all of the above and goes first.
  std::unique_ptr<CallPool> planner_;
  std::unique_ptr<CoordinatorLoop> loop_;
};

void Service::BeginStop() {
  stopping_ = true;
  planner_->Close();
  CloseStreams(Stopping(), [](const CoordinatorStream&) { return true; });
  std::map<CallId, EnsureCall*> calls;
  {
    const std::lock_guard lock(mutex_);
    calls.swap(calls_);
  }
  for (const auto& [id, call] : calls) call->Answer(Stopping());
}

template <typename Choose>
void Service::CloseStreams(const absl::Status& status, Choose choose) {
  std::vector<std::shared_ptr<CoordinatorStream>> chosen;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, stream] : streams_) {
      if (choose(*stream)) chosen.push_back(stream);
    }
  }
  for (const auto& stream : chosen) stream->Close(status);
}

std::shared_ptr<CoordinatorStream> Service::FindStream(SessionId id) {
  const std::lock_guard lock(mutex_);
  const auto found = streams_.find(id);
  return found == streams_.end() ? nullptr : found->second;
}

void Service::Perform(coordinator::Action& action) {
  if (auto* answer = std::get_if<coordinator::AnswerCall>(&action)) {
    return AnswerEnsure(answer->call, answer->status, answer->group ? &*answer->group : nullptr);
  }
  if (auto* close = std::get_if<coordinator::CloseSession>(&action)) {
    if (const auto stream = FindStream(close->session)) stream->Close(close->status);
    return;
  }
  if (observer_.Observe(action)) return;
  if (const auto stream = FindStream(SessionOf(action))) stream->Send(std::move(action));
}

void Service::AfterTick(const State& state, TimeMs now) {
  observer_.AfterTick(state, now, plans_.counts().plans);
  const auto mute = [&](const CoordinatorStream& stream) {
    return !stream.said_hello() && now - stream.opened_ms() > kHelloWithinMs;
  };
  CloseStreams(absl::DeadlineExceededError(
                   absl::StrCat("expected hello within ", kHelloWithinMs, " ms, got nothing")),
               mute);
}

grpc::ServerBidiReactor<v1::WorkerMessage, v1::WorkerCommand>* Service::WorkerSession(
    CallbackServerContext*) {
  std::shared_ptr<CoordinatorStream> stream;
  absl::Status refusal = stopping_ ? Stopping() : absl::OkStatus();
  {
    const std::lock_guard lock(mutex_);
    const SessionId id = next_id_++;
    stream = std::make_shared<CoordinatorStream>(id, loop_.get(), [this](SessionId done) {
      const std::lock_guard done_lock(mutex_);
      streams_.erase(done);
    });
    if (streams_.size() >= settings_.workers_max + kSpareSessions) {
      refusal = absl::ResourceExhaustedError(
          absl::StrCat("at most ", settings_.workers_max, " workers, all sessions taken"));
    }
    streams_[id] = stream;
  }
  stream->Open();
  if (!refusal.ok()) stream->Close(refusal);
  return stream.get();
}

ServerUnaryReactor* Service::Answer(CallbackServerContext* context, const char* method,
                                    const absl::Status& status) {
  CallRecord(sink_, method).End(status);
  ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

template <typename Fill>
ServerUnaryReactor* Service::AnswerFromState(CallbackServerContext* context, const char* method,
                                             Fill fill) {
  ServerUnaryReactor* reactor = context->DefaultReactor();
  loop_->Ask([reactor, fill = std::move(fill), record = CallRecord(sink_, method)](
                 const State& state, TimeMs now) mutable {
    const absl::Status status = fill(state, now);
    record.End(status);
    reactor->Finish(ToGrpcStatus(status));
  });
  return reactor;
}

ServerUnaryReactor* Service::EnsureGroup(CallbackServerContext* context,
                                         const v1::EnsureGroupRequest* request,
                                         v1::Group* response) {
  if (stopping_) return Answer(context, "EnsureGroup", Stopping());
  coordinator::EnsureGroup event{.name = request->name(),
                                 .options = OptionsFromProto(request->options()),
                                 .after_epoch = request->after_epoch(),
                                 .deadline_ms = loop_->Now() + WaitFor(*context)};
  EnsureCall* call = nullptr;
  {
    const std::lock_guard lock(mutex_);
    event.call = next_id_++;
    call = new EnsureCall(sink_, response, [this, id = event.call] {
      loop_->Post(coordinator::CallCancelled{id},
                  [this, id] { AnswerEnsure(id, absl::CancelledError("by the caller"), nullptr); });
    });
    calls_[event.call] = call;
  }
  loop_->Post(std::move(event), nullptr);
  return call;
}

void Service::AnswerEnsure(CallId id, const absl::Status& status,
                           const coordinator::GroupView* view) {
  EnsureCall* call = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const auto found = calls_.find(id);
    if (found == calls_.end()) return;
    call = found->second;
    calls_.erase(found);
  }
  if (view != nullptr) GroupToProto(*view, call->response());
  call->Answer(status);
}

ServerUnaryReactor* Service::GetGroup(CallbackServerContext* context,
                                      const v1::GetGroupRequest* request, v1::Group* response) {
  if (absl::Status name = coordinator::CheckName("group", request->name()); !name.ok()) {
    return Answer(context, "GetGroup", name);
  }
  return AnswerFromState(context, "GetGroup", [request, response](const State& state, TimeMs) {
    const auto found = state.groups.find(request->name());
    if (found == state.groups.end()) {
      return absl::NotFoundError(absl::StrCat("group '", request->name(), "' is not there"));
    }
    GroupToProto(ViewOf(state, found->second), response);
    return absl::OkStatus();
  });
}

ServerUnaryReactor* Service::ListGroups(CallbackServerContext* context,
                                        const v1::ListGroupsRequest*,
                                        v1::ListGroupsResponse* response) {
  return AnswerFromState(context, "ListGroups", [response](const State& state, TimeMs) {
    for (const auto& [name, group] : state.groups) {
      GroupToProto(ViewOf(state, group), response->add_groups());
    }
    return absl::OkStatus();
  });
}

ServerUnaryReactor* Service::DeleteGroup(CallbackServerContext* context,
                                         const v1::DeleteGroupRequest* request,
                                         v1::DeleteGroupResponse*) {
  if (absl::Status name = coordinator::CheckName("group", request->name()); !name.ok()) {
    return Answer(context, "DeleteGroup", name);
  }
  // Posted before the query: answered when the group is gone.
  loop_->Post(coordinator::DeleteGroup{request->name()}, nullptr);
  return AnswerFromState(context, "DeleteGroup",
                         [](const State&, TimeMs) { return absl::OkStatus(); });
}

ServerUnaryReactor* Service::ListWorkers(CallbackServerContext* context,
                                         const v1::ListWorkersRequest*,
                                         v1::ListWorkersResponse* response) {
  return AnswerFromState(context, "ListWorkers", [response](const State& state, TimeMs now) {
    for (const auto& [name, worker] : state.workers) {
      WorkerToProto(worker, now, response->add_workers());
    }
    response->set_term(state.term);
    return absl::OkStatus();
  });
}

absl::StatusOr<coordinator::SharedPlan> Service::MakePlan(const ring::Spec& spec, bool* cached) {
  coordinator::SharedPlan plan = plans_.Find(spec);
  *cached = plan != nullptr;
  if (plan != nullptr) return plan;
  return plans_.Make(spec, kPlanBytesMax);
}

ServerUnaryReactor* Service::PreparePlan(CallbackServerContext* context,
                                         const v1::PreparePlanRequest* request,
                                         v1::PreparePlanResponse* response) {
  const auto spec = SpecFromProto(request->spec());
  if (!spec.ok()) return Answer(context, "PreparePlan", spec.status());
  ServerUnaryReactor* reactor = context->DefaultReactor();
  CallRecord record(sink_, "PreparePlan");
  auto answer = [this, context, reactor, response, record, spec = *spec]() mutable {
    if (context->IsCancelled()) return reactor->Finish(grpc::Status::CANCELLED);
    bool cached = false;
    const auto plan =
        stopping_ ? absl::StatusOr<coordinator::SharedPlan>(Stopping()) : MakePlan(spec, &cached);
    if (plan.ok()) {
      response->set_digest((*plan)->digest);
      response->set_steps((*plan)->steps);
      response->set_cached(cached);
      observer_.CountPlan(**plan, spec, cached);
    }
    record.End(plan.status());
    reactor->Finish(ToGrpcStatus(plan.status()));
  };
  if (plans_.Has(*spec)) {
    answer();
  } else if (!planner_->Submit(answer)) {
    const absl::Status refusal = stopping_
                                     ? Stopping()
                                     : absl::ResourceExhaustedError(absl::StrCat(
                                           "at most ", kPlansWaitingMax, " plans wait to be made"));
    record.End(refusal);
    reactor->Finish(ToGrpcStatus(refusal));
  }
  return reactor;
}

ServerUnaryReactor* Service::GetPlan(CallbackServerContext* context,
                                     const v1::GetPlanRequest* request,
                                     v1::GetPlanResponse* response) {
  const coordinator::SharedPlan plan = plans_.FindDigest(request->digest());
  if (plan == nullptr) {
    return Answer(context, "GetPlan",
                  WithFaultInfo(absl::NotFoundError(absl::StrCat(
                                    "plan '", absl::CHexEscape(request->digest().substr(0, 64)),
                                    "' is not held by this coordinator: prepare it again")),
                                FaultInfo{"PLAN_UNKNOWN", {}}));
  }
  response->set_json(*plan->json);
  return Answer(context, "GetPlan", absl::OkStatus());
}

}  // namespace

std::unique_ptr<CoordinatorService> CoordinatorService::Create(
    const CoordinatorServiceOptions& options, metrics::MetricSink* sink) {
  return std::make_unique<Service>(options, sink);
}

}  // namespace annulus::rpc
