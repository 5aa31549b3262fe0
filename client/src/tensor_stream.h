// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/src/segments.h"

namespace annulus::client {

// Names a tensor of a session on one worker.
struct RemoteTensor {
  std::string session_id;
  std::string tensor_id;
};

// Sends the bytes of `list` from `offset` on as raw frames. Blocks until the worker has committed
// them all or the stream broke; the memory is not referenced afterwards.
absl::Status UploadFrom(const std::shared_ptr<grpc::Channel>& channel, const RemoteTensor& tensor,
                        const SegmentList& list, size_t offset, absl::Time deadline);

// Fills the bytes of `list` from `*offset` on; `*offset` says how far it came, so that a broken
// stream is resumed by calling again.
absl::Status DownloadFrom(const std::shared_ptr<grpc::Channel>& channel, const RemoteTensor& tensor,
                          const SegmentList& list, size_t* offset, absl::Time deadline);

}  // namespace annulus::client
