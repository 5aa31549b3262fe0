// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace annulus::client {

// grpc::Status as absl::Status, with the FaultInfo payload restored from a google.rpc.ErrorInfo of
// domain "annulus" where the details carry one. Never fails.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace annulus::client
