// SPDX-License-Identifier: Apache-2.0
// The NCCL transport on one GPU: annulus-gpu-nccl-test. Two processes share the card; NCCL takes
// them for two hosts, since each names a host of its own, and moves the bytes over sockets. What
// the contract asks of every transport, then a peer that dies, one that never comes, and the next
// epoch. Skips where there is no GPU.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>

#include "gtest/gtest.h"
#include "tests/gpu/nccl_rank.h"

namespace annulus::transport {
namespace {

std::vector<uint8_t> Bytes(size_t count, uint64_t seed) {
  std::vector<uint8_t> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>((i * 2654435761u >> 7) + seed);
  return bytes;
}

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// A rank's part of a scenario returns what went wrong, "" for nothing.
#define ANNULUS_EXPECT(condition)                                                     \
  do {                                                                                \
    if (!(condition)) return std::string("not so: " #condition "; ") + r.LastError(); \
  } while (false)

// Opened and connected, which takes NCCL seconds.
std::string Connected(NcclRank& r, uint64_t epoch) {
  r.Open(epoch);
  ANNULUS_EXPECT(r.Connect(90) == ANNULUS_TRANSPORT_OK);
  return "";
}

// Both ranks send `count` bytes to each other under `tag`, in one group; the receiver's memory is
// cut elsewhere than the sender's.
std::string Exchange(NcclRank& r, uint64_t tag, size_t count) {
  const auto from = static_cast<uint64_t>(r.peer());
  const DeviceBytes sent(Bytes(count, tag + static_cast<uint64_t>(r.rank())));
  const DeviceBytes got(std::vector<uint8_t>(count, 0xEE));
  r.table().group_begin(r.transport());
  annulusRequest* const send =
      r.Send(tag, {sent.Part(0, count / 3), sent.Part(count / 3, count - count / 3)});
  annulusRequest* const receive =
      r.Receive(tag, {got.Part(0, count / 2), got.Part(count / 2, count - count / 2)});
  r.table().group_end(r.transport());
  const annulusCompletion sent_end = r.Finish(send);
  const annulusCompletion got_end = r.Finish(receive);
  ANNULUS_EXPECT(sent_end.status == ANNULUS_TRANSPORT_OK);
  ANNULUS_EXPECT(got_end.status == ANNULUS_TRANSPORT_OK);
  ANNULUS_EXPECT(got_end.bytes == count && got_end.start_ns <= got_end.end_ns);
  ANNULUS_EXPECT(got.Download() == Bytes(count, tag + from));
  return "";
}

std::string Contract(NcclRank& r) {
  std::string wrong = Connected(r, 1);
  uint64_t tag = 1;
  for (const size_t count :
       {size_t{0}, size_t{1}, size_t{4097}, size_t{1} << 20, size_t{64} << 20}) {
    if (wrong.empty()) wrong = Exchange(r, tag++, count);
  }
  if (!wrong.empty()) return wrong;
  ANNULUS_EXPECT(std::string(r.table().path(r.transport(), r.peer())) == "nccl inner");
  const DeviceBytes memory(Bytes(2000, 1));
  // Posted in opposite orders.
  annulusRequest* requests[3];
  for (uint64_t i = 0; i < 3; ++i) {
    const std::vector<annulusSegment> part = {memory.Part(100 * i, 100)};
    requests[i] = r.rank() == 0 ? r.Send(20 + i, part) : r.Receive(22 - i, part);
  }
  for (annulusRequest* request : requests) {
    ANNULUS_EXPECT(r.Finish(request).status == ANNULUS_TRANSPORT_OK);
  }
  const std::vector<annulusSegment> uneven = {memory.Part(0, r.rank() == 0 ? 1000 : 1001)};
  annulusRequest* const mismatch = r.rank() == 0 ? r.Send(30, uneven) : r.Receive(30, uneven);
  ANNULUS_EXPECT(r.Finish(mismatch).status == ANNULUS_TRANSPORT_MISMATCH);
  if (r.rank() == 1) {
    annulusRequest* const late = r.Receive(31, {memory.Part(0, 10)}, 0.05);
    ANNULUS_EXPECT(r.Finish(late).status == ANNULUS_TRANSPORT_DEADLINE);
  }
  return Exchange(r, 40, 100'000);  // after failures of single operations
}

std::string AbortAndNextEpoch(NcclRank& r) {
  std::string wrong = Connected(r, 1);
  if (!wrong.empty()) return wrong;
  const DeviceBytes memory(Bytes(1000, 1));
  annulusRequest* const never = r.Receive(1, memory.Whole());
  if (r.rank() == 1) r.table().abort(r.transport(), "drawn");
  ANNULUS_EXPECT(r.Finish(never).status == ANNULUS_TRANSPORT_ABORTED);
  ANNULUS_EXPECT(r.LastError().find("drawn") != std::string::npos);
  r.Close();
  wrong = Connected(r, 2);
  return wrong.empty() ? Exchange(r, 1, 1'000'000) : wrong;
}

std::string PeerDies(NcclRank& r) {
  const std::string wrong = Connected(r, 1);
  if (!wrong.empty()) return wrong;
  const DeviceBytes memory(Bytes(size_t{64} << 20, 1));
  annulusRequest* const request =
      r.rank() == 0 ? r.Receive(1, memory.Whole()) : r.Send(1, memory.Whole());
  if (r.rank() == 1) ::kill(::getpid(), SIGKILL);
  const auto start = std::chrono::steady_clock::now();
  const annulusTransportStatus status = r.Finish(request).status;
  ANNULUS_EXPECT(status == ANNULUS_TRANSPORT_PEER_LOST);
  ANNULUS_EXPECT(r.LastError().find("peer 1") != std::string::npos);
  r.Close();
  const double seconds = SecondsSince(start);
  // Standard output carries handles.
  std::fprintf(stderr,
               "{\"what\": \"killed peer reported\", \"transport\": \"nccl\", "
               "\"seconds\": %.3f}\n",
               seconds);
  return seconds < 3 ? "" : "reported and closed after " + std::to_string(seconds) + " s";
}

std::string PeerNeverJoins(NcclRank& r) {
  r.Open(1);
  if (r.rank() == 1) {
    ::pause();  // until it is killed
    return "";
  }
  const auto start = std::chrono::steady_clock::now();
  ANNULUS_EXPECT(r.Connect(1) == ANNULUS_TRANSPORT_DEADLINE);
  r.Close();
  const double seconds = SecondsSince(start);
  return seconds < 3 ? "" : "ended after " + std::to_string(seconds) + " s";
}

const std::map<std::string, std::function<std::string(NcclRank&)>>& Scenarios() {
  static const std::map<std::string, std::function<std::string(NcclRank&)>> scenarios = {
      {"contract", Contract},
      {"abort", AbortAndNextEpoch},
      {"dies", PeerDies},
      {"never", PeerNeverJoins}};
  return scenarios;
}

// The test's side: two processes of this program, and the handles relayed between them.
class NcclGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists("/dev/nvidiactl")) GTEST_SKIP() << "no CUDA device";
  }

  // `epochs`: how often handles are relayed. Rank 0 has to end well.
  void Run(const std::string& scenario, int epochs, bool both_end) {
    for (int rank = 0; rank < 2; ++rank) Spawn(rank, scenario);
    for (int epoch = 0; epoch < epochs; ++epoch) {
      annulusTransportHandle handles[2];
      for (int rank = 0; rank < 2; ++rank) {
        ASSERT_EQ(::read(out_[rank], &handles[rank], sizeof(handles[rank])),
                  static_cast<ssize_t>(sizeof(handles[rank])))
            << "rank " << rank << " gave no handle";
      }
      for (const int in : in_) {
        ASSERT_EQ(::write(in, handles, sizeof(handles)), static_cast<ssize_t>(sizeof(handles)));
      }
    }
    EXPECT_EQ(ExitOf(0), 0);
    if (!both_end) ::kill(children_[1], SIGKILL);
    const int other = ExitOf(1);
    if (both_end) {
      EXPECT_EQ(other, 0);
    }
  }

  void TearDown() override {
    for (int rank = 0; rank < 2; ++rank) {
      if (children_[rank] > 0) {
        ::kill(children_[rank], SIGKILL);
        ::waitpid(children_[rank], nullptr, 0);
      }
      for (const int fd : {in_[rank], out_[rank]}) {
        if (fd >= 0) ::close(fd);
      }
    }
  }

 private:
  void Spawn(int rank, const std::string& scenario) {
    int to[2];
    int from[2];
    ASSERT_EQ(::pipe2(to, O_CLOEXEC), 0);
    ASSERT_EQ(::pipe2(from, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO);
    std::string program = std::filesystem::read_symlink("/proc/self/exe");
    std::string number = std::to_string(rank);
    std::string name = scenario;
    char* arguments[] = {program.data(), name.data(), number.data(), nullptr};
    // Two ranks on one GPU are two hosts to NCCL, which then takes its sockets; the rest keeps
    // small what the card has to hold twice.
    ::setenv("NCCL_HOSTID", ("rank-" + number).c_str(), 1);
    for (const auto& [variable, value] :
         std::map<const char*, const char*>{{"NCCL_NET", "Socket"},
                                            {"NCCL_SOCKET_IFNAME", "lo"},
                                            {"NCCL_MNNVL_ENABLE", "0"},
                                            {"NCCL_NVLS_ENABLE", "0"},
                                            {"NCCL_RAS_ENABLE", "0"},
                                            {"NCCL_MAX_CTAS", "2"},
                                            {"NCCL_CGA_CLUSTER_SIZE", "0"}}) {
      ::setenv(variable, value, 1);
    }
    ASSERT_EQ(
        ::posix_spawn(&children_[rank], program.c_str(), &actions, nullptr, arguments, environ), 0);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(to[0]);
    ::close(from[1]);
    in_[rank] = to[1];
    out_[rank] = from[0];
  }

  int ExitOf(int rank) {
    int status = 0;
    ::waitpid(children_[rank], &status, 0);
    children_[rank] = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  pid_t children_[2] = {-1, -1};
  int in_[2] = {-1, -1};
  int out_[2] = {-1, -1};
};

TEST_F(NcclGpu, KeepsTheContract) { Run("contract", 1, true); }
TEST_F(NcclGpu, AbortReachesBothAndTheNextEpochWorks) { Run("abort", 2, true); }
TEST_F(NcclGpu, APeerThatDiesIsReportedAndAllIsOverInThreeSeconds) { Run("dies", 1, false); }
TEST_F(NcclGpu, APeerThatNeverJoinsEndsAtTheDeadline) { Run("never", 1, false); }

int RunRank(const std::string& scenario, int rank) {
  NcclRank self(rank);
  const std::string wrong = Scenarios().at(scenario)(self);
  if (!wrong.empty())
    std::fprintf(stderr, "rank %d, %s: %s\n", rank, scenario.c_str(), wrong.c_str());
  return wrong.empty() ? 0 : 1;
}

}  // namespace
}  // namespace annulus::transport

int main(int argc, char** argv) {
  if (argc == 3 && argv[1][0] != '-')
    return annulus::transport::RunRank(argv[1], std::atoi(argv[2]));
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
