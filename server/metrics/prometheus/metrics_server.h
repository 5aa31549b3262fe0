// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace annulus::metrics {

struct MetricsServerOptions {
  std::string bind_address = "127.0.0.1";  // numeric IPv4 or IPv6
  int port = 0;                            // 0: any free one
};

// The HTTP side of a daemon: GET /metrics answers with `render()`, GET /healthz with "ok".
//
//   ANNULUS_ASSIGN_OR_RETURN(auto server,
//                            MetricsServer::Start(options, [&] { return metrics->Text(); }));
//   LOG << server->port();
//
// `render` is called from threads of the server and must outlive it. Other paths answer 404, other
// methods 405. Two requests at a time; an idle connection is closed after 5 seconds.
class MetricsServer {
 public:
  // INVALID_ARGUMENT: address or port that cannot be one. UNAVAILABLE: it cannot be listened on,
  // with the reason ("Address already in use").
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const MetricsServerOptions& options,
                                                              std::function<std::string()> render);
  // Stops listening; waits for the requests being answered.
  virtual ~MetricsServer() = default;
  virtual int port() const = 0;
};

}  // namespace annulus::metrics
