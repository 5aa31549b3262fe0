// SPDX-License-Identifier: Apache-2.0
#include "client/src/tensor_stream.h"

#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "annulus/v1/worker.pb.h"
#include "client/src/frame_codec.h"
#include "client/src/status_codec.h"

namespace annulus::client {
namespace {

using RawReactor = grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;

grpc::ByteBuffer Encode(const google::protobuf::MessageLite& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

bool Decode(const grpc::ByteBuffer& buffer, google::protobuf::MessageLite* message) {
  grpc::Slice slice;
  return buffer.TrySingleSlice(&slice).ok()
             ? message->ParseFromArray(slice.begin(), static_cast<int>(slice.size()))
             : buffer.DumpToSingleSlice(&slice).ok() &&
                   message->ParseFromArray(slice.begin(), static_cast<int>(slice.size()));
}

// One frame in flight at a time: gRPC's flow control is the queue.
class UploadReactor : public RawReactor {
 public:
  UploadReactor(const RemoteTensor& tensor, const SegmentList& list, size_t offset)
      : tensor_(tensor), list_(list), cursor_(list, offset) {}

  void Start() {
    StartRead(&answer_);
    SendNext();
    StartCall();
  }
  grpc::Status Wait() {
    done_.WaitForNotification();
    return status_;
  }
  const grpc::ByteBuffer& answer() const { return answer_; }

  void OnWriteDone(bool ok) override {
    if (ok && !last_sent_) SendNext();
  }
  void OnDone(const grpc::Status& status) override {
    status_ = status;
    done_.Notify();
  }

 private:
  void SendNext() {
    frame_ =
        EncodeFrame(first_ ? tensor_.session_id : "", first_ ? tensor_.tensor_id : "", &cursor_);
    first_ = false;
    last_sent_ = cursor_.offset() == list_.bytes;
    if (last_sent_) {
      StartWriteLast(&frame_, grpc::WriteOptions());
    } else {
      StartWrite(&frame_);
    }
  }

  const RemoteTensor& tensor_;
  const SegmentList& list_;
  SegmentCursor cursor_;
  grpc::ByteBuffer frame_;
  grpc::ByteBuffer answer_;
  bool first_ = true;
  bool last_sent_ = false;
  grpc::Status status_;
  absl::Notification done_;
};

class DownloadReactor : public RawReactor {
 public:
  DownloadReactor(grpc::ClientContext* context, const v1::DownloadRequest& request,
                  const SegmentList& list, size_t offset)
      : context_(context), request_(Encode(request)), list_(list), cursor_(list, offset) {}

  void Start() {
    StartWriteLast(&request_, grpc::WriteOptions());
    StartRead(&frame_);
    StartCall();
  }
  absl::Status Wait() {
    done_.WaitForNotification();
    return bad_frame_.ok() ? FromGrpcStatus(status_) : bad_frame_;
  }
  size_t offset() const { return cursor_.offset(); }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    bad_frame_ = DecodeFrame(frame_, &cursor_, list_.bytes - cursor_.offset());
    if (bad_frame_.ok()) {
      StartRead(&frame_);
    } else {
      context_->TryCancel();
    }
  }
  void OnDone(const grpc::Status& status) override {
    status_ = status;
    done_.Notify();
  }

 private:
  grpc::ClientContext* const context_;
  grpc::ByteBuffer request_;
  grpc::ByteBuffer frame_;
  const SegmentList& list_;
  SegmentCursor cursor_;
  absl::Status bad_frame_;
  grpc::Status status_;
  absl::Notification done_;
};

}  // namespace

absl::Status UploadFrom(const std::shared_ptr<grpc::Channel>& channel, const RemoteTensor& tensor,
                        const SegmentList& list, size_t offset, absl::Time deadline) {
  if (offset >= list.bytes) return absl::OkStatus();
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  UploadReactor reactor(tensor, list, offset);
  grpc::GenericStub stub(channel);
  stub.PrepareBidiStreamingCall(&context, "/annulus.v1.Worker/Upload", {}, &reactor);
  reactor.Start();
  const grpc::Status status = reactor.Wait();
  if (!status.ok()) return FromGrpcStatus(status);
  v1::UploadResponse response;
  if (!Decode(reactor.answer(), &response) || response.committed_bytes() != list.bytes) {
    return absl::DataLossError(absl::StrCat("the worker committed ", response.committed_bytes(),
                                            " of ", list.bytes, " bytes"));
  }
  return absl::OkStatus();
}

absl::Status DownloadFrom(const std::shared_ptr<grpc::Channel>& channel, const RemoteTensor& tensor,
                          const SegmentList& list, size_t* offset, absl::Time deadline) {
  if (*offset >= list.bytes) return absl::OkStatus();
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  v1::DownloadRequest request;
  request.set_session_id(tensor.session_id);
  request.set_tensor_id(tensor.tensor_id);
  request.set_offset(*offset);
  request.set_length(list.bytes - *offset);
  DownloadReactor reactor(&context, request, list, *offset);
  grpc::GenericStub stub(channel);
  stub.PrepareBidiStreamingCall(&context, "/annulus.v1.Worker/Download", {}, &reactor);
  reactor.Start();
  absl::Status status = reactor.Wait();
  *offset = reactor.offset();
  if (status.ok() && *offset != list.bytes) {
    return absl::UnavailableError(
        absl::StrCat("the stream ended after ", *offset, " of ", list.bytes, " bytes"));
  }
  return status;
}

}  // namespace annulus::client
