// SPDX-License-Identifier: Apache-2.0
// The region socket with real memfds, real sockets and a real engine.
#include "server/worker/region_server.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "server/base/region_protocol.h"
#include "server/worker/unix_listener.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/worker/test_ring.h"

namespace annulus::worker {
namespace {

using ::testing::HasSubstr;
using testing::TestRing;
using testing_support::TempFolder;

constexpr uint64_t kBytes = 1 << 16;

int OpenDescriptors() {
  int count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

// Waits for something that another thread is about to do.
template <typename Condition>
bool Await(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

UniqueFd Memfd(uint64_t bytes, bool sealed) {
  UniqueFd fd(memfd_create("region", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_TRUE(fd.valid());
  EXPECT_EQ(ftruncate(fd.get(), static_cast<off_t>(bytes)), 0);
  if (sealed) {
    EXPECT_EQ(fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
  }
  return fd;
}

// A client that may say anything.
class RawClient {
 public:
  explicit RawClient(const std::string& path)
      : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    socklen_t length = sizeof(address);
    if (path[0] == '@') {
      address.sun_path[0] = '\0';
      length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
    }
    EXPECT_EQ(connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), length), 0)
        << strerror(errno);
    const timeval patience{10, 0};
    setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  }

  void Send(const void* data, size_t bytes, const std::vector<int>& fds = {}) {
    iovec part{const_cast<void*>(data), bytes};
    alignas(cmsghdr) char control[CMSG_SPACE(16 * sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (!fds.empty()) {
      message.msg_control = control;
      message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
      std::memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
    }
    EXPECT_EQ(sendmsg(fd_.get(), &message, MSG_NOSIGNAL), static_cast<ssize_t>(bytes));
  }

  absl::Status Reply() {
    RegionReply reply;
    const ssize_t got = recv(fd_.get(), &reply, sizeof(reply), MSG_WAITALL);
    if (got != static_cast<ssize_t>(sizeof(reply))) return absl::UnknownError("no reply");
    EXPECT_EQ(reply.magic, RegionReply().magic);
    return absl::Status(static_cast<absl::StatusCode>(reply.code), reply.message);
  }

  absl::Status Ask(const RegionRequest& request, const std::vector<int>& fds = {}) {
    Send(&request, sizeof(request), fds);
    return Reply();
  }

  bool AtEnd() {
    char byte;
    return recv(fd_.get(), &byte, 1, 0) == 0;
  }

 private:
  UniqueFd fd_;
};

class RegionServerTest : public ::testing::Test {
 protected:
  void SetUp() override { Start({}); }

  void Start(const RegionServerOptions& options) {
    server_.reset();
    auto server = RegionServer::Start(options, &ring_.engine(0));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = std::move(*server);
  }

  RegionRequest Add(uint64_t id, uint64_t generation = 1, uint64_t bytes = kBytes) const {
    RegionRequest request;
    request.op = 1;
    std::memcpy(request.session_id, session_.data(), session_.size());
    request.region_id = id;
    request.generation = generation;
    request.bytes = bytes;
    return request;
  }
  RegionRequest Remove(uint64_t id) const {
    RegionRequest request = Add(id);
    request.op = 2;
    return request;
  }

  uint64_t leased() { return ring_.engine(0).memory_use().leased; }

  TestRing ring_{TestRing::Options{}};
  const std::string session_ = ring_.engine(0).OpenSession("client");
  std::unique_ptr<RegionServer> server_;
};

TEST_F(RegionServerTest, LeasesAndReturnsARegion) {
  RawClient client(server_->path());
  const UniqueFd fd = Memfd(kBytes, true);
  EXPECT_TRUE(client.Ask(Add(1), {fd.get()}).ok());
  EXPECT_EQ(leased(), kBytes);
  EXPECT_TRUE(client.Ask(Remove(1)).ok());
  EXPECT_EQ(leased(), 0u);
  EXPECT_EQ(client.Ask(Remove(1)).code(), absl::StatusCode::kNotFound);
}

TEST_F(RegionServerTest, RefusesWhatCouldShrinkUnderTheWorker) {
  RawClient client(server_->path());
  const absl::Status status = client.Ask(Add(1), {Memfd(kBytes, false).get()});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("F_SEAL_SHRINK"));
  EXPECT_EQ(client.Ask(Add(1), {Memfd(kBytes - 1, true).get()}).code(),
            absl::StatusCode::kInvalidArgument);
  const UniqueFd file(open("/dev/null", O_RDWR | O_CLOEXEC));
  EXPECT_EQ(client.Ask(Add(1), {file.get()}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(leased(), 0u);
  // The connection is as good as before.
  EXPECT_TRUE(client.Ask(Add(1), {Memfd(kBytes, true).get()}).ok());
}

TEST_F(RegionServerTest, RefusesWrongSessionsAndOperations) {
  RawClient client(server_->path());
  const UniqueFd fd = Memfd(kBytes, true);
  RegionRequest request = Add(1);
  std::memset(request.session_id, '0', sizeof(request.session_id));
  EXPECT_EQ(client.Ask(request, {fd.get()}).code(), absl::StatusCode::kNotFound);
  std::memset(request.session_id, '/', sizeof(request.session_id));
  EXPECT_EQ(client.Ask(request, {fd.get()}).code(), absl::StatusCode::kInvalidArgument);
  request = Add(1);
  request.op = 9;
  EXPECT_EQ(client.Ask(request, {fd.get()}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(leased(), 0u);
}

TEST_F(RegionServerTest, TakesOneDescriptorAndNoOther) {
  RawClient client(server_->path());
  const UniqueFd fd = Memfd(kBytes, true);
  EXPECT_EQ(client.Ask(Add(1)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(client.Ask(Add(1), {fd.get(), fd.get()}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(client.Ask(Add(1), std::vector<int>(12, fd.get())).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(client.Ask(Add(1), {fd.get()}).ok());
  EXPECT_EQ(client.Ask(Remove(1), {fd.get()}).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(RegionServerTest, AnotherVersionOrProtocolEndsTheConnection) {
  {
    RawClient client(server_->path());
    RegionRequest request = Add(1);
    request.version = 2;
    const absl::Status status = client.Ask(request, {Memfd(kBytes, true).get()});
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(std::string(status.message()), HasSubstr("version 2"));
    EXPECT_TRUE(client.AtEnd());
  }
  RawClient client(server_->path());
  RegionRequest request = Add(1);
  request.magic = 0;
  EXPECT_EQ(client.Ask(request).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(client.AtEnd());
}

TEST_F(RegionServerTest, RequestMayComeInPieces) {
  RawClient client(server_->path());
  const UniqueFd fd = Memfd(kBytes, true);
  const RegionRequest request = Add(1);
  const char* bytes = reinterpret_cast<const char*>(&request);
  client.Send(bytes, 1, {fd.get()});
  client.Send(bytes + 1, 40);
  client.Send(bytes + 41, sizeof(request) - 41);
  EXPECT_TRUE(client.Reply().ok());
  EXPECT_EQ(leased(), kBytes);
}

TEST_F(RegionServerTest, ClosedConnectionGivesItsRegionsBack) {
  {
    RawClient client(server_->path());
    for (uint64_t id = 0; id < 5; ++id) {
      ASSERT_TRUE(client.Ask(Add(id), {Memfd(kBytes, true).get()}).ok());
    }
    EXPECT_EQ(leased(), 5 * kBytes);
  }
  EXPECT_TRUE(Await([&] { return leased() == 0; }));
}

TEST_F(RegionServerTest, ReturningClientKeepsWhatItAddedAnew) {
  RawClient again(server_->path());
  {
    RawClient old(server_->path());
    ASSERT_TRUE(old.Ask(Add(1, 1), {Memfd(kBytes, true).get()}).ok());
    ASSERT_TRUE(old.Ask(Add(2, 1), {Memfd(kBytes, true).get()}).ok());
    ASSERT_TRUE(again.Ask(Add(1, 2), {Memfd(kBytes, true).get()}).ok());
    EXPECT_EQ(old.Ask(Remove(1)).code(), absl::StatusCode::kNotFound);
  }
  // Region 2 goes with the old connection, region 1 is the new one's.
  EXPECT_TRUE(Await([&] { return leased() == kBytes; }));
  EXPECT_TRUE(again.Ask(Remove(1)).ok());
}

TEST_F(RegionServerTest, EndOfTheSessionOrOfTheServerGivesRegionsBack) {
  RawClient client(server_->path());
  ASSERT_TRUE(client.Ask(Add(1), {Memfd(kBytes, true).get()}).ok());
  ring_.engine(0).CloseSession(session_);
  EXPECT_EQ(leased(), 0u);
  EXPECT_EQ(client.Ask(Add(2), {Memfd(kBytes, true).get()}).code(), absl::StatusCode::kNotFound);

  const std::string other = ring_.engine(0).OpenSession("other");
  RegionRequest request = Add(1);
  std::memcpy(request.session_id, other.data(), other.size());
  ASSERT_TRUE(client.Ask(request, {Memfd(kBytes, true).get()}).ok());
  EXPECT_EQ(leased(), kBytes);
  server_.reset();
  EXPECT_EQ(leased(), 0u);
  EXPECT_TRUE(client.AtEnd());
}

TEST_F(RegionServerTest, NoDescriptorStaysBehind) {
  {
    RawClient warm(server_->path());
    ASSERT_TRUE(warm.Ask(Add(1), {Memfd(kBytes, true).get()}).ok());
  }
  ASSERT_TRUE(Await([&] { return leased() == 0; }));
  const int before = OpenDescriptors();
  for (int round = 0; round < 20; ++round) {
    RawClient client(server_->path());
    const UniqueFd good = Memfd(kBytes, true);
    EXPECT_TRUE(client.Ask(Add(1), {good.get()}).ok());
    EXPECT_FALSE(client.Ask(Add(1), {good.get()}).ok());
    EXPECT_FALSE(client.Ask(Add(2), {Memfd(kBytes, false).get()}).ok());
    EXPECT_FALSE(client.Ask(Add(3), std::vector<int>(12, good.get())).ok());
    // Half a request with a descriptor, and gone.
    const RegionRequest request = Add(4);
    client.Send(&request, 10, {good.get()});
  }
  EXPECT_TRUE(Await([&] { return OpenDescriptors() <= before; }));
  EXPECT_TRUE(Await([&] { return leased() == 0; }));
}

TEST_F(RegionServerTest, OtherUsersAreRefused) {
  RegionServerOptions options;
  options.allowed_uid = geteuid() + 1;
  Start(options);
  RawClient client(server_->path());
  EXPECT_EQ(client.Reply().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(client.AtEnd());
}

TEST_F(RegionServerTest, ConnectionsAndRegionsAreBounded) {
  RegionServerOptions options;
  options.max_connections = 1;
  options.max_regions_per_connection = 2;
  Start(options);
  RawClient client(server_->path());
  const UniqueFd fd = Memfd(kBytes, true);
  EXPECT_TRUE(client.Ask(Add(1), {fd.get()}).ok());
  EXPECT_TRUE(client.Ask(Add(2), {fd.get()}).ok());
  EXPECT_EQ(client.Ask(Add(3), {fd.get()}).code(), absl::StatusCode::kResourceExhausted);
  RawClient second(server_->path());
  EXPECT_EQ(second.Reply().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(second.AtEnd());
}

TEST_F(RegionServerTest, NamedSocketIsForThisUserAndGoesWithTheServer) {
  const TempFolder folder;
  RegionServerOptions options;
  options.path = folder.File("regions.sock");
  Start(options);
  struct stat info {};
  ASSERT_EQ(stat(options.path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  {
    RawClient client(server_->path());
    EXPECT_TRUE(client.Ask(Add(1), {Memfd(kBytes, true).get()}).ok());
  }
  server_.reset();
  EXPECT_FALSE(std::filesystem::exists(options.path));
}

TEST_F(RegionServerTest, AbstractSocketServesToo) {
  RegionServerOptions options;
  options.path = "@annulus-region-test-" + std::to_string(getpid());
  Start(options);
  EXPECT_EQ(server_->path(), options.path);
  RawClient client(server_->path());
  EXPECT_TRUE(client.Ask(Add(1), {Memfd(kBytes, true).get()}).ok());
  EXPECT_EQ(UnixListener::Create(options.path).status().code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(RegionServerTest, PathIsTakenOverOnlyFromTheDead) {
  const TempFolder folder;
  const std::string path = folder.File("named.sock");
  {
    const auto first = UnixListener::Create(path);
    ASSERT_TRUE(first.ok()) << first.status();
    EXPECT_EQ(UnixListener::Create(path).status().code(), absl::StatusCode::kAlreadyExists);
  }
  {
    // What a killed process leaves behind.
    const UniqueFd dead(socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    ASSERT_EQ(bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }
  EXPECT_TRUE(UnixListener::Create(path).ok());
  const UniqueFd file(open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  EXPECT_EQ(UnixListener::Create(path).status().code(), absl::StatusCode::kAlreadyExists);
  std::filesystem::remove(path);
  EXPECT_EQ(UnixListener::Create("/" + std::string(200, 'x')).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace annulus::worker
