// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/server_builder.h>
#include <grpcpp/support/channel_arguments.h>

namespace annulus::rpc {

// The settings of server/base/rpc_settings.h, applied. Both ends of a channel need them: a client
// that pings faster than its server allows is sent away.
grpc::ChannelArguments ClientChannelArguments();
void ApplyServerSettings(grpc::ServerBuilder* builder);

}  // namespace annulus::rpc
