// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/prometheus/metrics_server.h"

#include <arpa/inet.h>
#include <civetweb.h>

#include <array>
#include <exception>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace annulus::metrics {
namespace {

// civetweb counts its users; the first brings it up, the last takes it down.
class Library {
 public:
  Library() { mg_init_library(0); }
  ~Library() { mg_exit_library(); }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
};

class Server final : public MetricsServer {
 public:
  explicit Server(std::function<std::string()> render) : render_(std::move(render)) {}
  ~Server() override {
    if (context_ != nullptr) mg_stop(context_);
  }

  absl::Status Listen(const std::string& endpoint);
  int port() const override { return port_; }

 private:
  static int OnMetrics(mg_connection* connection, void* self);
  static int OnHealth(mg_connection* connection, void* self);
  static int OnOther(mg_connection* connection, void* self);

  const Library library_;
  const std::function<std::string()> render_;
  mg_context* context_ = nullptr;
  int port_ = 0;
};

int Answer(mg_connection* connection, int code, const char* reason, const char* type,
           std::string_view body) {
  mg_printf(connection,
            "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
            "Connection: close\r\n\r\n",
            code, reason, type, body.size());
  const mg_request_info* request = mg_get_request_info(connection);
  const bool head_only = std::string_view(request->request_method) == "HEAD";
  if (!head_only) mg_write(connection, body.data(), body.size());
  return code;
}

int AnswerText(mg_connection* connection, int code, const char* reason, std::string_view body) {
  return Answer(connection, code, reason, "text/plain; charset=utf-8", body);
}

bool Reads(const mg_connection* connection) {
  const std::string_view method = mg_get_request_info(connection)->request_method;
  return method == "GET" || method == "HEAD";
}

int Server::OnMetrics(mg_connection* connection, void* self) {
  if (!Reads(connection)) return AnswerText(connection, 405, "Method Not Allowed", "use GET\n");
  std::string text;
  try {
    text = static_cast<Server*>(self)->render_();
  } catch (const std::exception& error) {
    return AnswerText(connection, 500, "Internal Server Error", error.what());
  }
  return Answer(connection, 200, "OK", "text/plain; version=0.0.4; charset=utf-8", text);
}

int Server::OnHealth(mg_connection* connection, void* /*self*/) {
  if (!Reads(connection)) return AnswerText(connection, 405, "Method Not Allowed", "use GET\n");
  return AnswerText(connection, 200, "OK", "ok\n");
}

int Server::OnOther(mg_connection* connection, void* /*self*/) {
  return AnswerText(connection, 404, "Not Found", "here are /metrics and /healthz\n");
}

absl::Status Server::Listen(const std::string& endpoint) {
  const char* const options[] = {"listening_ports",    endpoint.c_str(), "num_threads", "2",
                                 "request_timeout_ms", "5000",           nullptr};
  mg_callbacks callbacks = {};
  mg_init_data init = {};
  init.callbacks = &callbacks;
  init.user_data = this;
  init.configuration_options = const_cast<const char**>(options);
  std::array<char, 256> text = {};
  unsigned code = 0;
  mg_error_data error = {&code, text.data(), text.size()};
  context_ = mg_start2(&init, &error);
  if (context_ == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("cannot serve metrics on ", endpoint, ": ", text.data()));
  }
  mg_set_request_handler(context_, "/", &Server::OnOther, this);
  mg_set_request_handler(context_, "/metrics$", &Server::OnMetrics, this);
  mg_set_request_handler(context_, "/healthz$", &Server::OnHealth, this);
  mg_server_port port = {};
  if (mg_get_server_ports(context_, 1, &port) < 1) {
    return absl::InternalError(absl::StrCat("no port is listened on at ", endpoint));
  }
  port_ = port.port;
  return absl::OkStatus();
}

// civetweb's notation, after checks that keep its own syntax (lists, suffixes) out.
absl::StatusOr<std::string> Endpoint(const MetricsServerOptions& options) {
  if (options.port < 0 || options.port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("metrics port ", options.port, " is not in 0..65535"));
  }
  std::array<unsigned char, 16> address = {};
  if (inet_pton(AF_INET, options.bind_address.c_str(), address.data()) == 1) {
    return absl::StrCat(options.bind_address, ":", options.port);
  }
  if (inet_pton(AF_INET6, options.bind_address.c_str(), address.data()) == 1) {
    return absl::StrCat("[", options.bind_address, "]:", options.port);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("metrics address '", options.bind_address,
                   "' is not a numeric IPv4 or IPv6 address, such as 127.0.0.1"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const MetricsServerOptions& options, std::function<std::string()> render) {
  const absl::StatusOr<std::string> endpoint = Endpoint(options);
  if (!endpoint.ok()) return endpoint.status();
  auto server = std::make_unique<Server>(std::move(render));
  const absl::Status listening = server->Listen(*endpoint);
  if (!listening.ok()) return listening;
  return server;
}

}  // namespace annulus::metrics
