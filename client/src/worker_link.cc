// SPDX-License-Identifier: Apache-2.0
#include "client/src/worker_link.h"

#include <grpcpp/client_context.h>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "annulus/v1/worker.grpc.pb.h"
#include "client/src/channel.h"
#include "client/src/status_codec.h"
#include "client/src/tensor_stream.h"
#include "server/base/status_macros.h"

namespace annulus::client {
namespace {

constexpr int kStreamAttempts = 3;

// What gRPC calls back on may not drop the last reference to a channel: it would join the thread it
// runs on. So contexts, which hold one, are released before anybody who waits is told.

// The session's stream: one message each way, then open until either side goes. Whoever started it
// calls Close before the last reference goes.
class SessionStream : public grpc::ClientBidiReactor<v1::SessionMessage, v1::SessionOpened> {
 public:
  static std::unique_ptr<SessionStream> Start(v1::Worker::Stub* stub, const std::string& client) {
    auto stream = std::make_unique<SessionStream>();
    stream->hello_.set_client(client.substr(0, 64));
    stub->async()->Session(&stream->context_, stream.get());
    stream->StartWrite(&stream->hello_);
    stream->StartRead(&stream->incoming_);
    stream->StartCall();
    return stream;
  }

  // The first answer, or why there is none.
  absl::StatusOr<v1::SessionOpened> WaitOpened(absl::Time deadline) {
    absl::MutexLock lock(&mutex_);
    const auto settled = [this]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return opened_ || ended_; };
    if (!mutex_.AwaitWithDeadline(absl::Condition(&settled), deadline)) {
      return absl::UnavailableError("the worker does not open a session in time");
    }
    if (!opened_) return status_.ok() ? absl::UnavailableError("the session ended") : status_;
    return session_;
  }
  bool alive() const {
    absl::MutexLock lock(&mutex_);
    return opened_ && !ended_;
  }
  // Ends the stream and waits until gRPC is done with it, which needs no answer from the worker.
  void Close() {
    context_.TryCancel();
    done_.WaitForNotification();
  }

  void OnReadDone(bool ok) override {
    if (!ok) {  // the reason comes with OnDone
      absl::MutexLock lock(&mutex_);
      ended_ = opened_;
      return;
    }
    {
      absl::MutexLock lock(&mutex_);
      if (!opened_) session_ = incoming_;
      opened_ = true;
    }
    StartRead(&incoming_);
  }
  void OnDone(const grpc::Status& status) override {
    {
      absl::MutexLock lock(&mutex_);
      status_ = FromGrpcStatus(status);
      ended_ = true;
    }
    done_.Notify();
  }

 private:
  grpc::ClientContext context_;
  v1::SessionMessage hello_;
  v1::SessionOpened incoming_;
  absl::Notification done_;
  mutable absl::Mutex mutex_;
  bool opened_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  v1::SessionOpened session_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

class AttendInFlight : public PendingAttend {
 public:
  void Cancel() override {
    absl::MutexLock lock(&mutex_);
    if (context_ != nullptr) context_->TryCancel();
  }
  grpc::ClientContext* context() {
    absl::MutexLock lock(&mutex_);
    return context_.get();
  }
  void End(const grpc::Status& status) {
    {
      absl::MutexLock lock(&mutex_);
      context_.reset();
    }
    done(FromGrpcStatus(status), response);
  }

  v1::AttendRequest request;
  v1::AttendResponse response;
  WorkerLink::Done done;

 private:
  absl::Mutex mutex_;
  std::unique_ptr<grpc::ClientContext> context_ ABSL_GUARDED_BY(mutex_) =
      std::make_unique<grpc::ClientContext>();
};

}  // namespace

struct WorkerLink::State {
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::Worker::Stub> stub;
  std::unique_ptr<SessionStream> stream;
  v1::SessionOpened session;
  std::unique_ptr<RegionLeases> leases;

  template <typename Request, typename Response, typename Method>
  absl::StatusOr<Response> Call(Method method, Request request, absl::Time deadline) {
    request.set_session_id(session.session_id());
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(deadline));
    Response response;
    ANNULUS_RETURN_IF_ERROR(FromGrpcStatus((stub.get()->*method)(&context, request, &response)));
    return response;
  }
  absl::StatusOr<uint64_t> CommittedBytes(const std::string& tensor_id, absl::Time deadline) {
    v1::GetTensorRequest request;
    request.set_tensor_id(tensor_id);
    ANNULUS_ASSIGN_OR_RETURN(const v1::GetTensorResponse answer,
                             (Call<v1::GetTensorRequest, v1::GetTensorResponse>(
                                 &v1::Worker::Stub::GetTensor, request, deadline)));
    return answer.committed_bytes();
  }
};

absl::StatusOr<std::shared_ptr<WorkerLink>> WorkerLink::Open(const std::string& address,
                                                             const std::string& client_name,
                                                             absl::Time deadline) {
  auto state = std::make_unique<State>();
  state->channel = OpenChannel(address);
  if (!WaitUntilConnected(state->channel.get(), deadline).ok()) {
    return absl::UnavailableError(absl::StrCat("no worker answers at ", address));
  }
  state->stub = v1::Worker::NewStub(state->channel);
  state->stream = SessionStream::Start(state->stub.get(), client_name);
  auto opened = state->stream->WaitOpened(deadline);
  if (!opened.ok()) {
    state->stream->Close();
    return opened.status();
  }
  state->session = *std::move(opened);
  state->leases =
      std::make_unique<RegionLeases>(state->session.region_socket(), state->session.session_id(),
                                     [stream = state->stream.get()] { return stream->alive(); });
  return std::shared_ptr<WorkerLink>(new WorkerLink(std::move(state)));
}

WorkerLink::WorkerLink(std::unique_ptr<State> state) : state_(std::move(state)) {}

WorkerLink::~WorkerLink() { state_->stream->Close(); }

const v1::SessionOpened& WorkerLink::session() const { return state_->session; }

bool WorkerLink::alive() const { return state_->stream->alive(); }

RegionLeases& WorkerLink::leases() { return *state_->leases; }

std::shared_ptr<PendingAttend> WorkerLink::StartAttend(const v1::AttendRequest& request,
                                                       absl::Time deadline, Done done) {
  auto call = std::make_shared<AttendInFlight>();
  call->context()->set_deadline(absl::ToChronoTime(deadline));
  call->request = request;
  call->request.set_session_id(state_->session.session_id());
  call->request.mutable_fence()->set_incarnation(state_->session.incarnation());
  call->done = std::move(done);
  state_->stub->async()->Attend(call->context(), &call->request, &call->response,
                                [call](const grpc::Status& status) { call->End(status); });
  return call;
}

absl::Status WorkerLink::CreateTensor(const std::string& tensor_id, uint64_t bytes,
                                      absl::Time deadline) {
  v1::CreateTensorRequest request;
  request.set_tensor_id(tensor_id);
  request.set_bytes(bytes);
  return state_
      ->Call<v1::CreateTensorRequest, v1::CreateTensorResponse>(&v1::Worker::Stub::CreateTensor,
                                                                request, deadline)
      .status();
}

absl::Status WorkerLink::Upload(const std::string& tensor_id, const SegmentList& from,
                                absl::Time deadline) {
  const RemoteTensor tensor{state_->session.session_id(), tensor_id};
  size_t offset = 0;
  absl::Status status;
  for (int attempt = 0; attempt < kStreamAttempts; ++attempt) {
    status = UploadFrom(state_->channel, tensor, from, offset, deadline);
    if (!absl::IsUnavailable(status) && !absl::IsOutOfRange(status)) return status;
    const auto committed = state_->CommittedBytes(tensor_id, deadline);
    if (!committed.ok()) return status;
    offset = *committed;
  }
  return status;
}

absl::Status WorkerLink::Download(const std::string& tensor_id, const SegmentList& to,
                                  absl::Time deadline) {
  const RemoteTensor tensor{state_->session.session_id(), tensor_id};
  size_t offset = 0;
  absl::Status status;
  for (int attempt = 0; attempt < kStreamAttempts; ++attempt) {
    status = DownloadFrom(state_->channel, tensor, to, &offset, deadline);
    if (!absl::IsUnavailable(status) || !alive()) return status;
  }
  return status;
}

absl::Status WorkerLink::DeleteTensor(const std::string& tensor_id, absl::Time deadline) {
  v1::DeleteTensorRequest request;
  request.set_tensor_id(tensor_id);
  return state_
      ->Call<v1::DeleteTensorRequest, v1::DeleteTensorResponse>(&v1::Worker::Stub::DeleteTensor,
                                                                request, deadline)
      .status();
}

absl::Status WorkerLink::ReleaseRetained(const std::string& request_id, absl::Time deadline) {
  v1::ReleaseRetainedRequest request;
  request.set_request_id(request_id);
  return state_
      ->Call<v1::ReleaseRetainedRequest, v1::ReleaseRetainedResponse>(
          &v1::Worker::Stub::ReleaseRetained, request, deadline)
      .status();
}

}  // namespace annulus::client
