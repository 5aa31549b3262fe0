// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/coordinator_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/rpc/channel_args.h"
#include "server/rpc/coordinator_service.h"

namespace annulus::rpc {
namespace {

constexpr char kServiceName[] = "annulus.v1.Coordinator";
constexpr int kMaxReceiveBytes = 8 << 20;
constexpr int kMaxStreamsPerConnection = 1024;
constexpr auto kShutdownGrace = std::chrono::milliseconds(300);

class Server final : public CoordinatorServer {
 public:
  Server(std::unique_ptr<CoordinatorService> service, std::unique_ptr<grpc::Server> server,
         int port)
      : service_(std::move(service)), server_(std::move(server)), port_(port) {}

  ~Server() override {
    server_->GetHealthCheckService()->SetServingStatus(false);
    service_->BeginStop();
    server_->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
    server_->Wait();
  }

  int port() const override { return port_; }

 private:
  const std::unique_ptr<CoordinatorService> service_;
  const std::unique_ptr<grpc::Server> server_;
  const int port_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CoordinatorServer>> CoordinatorServer::Start(
    const CoordinatorServerOptions& options, metrics::MetricSink* sink) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();

  auto service = CoordinatorService::Create({options.settings, options.term}, sink);
  int port = 0;
  grpc::ServerBuilder builder;
  ApplyServerSettings(&builder);
  builder.SetMaxReceiveMessageSize(kMaxReceiveBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  builder.AddListeningPort(options.listen_address, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(service->service());
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", options.listen_address,
                                               ": the address is in use or not of this host"));
  }
  server->GetHealthCheckService()->SetServingStatus(kServiceName, true);
  return std::make_unique<Server>(std::move(service), std::move(server), port);
}

}  // namespace annulus::rpc
