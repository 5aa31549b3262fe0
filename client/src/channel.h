// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace annulus::client {

// A channel of its own (no sharing of subchannels) with the settings of server/base/rpc_settings.h.
// Does not connect.
std::shared_ptr<grpc::Channel> OpenChannel(const std::string& address);

// Waits until the channel is connected. UNAVAILABLE at the deadline.
absl::Status WaitUntilConnected(grpc::Channel* channel, absl::Time deadline);

}  // namespace annulus::client
