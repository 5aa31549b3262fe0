// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/worker_service.h"

#include <algorithm>
#include <atomic>
#include <ctime>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "annulus/v1/worker.grpc.pb.h"
#include "server/base/fault_info.h"
#include "server/base/status_macros.h"
#include "server/rpc/call_pool.h"
#include "server/rpc/call_record.h"
#include "server/rpc/status_codec.h"
#include "server/rpc/worker_convert.h"
#include "server/rpc/worker_names.h"
#include "server/rpc/worker_streams.h"

namespace annulus::rpc {
namespace {

using v1::Worker;

constexpr size_t kMaxClientName = 64;

// The generated callback service, but for the two tensor streams, which are raw.
using Base = Worker::WithRawCallbackMethod_Upload<
    Worker::WithRawCallbackMethod_Download<Worker::WithCallbackMethod_Session<
        Worker::WithCallbackMethod_Attend<Worker::WithCallbackMethod_CreateTensor<
            Worker::WithCallbackMethod_GetTensor<Worker::WithCallbackMethod_DeleteTensor<
                Worker::WithCallbackMethod_ReleaseRetained<Worker::Service>>>>>>>>;

int64_t MonotonicNow() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

absl::Status Stopping() {
  return WithFaultInfo(absl::UnavailableError("this worker is stopping"), {"WORKER_STOPPING", {}});
}

// What the reactors share. Outlives all of them: the server waits for its calls.
struct Shared {
  WorkerServiceOptions options;
  worker::Engine* engine;
  metrics::MetricSink* sink;
  CallPool pool;
  std::atomic<bool> stopping{false};
  std::atomic<int> sessions{0};

  Shared(const WorkerServiceOptions& service_options, worker::Engine* its_engine,
         metrics::MetricSink* its_sink)
      : options(service_options),
        engine(its_engine),
        sink(its_sink),
        pool(static_cast<size_t>(std::max(1, service_options.max_concurrent_requests)),
             static_cast<size_t>(std::max(1, service_options.max_concurrent_requests))) {}
};

// A client's lease: the engine's session lives as long as this stream.
class SessionReactor : public grpc::ServerBidiReactor<v1::SessionMessage, v1::SessionOpened> {
 public:
  SessionReactor(Shared* shared, grpc::CallbackServerContext* context)
      : shared_(shared), context_(context), record_(shared->sink, "Session") {
    ++shared_->sessions;
    StartRead(&message_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return End(Conclude());
    absl::Status status = Open();
    if (!status.ok()) return End(status);
    StartWrite(&opened_);
    StartRead(&message_);
  }

  void OnDone() override {
    if (!session_id_.empty()) shared_->engine->CloseSession(session_id_);
    --shared_->sessions;
    delete this;
  }

 private:
  absl::Status Open() {
    if (!session_id_.empty()) {
      return absl::InvalidArgumentError("a session is opened once, got a second Open");
    }
    if (shared_->stopping) return Stopping();
    if (shared_->sessions > shared_->options.max_sessions) {
      return absl::ResourceExhaustedError(
          absl::StrCat("at most ", shared_->options.max_sessions, " sessions"));
    }
    if (message_.client().size() > kMaxClientName) {
      return absl::InvalidArgumentError(absl::StrCat("client: expected at most ", kMaxClientName,
                                                     " bytes, got ", message_.client().size()));
    }
    session_id_ = shared_->engine->OpenSession(message_.client());
    if (session_id_.empty()) return absl::ResourceExhaustedError("no more sessions can be opened");
    opened_.set_session_id(session_id_);
    opened_.set_incarnation(shared_->options.incarnation);
    opened_.set_host_id(shared_->options.host_id);
    opened_.set_region_socket(shared_->options.region_socket);
    return absl::OkStatus();
  }

  absl::Status Conclude() const {
    if (context_->IsCancelled()) return absl::CancelledError("the client went away");
    if (session_id_.empty()) return absl::InvalidArgumentError("a session without Open");
    return absl::OkStatus();
  }

  void End(const absl::Status& status) {
    record_.End(status);
    Finish(ToGrpcStatus(status));
  }

  Shared* const shared_;
  grpc::CallbackServerContext* const context_;
  CallRecord record_;
  v1::SessionMessage message_;
  v1::SessionOpened opened_;
  std::string session_id_;
};

// One Attend: waits in the pool's queue, runs there, answers from there.
class AttendReactor : public grpc::ServerUnaryReactor {
 public:
  AttendReactor(Shared* shared, grpc::CallbackServerContext* context,
                const v1::AttendRequest* request, v1::AttendResponse* response)
      : shared_(shared),
        record_(shared->sink, "Attend"),
        request_(request),
        response_(response),
        arrival_ns_(MonotonicNow()),
        deadline_ns_(Deadline(*context)) {
    if (shared_->stopping) {
      End(Stopping());
    } else if (!shared_->pool.Submit([this] { Run(); })) {
      End(TooMany());
    }
  }

  void OnCancel() override { *cancelled_ = true; }
  void OnDone() override { delete this; }

 private:
  absl::Status TooMany() const {
    return WithFaultInfo(absl::ResourceExhaustedError(absl::StrCat(
                             "this worker runs ", shared_->options.max_concurrent_requests,
                             " requests and as many wait; try again later")),
                         {"TOO_MANY_REQUESTS", {}});
  }

  // The call's own deadline, or the default one, on CLOCK_MONOTONIC.
  int64_t Deadline(const grpc::CallbackServerContext& context) const {
    double limit_seconds = shared_->options.default_deadline_seconds;
    // The client's own limit comes before its deadline, so that the answer is still heard.
    const double asked_seconds = request_->timeout_seconds();
    if (asked_seconds > 0) limit_seconds = std::min(limit_seconds, asked_seconds);
    const auto limit = std::chrono::duration_cast<std::chrono::nanoseconds>(
        std::chrono::duration<double>(limit_seconds));
    // Compared as time points: far deadlines overflow when a duration is made of them.
    const auto now = std::chrono::system_clock::now();
    if (context.deadline() >= now + limit) return arrival_ns_ + limit.count();
    return arrival_ns_ +
           std::chrono::duration_cast<std::chrono::nanoseconds>(context.deadline() - now).count();
  }

  // Nothing of this object may be touched after End.
  void Run() {
    const int64_t start_ns = MonotonicNow();
    absl::StatusOr<worker::AttendAnswer> answer = Attend(start_ns);
    int64_t first_op_ns = start_ns;
    if (answer.ok()) {
      first_op_ns = std::max(first_op_ns, answer->timeline.start_ns);
      *response_ = AttendResponseToProto(*answer, request_->fence(), request_->record_timeline());
    }
    if (shared_->sink != nullptr) {
      shared_->sink->Observe(metrics::MetricId::kQueueDuration, {},
                             static_cast<double>(first_op_ns - arrival_ns_) * 1e-9);
    }
    End(answer.status());
  }

  absl::StatusOr<worker::AttendAnswer> Attend(int64_t now_ns) {
    if (*cancelled_) return absl::CancelledError("cancelled while waiting to run");
    if (now_ns >= deadline_ns_) {
      return absl::DeadlineExceededError("the deadline passed while waiting to run");
    }
    ANNULUS_ASSIGN_OR_RETURN(worker::AttendCall call, AttendCallFromProto(*request_));
    ANNULUS_ASSIGN_OR_RETURN(const std::optional<double> timeout, CallTimeout(*request_));
    call.deadline_ns = deadline_ns_;
    if (timeout) {
      call.deadline_ns = std::min(deadline_ns_, arrival_ns_ + static_cast<int64_t>(*timeout * 1e9));
    }
    // Shared, because the engine may keep the call beyond this one.
    call.cancelled = [cancelled = cancelled_] { return cancelled->load(); };
    ANNULUS_ASSIGN_OR_RETURN(worker::AttendAnswer answer, shared_->engine->Attend(call));
    if (shared_->sink != nullptr) {
      shared_->sink->Increment(metrics::MetricId::kRpcPayloadBytes, {"memfd"}, RegionBytes(call));
    }
    return answer;
  }

  void End(const absl::Status& status) {
    record_.End(status);
    Finish(ToGrpcStatus(status));
  }

  Shared* const shared_;
  CallRecord record_;
  const v1::AttendRequest* const request_;
  v1::AttendResponse* const response_;
  const int64_t arrival_ns_;
  const int64_t deadline_ns_;
  const std::shared_ptr<std::atomic<bool>> cancelled_ = std::make_shared<std::atomic<bool>>(false);
};

absl::Status CheckTensorName(const std::string& session_id, const std::string& tensor_id) {
  ANNULUS_RETURN_IF_ERROR(CheckHex("session_id", session_id, 32));
  return CheckId("tensor_id", tensor_id);
}

class WorkerServiceImpl : public WorkerService, public Base {
 public:
  WorkerServiceImpl(const WorkerServiceOptions& options, worker::Engine* engine,
                    metrics::MetricSink* sink)
      : shared_(options, engine, sink) {}

  grpc::Service* service() override { return this; }
  void BeginStop() override {
    shared_.stopping = true;
    shared_.pool.Close();
  }
  bool AwaitIdle(std::chrono::steady_clock::time_point deadline) override {
    return shared_.pool.AwaitIdle(deadline);
  }

  grpc::ServerBidiReactor<v1::SessionMessage, v1::SessionOpened>* Session(
      grpc::CallbackServerContext* context) override {
    return new SessionReactor(&shared_, context);
  }
  grpc::ServerUnaryReactor* Attend(grpc::CallbackServerContext* context,
                                   const v1::AttendRequest* request,
                                   v1::AttendResponse* response) override {
    return new AttendReactor(&shared_, context, request, response);
  }
  grpc::ServerReadReactor<grpc::ByteBuffer>* Upload(grpc::CallbackServerContext* context,
                                                    grpc::ByteBuffer* response) override {
    return StartUpload(context, response, shared_.engine, shared_.sink);
  }
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Download(grpc::CallbackServerContext*,
                                                       const grpc::ByteBuffer* request) override {
    return StartDownload(request, shared_.engine, shared_.sink);
  }

  grpc::ServerUnaryReactor* CreateTensor(grpc::CallbackServerContext* context,
                                         const v1::CreateTensorRequest* request,
                                         v1::CreateTensorResponse*) override {
    return Answer(context, "CreateTensor", [&]() -> absl::Status {
      ANNULUS_RETURN_IF_ERROR(CheckTensorName(request->session_id(), request->tensor_id()));
      return shared_.engine->CreateTensor(request->session_id(), request->tensor_id(),
                                          request->bytes());
    });
  }
  grpc::ServerUnaryReactor* GetTensor(grpc::CallbackServerContext* context,
                                      const v1::GetTensorRequest* request,
                                      v1::GetTensorResponse* response) override {
    return Answer(context, "GetTensor", [&]() -> absl::Status {
      ANNULUS_RETURN_IF_ERROR(CheckTensorName(request->session_id(), request->tensor_id()));
      ANNULUS_ASSIGN_OR_RETURN(const auto tensor, shared_.engine->ReadTensor(request->session_id(),
                                                                             request->tensor_id()));
      response->set_bytes(tensor.bytes);
      response->set_committed_bytes(tensor.committed_bytes);
      return absl::OkStatus();
    });
  }
  grpc::ServerUnaryReactor* DeleteTensor(grpc::CallbackServerContext* context,
                                         const v1::DeleteTensorRequest* request,
                                         v1::DeleteTensorResponse*) override {
    return Answer(context, "DeleteTensor", [&]() -> absl::Status {
      ANNULUS_RETURN_IF_ERROR(CheckTensorName(request->session_id(), request->tensor_id()));
      return shared_.engine->DeleteTensor(request->session_id(), request->tensor_id());
    });
  }
  grpc::ServerUnaryReactor* ReleaseRetained(grpc::CallbackServerContext* context,
                                            const v1::ReleaseRetainedRequest* request,
                                            v1::ReleaseRetainedResponse*) override {
    return Answer(context, "ReleaseRetained", [&]() -> absl::Status {
      ANNULUS_RETURN_IF_ERROR(CheckHex("session_id", request->session_id(), 32));
      ANNULUS_RETURN_IF_ERROR(CheckId("request_id", request->request_id()));
      return shared_.engine->ReleaseRetained(request->session_id(), request->request_id());
    });
  }

 private:
  // For calls that do not block: `act` runs here and now.
  template <typename Act>
  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, std::string_view method,
                                   Act act) {
    CallRecord record(shared_.sink, method);
    const absl::Status status = act();
    record.End(status);
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(ToGrpcStatus(status));
    return reactor;
  }

  Shared shared_;
};

}  // namespace

std::unique_ptr<WorkerService> WorkerService::Create(const WorkerServiceOptions& options,
                                                     worker::Engine* engine,
                                                     metrics::MetricSink* sink) {
  return std::make_unique<WorkerServiceImpl>(options, engine, sink);
}

}  // namespace annulus::rpc
