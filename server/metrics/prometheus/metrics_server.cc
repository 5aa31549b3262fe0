// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/prometheus/metrics_server.h"

#include <arpa/inet.h>
#include <civetweb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"

namespace annulus::metrics {
namespace {

// An address and port: for connect, and as civetweb writes it.
struct Endpoint {
  sockaddr_storage address = {};
  socklen_t address_bytes = 0;
  std::string text;

  void SetPort(int port) {
    const auto wire = htons(static_cast<uint16_t>(port));
    if (address.ss_family == AF_INET6) {
      reinterpret_cast<sockaddr_in6&>(address).sin6_port = wire;
    } else {
      reinterpret_cast<sockaddr_in&>(address).sin_port = wire;
    }
  }
};

// Only numeric addresses pass, so civetweb's own syntax (lists, suffixes) stays out.
absl::StatusOr<Endpoint> ParseEndpoint(const MetricsServerOptions& options) {
  if (options.port < 0 || options.port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("metrics port ", options.port, " is not in 0..65535"));
  }
  Endpoint endpoint;
  auto& v4 = reinterpret_cast<sockaddr_in&>(endpoint.address);
  auto& v6 = reinterpret_cast<sockaddr_in6&>(endpoint.address);
  if (inet_pton(AF_INET, options.bind_address.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    endpoint.address_bytes = sizeof(v4);
    endpoint.text = absl::StrCat(options.bind_address, ":", options.port);
  } else if (inet_pton(AF_INET6, options.bind_address.c_str(), &v6.sin6_addr) == 1) {
    v6.sin6_family = AF_INET6;
    endpoint.address_bytes = sizeof(v6);
    endpoint.text = absl::StrCat("[", options.bind_address, "]:", options.port);
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("metrics address '", options.bind_address,
                     "' is not a numeric IPv4 or IPv6 address, such as 127.0.0.1"));
  }
  return endpoint;
}

// civetweb's listening thread sees that it shall stop only every two seconds, or when somebody
// calls. This calls until the stop is done.
void StopPromptly(mg_context* context, const Endpoint& endpoint) {
  std::atomic<bool> stopped = false;
  std::thread caller([&stopped, &endpoint] {
    while (!stopped) {
      const int fd =
          socket(endpoint.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
      if (fd >= 0) {
        // Whether anybody answers does not matter.
        (void)connect(fd, reinterpret_cast<const sockaddr*>(&endpoint.address),
                      endpoint.address_bytes);
        close(fd);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  mg_stop(context);
  stopped = true;
  caller.join();
}

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
    if (context_ != nullptr) StopPromptly(context_, endpoint_);
  }

  absl::Status Listen(const Endpoint& endpoint);
  int port() const override { return port_; }

 private:
  static int OnRequest(mg_connection* connection, void* self);
  static int OnLog(const mg_connection* connection, const char* message);
  int AnswerMetrics(mg_connection* connection) const;

  const Library library_;
  const std::function<std::string()> render_;
  mg_context* context_ = nullptr;
  Endpoint endpoint_;
  int port_ = 0;
  std::mutex log_mutex_;
  std::string first_log_;  // civetweb says why it cannot listen in its log alone
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

int Server::AnswerMetrics(mg_connection* connection) const {
  std::string text;
  try {
    text = render_();
  } catch (const std::exception& error) {
    return AnswerText(connection, 500, "Internal Server Error", error.what());
  }
  return Answer(connection, 200, "OK", "text/plain; version=0.0.4; charset=utf-8", text);
}

int Server::OnRequest(mg_connection* connection, void* self) {
  const mg_request_info* request = mg_get_request_info(connection);
  const std::string_view method = request->request_method;
  const std::string_view path = request->local_uri;
  if (path != "/metrics" && path != "/healthz") {
    return AnswerText(connection, 404, "Not Found", "here are /metrics and /healthz\n");
  }
  if (method != "GET" && method != "HEAD") {
    return AnswerText(connection, 405, "Method Not Allowed", "use GET\n");
  }
  if (path == "/healthz") return AnswerText(connection, 200, "OK", "ok\n");
  return static_cast<Server*>(self)->AnswerMetrics(connection);
}

int Server::OnLog(const mg_connection* connection, const char* message) {
  auto* self = static_cast<Server*>(mg_get_user_data(mg_get_context(connection)));
  if (self != nullptr) {
    const std::lock_guard lock(self->log_mutex_);
    if (self->first_log_.empty()) self->first_log_ = message;
  }
  return 1;  // handled: nothing goes to stderr
}

absl::Status Server::Listen(const Endpoint& endpoint) {
  const char* const options[] = {"listening_ports",
                                 endpoint.text.c_str(),
                                 "num_threads",
                                 "2",
                                 "request_timeout_ms",
                                 "5000",
                                 nullptr};
  mg_callbacks callbacks = {};
  callbacks.log_message = &Server::OnLog;
  mg_init_data init = {};
  init.callbacks = &callbacks;
  init.user_data = this;
  init.configuration_options = const_cast<const char**>(options);
  std::array<char, 256> text = {};
  unsigned code = 0;
  mg_error_data error = {&code, text.data(), text.size()};
  context_ = mg_start2(&init, &error);
  if (context_ == nullptr) {
    const std::lock_guard lock(log_mutex_);
    return absl::UnavailableError(
        absl::StrCat("cannot serve metrics on ", endpoint.text, ": ",
                     first_log_.empty() ? text.data() : first_log_.c_str()));
  }
  mg_server_port port = {};
  if (mg_get_server_ports(context_, 1, &port) < 1) {
    return absl::InternalError(absl::StrCat("no port is listened on at ", endpoint.text));
  }
  port_ = port.port;
  endpoint_ = endpoint;
  endpoint_.SetPort(port_);
  // One handler for every path: civetweb's own matching takes prefixes.
  mg_set_request_handler(context_, "/", &Server::OnRequest, this);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const MetricsServerOptions& options, std::function<std::string()> render) {
  ANNULUS_ASSIGN_OR_RETURN(const Endpoint endpoint, ParseEndpoint(options));
  auto server = std::make_unique<Server>(std::move(render));
  ANNULUS_RETURN_IF_ERROR(server->Listen(endpoint));
  return server;
}

}  // namespace annulus::metrics
