// SPDX-License-Identifier: Apache-2.0
// A sender that dies or stops while it has leave to write into a receiver's memory.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/transport/cuipc/cuipc_plugin.h"
#include "tests/contract/transport/fake_gpu.h"
#include "tests/contract/transport/mesh.h"

namespace annulus::transport {
namespace {

using cuipc::FakeGpu;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// Rank 0, here, receives; rank 1, a child, has copies under way that do not end.
class CuipcProcessTest : public ::testing::Test {
 protected:
  // The child is forked before this process has threads.
  void SetUp() override {
    ASSERT_EQ(::pipe(up_), 0);
    ASSERT_EQ(::pipe(down_), 0);
    child_ = ::fork();
    if (child_ == 0) ::_exit(RunChild());
    const OpenRank self = OpenOne(kind_, {.rank = 0, .size = 2});
    transport_ = self.transport;
    annulusTransportHandle handles[2] = {self.handle, {}};
    ASSERT_EQ(::read(up_[0], &handles[1], sizeof(handles[1])), ssize_t{sizeof(handles[1])});
    ASSERT_EQ(::write(down_[1], handles, sizeof(handles)), ssize_t{sizeof(handles)});
    ASSERT_EQ(table_->connect(transport_, handles, Soon()), ANNULUS_TRANSPORT_OK);
    memory_ = FakeGpu::The().Allocate(1000);
    const annulusSegment segment{memory_, 1000};
    ASSERT_EQ(table_->irecv(transport_, 1, 1, &segment, 1, Soon(), &receive_),
              ANNULUS_TRANSPORT_OK);
    char copying = 0;
    ASSERT_EQ(::read(up_[0], &copying, 1), 1);
  }

  void TearDown() override {
    table_->release(receive_);
    table_->close(transport_);
    FakeGpu::The().Free(memory_);
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
    for (const int fd : {up_[0], up_[1], down_[0], down_[1]}) ::close(fd);
  }

  int RunChild() {
    FakeGpu& gpu = FakeGpu::The();
    gpu.ImportAnything();
    gpu.Hang(true);
    const OpenRank self = OpenOne(kind_, {.rank = 1, .size = 2});
    annulusTransportHandle handles[2];
    if (::write(up_[1], &self.handle, sizeof(self.handle)) < 0) return 1;
    if (::read(down_[0], handles, sizeof(handles)) != sizeof(handles)) return 1;
    if (table_->connect(self.transport, handles, Soon()) != ANNULUS_TRANSPORT_OK) return 1;
    const annulusSegment segment{gpu.Allocate(1000), 1000};
    annulusRequest* send = nullptr;
    table_->isend(self.transport, 0, 1, &segment, 1, Soon(), &send);
    while (gpu.Count().copies_ever == 0) {
    }
    const char copying = 1;
    if (::write(up_[1], &copying, 1) < 0) return 1;
    while (true) ::pause();
  }

  // Waits for the receive; last_error then.
  std::string ExpectLost() {
    annulusCompletion end{};
    EXPECT_EQ(table_->wait(&receive_, 1, &end), ANNULUS_TRANSPORT_OK);
    EXPECT_EQ(end.status, ANNULUS_TRANSPORT_PEER_LOST);
    char text[1024] = "";
    int32_t suspect = -1;
    table_->last_error(transport_, text, sizeof(text), &suspect);
    EXPECT_EQ(suspect, 1);
    return text;
  }

  const Kind kind_ = {.name = "Cuipc", .table = [] { return cuipc::CuipcPlugin(); }};
  const annulusTransportV1* const table_ = cuipc::CuipcPlugin();
  annulusTransport* transport_ = nullptr;
  annulusRequest* receive_ = nullptr;
  void* memory_ = nullptr;
  pid_t child_ = -1;
  int up_[2] = {-1, -1};
  int down_[2] = {-1, -1};
};

TEST_F(CuipcProcessTest, AKilledSenderIsKnownToWriteNoMore) {
  ::kill(child_, SIGKILL);
  EXPECT_THAT(ExpectLost(), AllOf(HasSubstr("peer 1"), Not(HasSubstr("must not be used"))));
}

TEST_F(CuipcProcessTest, AStoppedSenderIsWaitedForAWhileAndTheDangerIsTold) {
  ::kill(child_, SIGSTOP);
  EXPECT_THAT(ExpectLost(), AllOf(HasSubstr("peer 1 was silent"), HasSubstr("must not be used")));
}

}  // namespace
}  // namespace annulus::transport
