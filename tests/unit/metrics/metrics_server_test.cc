// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/prometheus/metrics_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <stdexcept>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace annulus::metrics {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// What the server answers to one request, headers and all; "" if nobody listens.
std::string Ask(int port, const std::string& method, const std::string& path) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const timeval limit = {10, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  std::string answer;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
    const std::string request = method + " " + path + " HTTP/1.1\r\nHost: localhost\r\n" +
                                "Content-Length: 0\r\nConnection: close\r\n\r\n";
    EXPECT_EQ(send(fd, request.data(), request.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(request.size()));
    char piece[4096];
    for (ssize_t got; (got = recv(fd, piece, sizeof(piece), 0)) > 0;) {
      answer.append(piece, static_cast<size_t>(got));
    }
  }
  close(fd);
  return answer;
}

std::unique_ptr<MetricsServer> StartOrDie(std::function<std::string()> render) {
  auto server = MetricsServer::Start({}, std::move(render));
  EXPECT_TRUE(server.ok()) << server.status();
  return *std::move(server);
}

TEST(MetricsServer, ServesMetricsAndHealth) {
  const auto server = StartOrDie([] { return std::string("annulus_ring_size 8\n"); });
  ASSERT_GT(server->port(), 0);
  const std::string metrics = Ask(server->port(), "GET", "/metrics");
  EXPECT_THAT(metrics, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(metrics, HasSubstr("text/plain; version=0.0.4"));
  EXPECT_THAT(metrics, HasSubstr("\r\n\r\nannulus_ring_size 8\n"));
  const std::string health = Ask(server->port(), "GET", "/healthz");
  EXPECT_THAT(health, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(health, HasSubstr("\r\n\r\nok\n"));
  EXPECT_TRUE(Ask(server->port(), "HEAD", "/healthz").ends_with("\r\n\r\n"));
}

TEST(MetricsServer, ServesNothingElse) {
  const auto server = StartOrDie([] { return std::string(); });
  EXPECT_THAT(Ask(server->port(), "GET", "/"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(Ask(server->port(), "GET", "/etc/passwd"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(Ask(server->port(), "GET", "/metrics/more"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(Ask(server->port(), "POST", "/metrics"), StartsWith("HTTP/1.1 405"));
  EXPECT_THAT(Ask(server->port(), "DELETE", "/healthz"), StartsWith("HTTP/1.1 405"));
}

TEST(MetricsServer, AFailureToRenderIsAnAnswer) {
  const auto server = StartOrDie([]() -> std::string { throw std::runtime_error("no paper"); });
  EXPECT_THAT(Ask(server->port(), "GET", "/metrics"), StartsWith("HTTP/1.1 500"));
  EXPECT_THAT(Ask(server->port(), "GET", "/healthz"), StartsWith("HTTP/1.1 200"));
}

TEST(MetricsServer, APortInUseIsAStatus) {
  const auto first = StartOrDie([] { return std::string("first"); });
  MetricsServerOptions options;
  options.port = first->port();
  const auto second = MetricsServer::Start(options, [] { return std::string("second"); });
  ASSERT_EQ(second.status().code(), absl::StatusCode::kUnavailable) << second.status();
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(std::to_string(options.port)));
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("in use"));
  EXPECT_THAT(Ask(first->port(), "GET", "/metrics"), HasSubstr("first"));
}

TEST(MetricsServer, ThePortIsFreeWhenItIsGone) {
  MetricsServerOptions options;
  options.port = StartOrDie([] { return std::string(); })->port();
  EXPECT_EQ(Ask(options.port, "GET", "/healthz"), "");
  EXPECT_TRUE(MetricsServer::Start(options, [] { return std::string(); }).ok());
}

TEST(MetricsServer, RefusesWhatIsNoAddress) {
  for (const char* address : {"", "localhost", "127.0.0.1,8080", "[::1]", "127.0.0.1:80s"}) {
    EXPECT_EQ(MetricsServer::Start({address, 0}, [] { return std::string(); }).status().code(),
              absl::StatusCode::kInvalidArgument)
        << address;
  }
  EXPECT_FALSE(MetricsServer::Start({"127.0.0.1", 65536}, [] { return std::string(); }).ok());
}

}  // namespace
}  // namespace annulus::metrics
