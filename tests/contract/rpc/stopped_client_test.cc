// SPDX-License-Identifier: Apache-2.0
// A client that is stopped keeps its connection, but answers nothing: its lease must end, and its
// memory come back, by keepalive alone. The client is this program again, started with --client.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <string_view>

#include "annulus/v1/worker.grpc.pb.h"
#include "server/rpc/channel_args.h"
#include "server/rpc/worker_server.h"
#include "tests/support/fake_engine.h"

namespace annulus::rpc {
namespace {

// Opens a session, then waits for its end, which it would see if it were running.
int RunClient(const std::string& address) {
  const auto stub = v1::Worker::NewStub(grpc::CreateCustomChannel(
      address, grpc::InsecureChannelCredentials(), ClientChannelArguments()));
  grpc::ClientContext context;
  const auto stream = stub->Session(&context);
  v1::SessionOpened opened;
  if (!stream->Write(v1::SessionMessage()) || !stream->Read(&opened)) return 1;
  stream->Read(&opened);
  return stream->Finish().ok() ? 1 : 0;
}

pid_t StartClient(const std::string& address) {
  const pid_t child = fork();
  if (child != 0) return child;
  const char* arguments[] = {"/proc/self/exe", "--client", address.c_str(), nullptr};
  execv(arguments[0], const_cast<char* const*>(arguments));
  _exit(127);
}

TEST(StoppedClient, LosesItsSessionAndLearnsOfIt) {
  testing_support::FakeEngine engine;
  auto server = WorkerServer::Start({}, &engine, nullptr);
  ASSERT_TRUE(server.ok()) << server.status();
  const pid_t client = StartClient("127.0.0.1:" + std::to_string((*server)->port()));
  ASSERT_GT(client, 0);
  EXPECT_TRUE(engine.Await([&] { return engine.sessions() == 1; }));
  ASSERT_EQ(kill(client, SIGSTOP), 0);
  EXPECT_TRUE(engine.Await([&] { return engine.sessions() == 0; }));
  // It comes back to a session that is no more, and does not believe otherwise.
  ASSERT_EQ(kill(client, SIGCONT), 0);
  int status = 0;
  ASSERT_EQ(waitpid(client, &status, 0), client);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST(StoppedClient, KilledClientLosesItsSession) {
  testing_support::FakeEngine engine;
  auto server = WorkerServer::Start({}, &engine, nullptr);
  ASSERT_TRUE(server.ok()) << server.status();
  const pid_t client = StartClient("127.0.0.1:" + std::to_string((*server)->port()));
  ASSERT_GT(client, 0);
  EXPECT_TRUE(engine.Await([&] { return engine.sessions() == 1; }));
  ASSERT_EQ(kill(client, SIGKILL), 0);
  EXPECT_TRUE(engine.Await([&] { return engine.sessions() == 0; }));
  ASSERT_EQ(waitpid(client, nullptr, 0), client);
}

}  // namespace
}  // namespace annulus::rpc

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--client") {
    return annulus::rpc::RunClient(argv[2]);
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
