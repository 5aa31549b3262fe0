// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/worker_server.h"

#include <google/protobuf/stubs/logging.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <utility>

#include "server/base/status_macros.h"
#include "server/rpc/listen.h"
#include "server/rpc/worker_service.h"

namespace annulus::rpc {
namespace {

constexpr char kServiceName[] = "annulus.v1.Worker";
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

  WorkerServiceOptions service_options;
  service_options.incarnation = options.incarnation;
  service_options.host_id = options.host_id;
  service_options.region_socket = options.region_socket;
  service_options.max_concurrent_requests = options.max_concurrent_requests;
  std::unique_ptr<WorkerService> service = WorkerService::Create(service_options, engine, sink);

  ANNULUS_ASSIGN_OR_RETURN(ListeningServer listening,
                           Listen(options.listen_address, service->service()));
  auto result = std::make_unique<WorkerServerImpl>(std::move(service), std::move(listening.server),
                                                   listening.port);
  result->SetReady(false);
  return result;
}

}  // namespace annulus::rpc
