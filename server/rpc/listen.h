// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/server.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace annulus::rpc {

struct ListeningServer {
  std::unique_ptr<grpc::Server> server;
  int port = 0;  // the one in use, where the address named port 0
};

// Serves `service` at `address` (host:port) with the project's settings, grpc.health.v1 and
// reflection. `service` must outlive the server. Its health is not set yet. UNAVAILABLE if the
// address is in use or not of this host.
absl::StatusOr<ListeningServer> Listen(const std::string& address, grpc::Service* service);

}  // namespace annulus::rpc
