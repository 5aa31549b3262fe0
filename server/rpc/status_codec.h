// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace annulus::rpc {

// absl::Status <-> grpc::Status. A FaultInfo payload (server/base/fault_info.h) travels in
// grpc-status-details-bin as a google.rpc.Status with one google.rpc.ErrorInfo of domain "annulus",
// so that any gRPC client with the standard error model reads it. Codes are the same numbers.
//
// Message and metadata are bounded (server/base/rpc_settings.h): a longer message is cut and ends
// in
// "...", metadata entries that do not fit are left out. Bytes outside ASCII become '?'.
grpc::Status ToGrpcStatus(const absl::Status& status);

// The FaultInfo is restored where the details carry one of our domain; anything else in the details
// is ignored. A code unknown to absl becomes kUnknown. Never fails.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace annulus::rpc
