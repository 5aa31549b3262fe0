// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/worker_server.h"

#include <google/protobuf/stubs/logging.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/rpc/channel_args.h"
#include "server/rpc/worker_service.h"

namespace annulus::rpc {
namespace {

constexpr char kServiceName[] = "annulus.v1.Worker";
// A tensor frame of 4 MiB with room for its header.
constexpr int kMaxReceiveBytes = 8 << 20;
constexpr int kMaxStreamsPerConnection = 1024;
constexpr auto kShutdownGrace = std::chrono::milliseconds(200);

class WorkerServerImpl : public WorkerServer {
 public:
  WorkerServerImpl(std::unique_ptr<WorkerService> service, std::unique_ptr<grpc::Server> server,
                   int port)
      : service_(std::move(service)), server_(std::move(server)), port_(port) {}

  ~WorkerServerImpl() override {
    service_->BeginStop();
    server_->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
    server_->Wait();
  }

  int port() const override { return port_; }

  void SetReady(bool ready) override {
    server_->GetHealthCheckService()->SetServingStatus(kServiceName, ready);
  }

  bool Drain(std::chrono::steady_clock::time_point deadline) override {
    service_->BeginStop();
    server_->GetHealthCheckService()->SetServingStatus(false);
    return service_->AwaitIdle(deadline);
  }

 private:
  const std::unique_ptr<WorkerService> service_;
  const std::unique_ptr<grpc::Server> server_;
  const int port_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerServer>> WorkerServer::Start(
    const WorkerServerOptions& options, worker::Engine* engine, metrics::MetricSink* sink) {
  // The library would print every malformed message of a client; they are refused instead.
  google::protobuf::SetLogHandler(nullptr);
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();

  WorkerServiceOptions service_options;
  service_options.incarnation = options.incarnation;
  service_options.host_id = options.host_id;
  service_options.region_socket = options.region_socket;
  service_options.max_concurrent_requests = options.max_concurrent_requests;
  std::unique_ptr<WorkerService> service = WorkerService::Create(service_options, engine, sink);

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
  auto result = std::make_unique<WorkerServerImpl>(std::move(service), std::move(server), port);
  result->SetReady(false);
  return result;
}

}  // namespace annulus::rpc
