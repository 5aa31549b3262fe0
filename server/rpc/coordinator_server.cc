// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/coordinator_server.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <chrono>
#include <utility>

#include "server/base/status_macros.h"
#include "server/rpc/coordinator_service.h"
#include "server/rpc/listen.h"

namespace annulus::rpc {
namespace {

constexpr char kServiceName[] = "annulus.v1.Coordinator";
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
  auto service = CoordinatorService::Create({options.settings, options.term}, sink);
  ANNULUS_ASSIGN_OR_RETURN(ListeningServer listening,
                           Listen(options.listen_address, service->service()));
  listening.server->GetHealthCheckService()->SetServingStatus(kServiceName, true);
  return std::make_unique<Server>(std::move(service), std::move(listening.server), listening.port);
}

}  // namespace annulus::rpc
