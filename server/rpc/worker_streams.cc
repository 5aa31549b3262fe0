// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/worker_streams.h"

#include <grpcpp/server_context.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "annulus/v1/worker.pb.h"
#include "server/base/status_macros.h"
#include "server/base/tensor_frame.h"
#include "server/rpc/call_record.h"
#include "server/rpc/status_codec.h"
#include "server/rpc/worker_names.h"

namespace annulus::rpc {
namespace {

// A DownloadRequest names two ids and two numbers.
constexpr size_t kMaxDownloadRequestBytes = 1024;

std::vector<std::string_view> Views(const std::vector<grpc::Slice>& slices) {
  std::vector<std::string_view> views;
  for (const grpc::Slice& slice : slices) {
    views.emplace_back(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return views;
}

void CountStreamBytes(metrics::MetricSink* sink, uint64_t bytes) {
  if (sink == nullptr) return;
  sink->Increment(metrics::MetricId::kRpcPayloadBytes, {"stream"}, static_cast<double>(bytes));
}

class UploadReactor : public grpc::ServerReadReactor<grpc::ByteBuffer> {
 public:
  UploadReactor(grpc::CallbackServerContext* context, grpc::ByteBuffer* response,
                worker::Engine* engine, metrics::MetricSink* sink)
      : context_(context),
        response_(response),
        engine_(engine),
        sink_(sink),
        record_(sink, "Upload") {
    StartRead(&message_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return End(Conclude());
    absl::Status status = Consume();
    if (!status.ok()) return End(status);
    StartRead(&message_);
  }
  void OnDone() override { delete this; }

 private:
  absl::Status Consume() {
    std::vector<grpc::Slice> slices;
    if (!message_.Dump(&slices).ok()) return absl::InternalError("cannot read a frame");
    const std::vector<std::string_view> views = Views(slices);
    ANNULUS_ASSIGN_OR_RETURN(const TensorFrameView frame, ParseTensorFrame(views));
    ANNULUS_RETURN_IF_ERROR(Identify(frame.header));
    ANNULUS_RETURN_IF_ERROR(CheckOffset(frame.header.offset));
    for (const std::string_view piece : frame.data) {
      ANNULUS_ASSIGN_OR_RETURN(committed_, engine_->WriteTensor(session_id_, tensor_id_, committed_,
                                                                piece.data(), piece.size()));
    }
    CountStreamBytes(sink_, frame.data_bytes);
    return absl::OkStatus();
  }

  // The first frame says which tensor; a later one may not say another.
  absl::Status Identify(const TensorFrameHeader& header) {
    if (tensor_id_.empty()) {
      ANNULUS_RETURN_IF_ERROR(CheckHex("session_id", header.session_id, 32));
      ANNULUS_RETURN_IF_ERROR(CheckId("tensor_id", header.tensor_id));
      session_id_ = header.session_id;
      tensor_id_ = header.tensor_id;
      ANNULUS_ASSIGN_OR_RETURN(const auto tensor, engine_->ReadTensor(session_id_, tensor_id_));
      committed_ = tensor.committed_bytes;
      return absl::OkStatus();
    }
    if ((!header.session_id.empty() && header.session_id != session_id_) ||
        (!header.tensor_id.empty() && header.tensor_id != tensor_id_)) {
      return absl::InvalidArgumentError("an upload stream fills one tensor, got a second");
    }
    return absl::OkStatus();
  }

  absl::Status CheckOffset(uint64_t offset) const {
    if (offset == committed_) return absl::OkStatus();
    return absl::OutOfRangeError(absl::StrCat("tensor ", tensor_id_, ": ", committed_,
                                              " bytes are committed, got a frame at ", offset));
  }

  absl::Status Conclude() {
    if (context_->IsCancelled()) return absl::CancelledError("upload cancelled");
    if (tensor_id_.empty()) return absl::InvalidArgumentError("an upload without a frame");
    v1::UploadResponse response;
    response.set_committed_bytes(committed_);
    const grpc::Slice slice(response.SerializeAsString());
    *response_ = grpc::ByteBuffer(&slice, 1);
    return absl::OkStatus();
  }

  void End(const absl::Status& status) {
    record_.End(status);
    Finish(ToGrpcStatus(status));
  }

  grpc::CallbackServerContext* const context_;
  grpc::ByteBuffer* const response_;
  worker::Engine* const engine_;
  metrics::MetricSink* const sink_;
  CallRecord record_;
  grpc::ByteBuffer message_;
  std::string session_id_;
  std::string tensor_id_;
  uint64_t committed_ = 0;
};

absl::StatusOr<v1::DownloadRequest> ParseDownloadRequest(const grpc::ByteBuffer& message) {
  if (message.Length() > kMaxDownloadRequestBytes) {
    return absl::InvalidArgumentError(absl::StrCat("download request of ", message.Length(),
                                                   " bytes, at most ", kMaxDownloadRequestBytes));
  }
  std::vector<grpc::Slice> slices;
  if (!message.Dump(&slices).ok()) return absl::InternalError("cannot read a download request");
  std::string bytes;
  for (const std::string_view view : Views(slices)) bytes.append(view);
  v1::DownloadRequest request;
  if (!request.ParseFromString(bytes)) {
    return absl::InvalidArgumentError("malformed download request");
  }
  ANNULUS_RETURN_IF_ERROR(CheckHex("session_id", request.session_id(), 32));
  ANNULUS_RETURN_IF_ERROR(CheckId("tensor_id", request.tensor_id()));
  return request;
}

class DownloadReactor : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  DownloadReactor(const grpc::ByteBuffer* request, worker::Engine* engine,
                  metrics::MetricSink* sink)
      : sink_(sink), record_(sink, "Download") {
    const absl::Status status = Open(*request, engine);
    if (status.ok()) {
      SendNext();
    } else {
      End(status);
    }
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return End(absl::CancelledError("download cancelled"));
    CountStreamBytes(sink_, frame_bytes_);
    SendNext();
  }
  void OnDone() override { delete this; }

 private:
  absl::Status Open(const grpc::ByteBuffer& message, worker::Engine* engine) {
    ANNULUS_ASSIGN_OR_RETURN(const v1::DownloadRequest request, ParseDownloadRequest(message));
    ANNULUS_ASSIGN_OR_RETURN(tensor_,
                             engine->ReadTensor(request.session_id(), request.tensor_id()));
    position_ = request.offset();
    if (position_ > tensor_.bytes || request.length() > tensor_.bytes - position_) {
      return absl::OutOfRangeError(absl::StrCat("tensor ", request.tensor_id(), " has ",
                                                tensor_.bytes, " bytes, got offset ", position_,
                                                " and length ", request.length()));
    }
    end_ = request.length() == 0 ? tensor_.bytes : position_ + request.length();
    return absl::OkStatus();
  }

  void SendNext() {
    if (position_ == end_) return End(absl::OkStatus());
    frame_bytes_ = std::min<uint64_t>(end_ - position_, kTensorFrameBytes);
    const grpc::Slice parts[] = {
        grpc::Slice(EncodeTensorFrameHeader({"", "", position_}, frame_bytes_)),
        Share(tensor_.data + position_, frame_bytes_)};
    frame_ = grpc::ByteBuffer(parts, 2);
    position_ += frame_bytes_;
    StartWrite(&frame_);
  }

  // A slice that keeps the tensor's memory: the transport may hold it beyond the end of the call.
  grpc::Slice Share(const uint8_t* data, uint64_t bytes) const {
    using Keeper = std::shared_ptr<const void>;
    return grpc::Slice(
        const_cast<uint8_t*>(data), bytes,
        [](void* keeper) { delete static_cast<Keeper*>(keeper); }, new Keeper(tensor_.keep_alive));
  }

  void End(const absl::Status& status) {
    record_.End(status);
    Finish(ToGrpcStatus(status));
  }

  metrics::MetricSink* const sink_;
  CallRecord record_;
  worker::Engine::TensorBytes tensor_;
  uint64_t position_ = 0;
  uint64_t end_ = 0;
  uint64_t frame_bytes_ = 0;
  grpc::ByteBuffer frame_;
};

}  // namespace

grpc::ServerReadReactor<grpc::ByteBuffer>* StartUpload(grpc::CallbackServerContext* context,
                                                       grpc::ByteBuffer* response,
                                                       worker::Engine* engine,
                                                       metrics::MetricSink* sink) {
  return new UploadReactor(context, response, engine, sink);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* StartDownload(const grpc::ByteBuffer* request,
                                                          worker::Engine* engine,
                                                          metrics::MetricSink* sink) {
  return new DownloadReactor(request, engine, sink);
}

}  // namespace annulus::rpc
