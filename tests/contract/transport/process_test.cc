// SPDX-License-Identifier: Apache-2.0
// Ranks in processes of their own, which die, stop and come back.
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/contract/transport/kinds.h"

namespace annulus::transport {
namespace {

using ::testing::HasSubstr;

void WriteAll(int fd, const void* data, size_t bytes) {
  ASSERT_EQ(::write(fd, data, bytes), static_cast<ssize_t>(bytes));
}

bool ReadAll(int fd, void* data, size_t bytes) {
  auto* at = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t got = ::read(fd, at, bytes);
    if (got <= 0) return false;
    at += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

constexpr int32_t kSize = 3;  // the last rank lives in a child, the others here
using Handles = std::array<annulusTransportHandle, kSize>;

// What the child does once connected; its exit code is returned by Join.
using ChildBody = std::function<int(const annulusTransportV1&, annulusTransport*)>;

class ProcessTest : public ::testing::TestWithParam<Kind> {
 protected:
  // The child is forked before this process has threads.
  void Start(const ChildBody& body) {
    ASSERT_EQ(::pipe(up_), 0);
    ASSERT_EQ(::pipe(down_), 0);
    child_ = ::fork();
    if (child_ == 0) ::_exit(RunChild(body));
    table_ = GetParam().table();
    Handles handles;
    for (int32_t rank = 0; rank < kSize - 1; ++rank) {
      ranks_[static_cast<size_t>(rank)] = OpenOne(GetParam(), {.rank = rank, .size = kSize});
      handles[static_cast<size_t>(rank)] = ranks_[static_cast<size_t>(rank)].handle;
    }
    ASSERT_TRUE(ReadAll(up_[0], &handles[kSize - 1], sizeof(handles[0])));
    WriteAll(down_[1], handles.data(), sizeof(handles));
    std::vector<std::thread> threads;
    for (int32_t rank = 0; rank < kSize - 1; ++rank) {
      threads.emplace_back([&, rank] {
        EXPECT_EQ(table_->connect(at(rank), handles.data(), Soon()), ANNULUS_TRANSPORT_OK);
      });
    }
    for (std::thread& thread : threads) thread.join();
    char ready = 0;
    ASSERT_TRUE(ReadAll(up_[0], &ready, 1));
  }

  void TearDown() override {
    for (const OpenRank& rank : ranks_) {
      if (rank.transport != nullptr) table_->close(rank.transport);
    }
    if (child_ > 0) {
      ::kill(child_, SIGKILL);
      ::waitpid(child_, nullptr, 0);
    }
    for (const int fd : {up_[0], up_[1], down_[0], down_[1]}) ::close(fd);
  }

  int Join() {
    int status = 0;
    ::waitpid(child_, &status, 0);
    child_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  annulusTransport* at(int32_t rank) const { return ranks_[static_cast<size_t>(rank)].transport; }

  annulusRequest* Receive(int32_t rank, int32_t from, std::vector<uint8_t>& memory) {
    annulusRequest* request = nullptr;
    const annulusSegment segment{memory.data(), memory.size()};
    EXPECT_EQ(table_->irecv(at(rank), from, 1, &segment, 1, Soon(), &request),
              ANNULUS_TRANSPORT_OK);
    return request;
  }

  annulusTransportStatus Finish(annulusRequest* request) {
    annulusCompletion end{};
    table_->wait(&request, 1, &end);
    table_->release(request);
    return end.status;
  }

  // Both ranks of this process must end with PEER_LOST and blame the child.
  void ExpectChildLost(annulusRequest* first, annulusRequest* second) {
    EXPECT_EQ(Finish(first), ANNULUS_TRANSPORT_PEER_LOST);
    EXPECT_EQ(Finish(second), ANNULUS_TRANSPORT_PEER_LOST);
    for (int32_t rank = 0; rank < kSize - 1; ++rank) {
      char text[512] = "";
      int32_t suspect = -1;
      table_->last_error(at(rank), text, sizeof(text), &suspect);
      EXPECT_EQ(suspect, kSize - 1) << text;
      EXPECT_THAT(text, HasSubstr("peer 2"));
    }
  }

  const annulusTransportV1* table_ = nullptr;
  std::array<OpenRank, kSize - 1> ranks_{};
  pid_t child_ = -1;
  int up_[2] = {-1, -1};
  int down_[2] = {-1, -1};

 private:
  int RunChild(const ChildBody& body) {
    const annulusTransportV1* table = GetParam().table();
    const OpenRank self = OpenOne(GetParam(), {.rank = kSize - 1, .size = kSize});
    Handles handles;
    if (::write(up_[1], &self.handle, sizeof(self.handle)) != sizeof(self.handle)) return 100;
    if (!ReadAll(down_[0], handles.data(), sizeof(handles))) return 101;
    if (table->connect(self.transport, handles.data(), Soon()) != ANNULUS_TRANSPORT_OK) return 102;
    const char ready = 1;  // only now may it be stopped or killed
    if (::write(up_[1], &ready, 1) != 1) return 103;
    const int code = body(*table, self.transport);
    table->close(self.transport);
    return code;
  }
};

int SleepForever(const annulusTransportV1&, annulusTransport*) {
  while (true) ::pause();
}

TEST_P(ProcessTest, BytesCrossProcesses) {
  Start([](const annulusTransportV1& table, annulusTransport* transport) {
    std::vector<uint8_t> bytes = Pattern(77, 5'000'000);
    const annulusSegment segment{bytes.data(), bytes.size()};
    annulusRequest* request = nullptr;
    if (table.isend(transport, 0, 1, &segment, 1, Soon(), &request) != ANNULUS_TRANSPORT_OK)
      return 1;
    annulusCompletion end{};
    table.wait(&request, 1, &end);
    table.release(request);
    return end.status == ANNULUS_TRANSPORT_OK ? 0 : 2;
  });
  std::vector<uint8_t> got(5'000'000);
  EXPECT_EQ(Finish(Receive(0, 2, got)), ANNULUS_TRANSPORT_OK);
  EXPECT_TRUE(got == Pattern(77, got.size()));
  EXPECT_EQ(Join(), 0);
}

TEST_P(ProcessTest, AKilledPeerIsLostForAll) {
  Start(SleepForever);
  std::vector<uint8_t> first(10);
  std::vector<uint8_t> second(10);
  annulusRequest* waits_for_it = Receive(0, 2, first);
  annulusRequest* waits_for_another = Receive(1, 0, second);
  ::kill(child_, SIGKILL);
  ExpectChildLost(waits_for_it, waits_for_another);
}

// The second half of what it sends cannot be read, so that it dies in the middle on any machine.
TEST_P(ProcessTest, APeerKilledInTheMiddleOfATransferIsLost) {
  constexpr size_t kHalfBytes = size_t{8} << 20;
  Start([](const annulusTransportV1& table, annulusTransport* transport) {
    void* bytes =
        ::mmap(nullptr, 2 * kHalfBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED) return 1;
    if (::mprotect(static_cast<char*>(bytes) + kHalfBytes, kHalfBytes, PROT_NONE) != 0) return 2;
    ::signal(SIGSEGV, [](int) { ::kill(::getpid(), SIGKILL); });
    const annulusSegment segment{bytes, 2 * kHalfBytes};
    annulusRequest* request = nullptr;
    table.isend(transport, 0, 1, &segment, 1, Soon(), &request);
    table.wait(&request, 1, nullptr);
    return 3;
  });
  std::vector<uint8_t> got(2 * kHalfBytes);
  std::vector<uint8_t> other(1);
  annulusRequest* big = Receive(0, 2, got);
  annulusRequest* waits_for_another = Receive(1, 0, other);
  ExpectChildLost(big, waits_for_another);
  EXPECT_EQ(Join(), -1) << "it must have been killed, not have ended by itself";
}

TEST_P(ProcessTest, AStoppedPeerIsLostAndLearnsItWhenItWakes) {
  Start([](const annulusTransportV1& table, annulusTransport* transport) {
    uint8_t byte = 0;
    const annulusSegment segment{&byte, 1};
    annulusRequest* request = nullptr;
    table.irecv(transport, 0, 9, &segment, 1, Soon(), &request);
    annulusCompletion end{};
    table.wait(&request, 1, &end);
    table.release(request);
    char text[512] = "";
    table.last_error(transport, text, sizeof(text), nullptr);
    const bool told = std::string(text).find("reports: peer 2 was silent") != std::string::npos;
    return end.status == ANNULUS_TRANSPORT_PEER_LOST && told ? 33 : 1;
  });
  std::vector<uint8_t> first(10);
  std::vector<uint8_t> second(10);
  annulusRequest* waits_for_it = Receive(0, 2, first);
  annulusRequest* waits_for_another = Receive(1, 0, second);
  ::kill(child_, SIGSTOP);
  ExpectChildLost(waits_for_it, waits_for_another);
  ::kill(child_, SIGCONT);
  EXPECT_EQ(Join(), 33) << "the zombie must not believe that it still belongs";
}

TEST_P(ProcessTest, AbortCrossesProcesses) {
  Start([](const annulusTransportV1& table, annulusTransport* transport) {
    annulusRequest* request = nullptr;  // not before everybody is connected
    table.irecv(transport, 0, 5, nullptr, 0, Soon(), &request);
    table.wait(&request, 1, nullptr);
    table.release(request);
    table.abort(transport, "child gives up");
    return 0;
  });
  annulusRequest* request = nullptr;
  ASSERT_EQ(table_->isend(at(0), 2, 5, nullptr, 0, Soon(), &request), ANNULUS_TRANSPORT_OK);
  EXPECT_EQ(Finish(request), ANNULUS_TRANSPORT_OK);
  std::vector<uint8_t> memory(10);
  EXPECT_EQ(Finish(Receive(1, 0, memory)), ANNULUS_TRANSPORT_ABORTED);
  char text[512] = "";
  table_->last_error(at(1), text, sizeof(text), nullptr);
  EXPECT_THAT(text, HasSubstr("child gives up"));
  EXPECT_EQ(Join(), 0);
}

INSTANTIATE_TEST_SUITE_P(Transports, ProcessTest, ::testing::ValuesIn(ProcessKinds()), KindName);

}  // namespace
}  // namespace annulus::transport
