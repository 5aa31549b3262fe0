// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/listen.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include "absl/strings/str_cat.h"
#include "server/rpc/channel_args.h"

namespace annulus::rpc {
namespace {

// A tensor frame of 4 MiB with room for its header.
constexpr int kMaxReceiveBytes = 8 << 20;
constexpr int kMaxStreamsPerConnection = 1024;

}  // namespace

absl::StatusOr<ListeningServer> Listen(const std::string& address, grpc::Service* service) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  ListeningServer listening;
  grpc::ServerBuilder builder;
  ApplyServerSettings(&builder);
  builder.SetMaxReceiveMessageSize(kMaxReceiveBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &listening.port);
  builder.RegisterService(service);
  listening.server = builder.BuildAndStart();
  if (listening.server == nullptr || listening.port == 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", address, ": the address is in use or not of this host"));
  }
  return listening;
}

}  // namespace annulus::rpc
