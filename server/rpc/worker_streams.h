// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include "server/metrics/metric_sink.h"
#include "server/worker/engine.h"

namespace annulus::rpc {

// The two tensor streams of annulus.v1.Worker on raw messages. Each returns a reactor that deletes
// itself when its call is over. `engine` and `sink` (may be null) outlive the call.

// Copies each frame into the tensor as it comes: one copy, from the receive buffer.
grpc::ServerReadReactor<grpc::ByteBuffer>* StartUpload(grpc::CallbackServerContext* context,
                                                       grpc::ByteBuffer* response,
                                                       worker::Engine* engine,
                                                       metrics::MetricSink* sink);

// Sends slices of the tensor's own memory, which stays until the last of them has left the process.
grpc::ServerWriteReactor<grpc::ByteBuffer>* StartDownload(const grpc::ByteBuffer* request,
                                                          worker::Engine* engine,
                                                          metrics::MetricSink* sink);

}  // namespace annulus::rpc
