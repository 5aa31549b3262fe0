// SPDX-License-Identifier: Apache-2.0
// Transfers of device memory between processes on one GPU: annulus-gpu-process-test. This process
// itself never touches CUDA, so that it may fork. Skips where there is no GPU.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "server/transport/host/clock.h"
#include "tests/contract/transport/mesh.h"
#include "tests/gpu/gpu_transport.h"
#include "tests/gpu/rank_processes.h"

namespace annulus::transport {
namespace {

const annulusTransportV1* Cuipc() { return LoadTransport("cuipc"); }

annulusTransportStatus Finish(const RankContext& self, annulusRequest* request) {
  annulusCompletion end{};
  self.table->wait(&request, 1, &end);
  self.table->release(request);
  return end.status;
}

// A block of this rank goes once round the ring, through fresh memory and kept memory in turn.
int PassRound(const RankContext& self) {
  CudaMemory memory;
  constexpr size_t kBytes = (size_t{8} << 20) + 24;
  std::vector<uint8_t> mine = Pattern(static_cast<uint64_t>(self.rank), kBytes);
  void* held = memory.Allocate(kBytes);
  memory.Upload(held, mine.data(), kBytes);
  const int32_t next = (self.rank + 1) % self.size;
  const int32_t previous = (self.rank + self.size - 1) % self.size;
  for (int32_t step = 0; step < self.size; ++step) {
    auto* const arriving = static_cast<uint8_t*>(memory.Allocate(kBytes));
    const annulusSegment in[] = {{arriving + 1000, kBytes - 1000}, {arriving, 1000}};
    const annulusSegment out[] = {{static_cast<uint8_t*>(held) + 1000, kBytes - 1000},
                                  {held, 1000}};
    annulusRequest* receive = nullptr;
    annulusRequest* send = nullptr;
    const auto tag = static_cast<uint64_t>(step);
    self.table->irecv(self.transport, previous, tag, in, 2, InAMinute(), &receive);
    self.table->isend(self.transport, next, tag, out, 2, InAMinute(), &send);
    if (Finish(self, receive) != ANNULUS_TRANSPORT_OK) return 1;
    if (Finish(self, send) != ANNULUS_TRANSPORT_OK) return 2;
    if (self.table->deregister_memory(self.transport, held) != ANNULUS_TRANSPORT_OK) return 3;
    memory.Free(held);
    held = arriving;
  }
  std::vector<uint8_t> back(kBytes);
  memory.Download(back.data(), held, kBytes);
  self.Barrier();
  return back == mine ? 0 : 4;
}

TEST(GpuProcess, BlocksGoRoundTheRing) {
  for (const int32_t size : {2, 4, 8}) {
    const std::vector<int> codes = RunRanks(size, Cuipc, PassRound);
    if (codes[0] == kNoDevice) GTEST_SKIP() << "no CUDA device";
    EXPECT_EQ(codes, std::vector<int>(static_cast<size_t>(size), 0));
  }
}

// Transfers until rank 1 kills itself with copies under way. 33: lost within three seconds of the
// last transfer that ended, and the suspect is named.
int MoveUntilLost(const RankContext& self) {
  CudaMemory memory;
  constexpr size_t kBytes = size_t{256} << 20;
  void* from = memory.Allocate(kBytes);
  void* to = memory.Allocate(kBytes);
  const annulusSegment out{from, kBytes};
  const annulusSegment in{to, kBytes};
  const int32_t peer = self.rank == 0 ? 1 : 0;
  self.Barrier();
  int64_t alive_ns = NowNs();
  for (uint64_t tag = 0;; ++tag) {
    annulusRequest* receive = nullptr;
    annulusRequest* send = nullptr;
    self.table->irecv(self.transport, peer, tag, &in, 1, InAMinute(), &receive);
    self.table->isend(self.transport, peer, tag, &out, 1, InAMinute(), &send);
    if (self.rank == 1 && tag == 3) ::kill(::getpid(), SIGKILL);
    const annulusTransportStatus received = Finish(self, receive);
    const annulusTransportStatus sent = Finish(self, send);
    if (received == ANNULUS_TRANSPORT_OK && sent == ANNULUS_TRANSPORT_OK) {
      alive_ns = NowNs();
      continue;
    }
    const double seconds = static_cast<double>(NowNs() - alive_ns) * 1e-9;
    std::fprintf(stderr,
                 "{\"what\": \"killed peer reported\", \"transport\": \"cuipc\", "
                 "\"seconds\": %.3f}\n",
                 seconds);
    char text[512] = "";
    int32_t suspect = -1;
    self.table->last_error(self.transport, text, sizeof(text), &suspect);
    std::fprintf(stderr, "rank %d: %s\n", self.rank, text);
    const bool unsafe = std::strstr(text, "must not be used") != nullptr;
    const bool lost =
        received == ANNULUS_TRANSPORT_PEER_LOST || sent == ANNULUS_TRANSPORT_PEER_LOST;
    return lost && suspect == 1 && !unsafe && seconds < 3 ? 33 : 1;
  }
}

TEST(GpuProcess, AKilledPeerIsLostAndWritesNoMore) {
  const std::vector<int> codes = RunRanks(2, Cuipc, MoveUntilLost);
  if (codes[0] == kNoDevice) GTEST_SKIP() << "no CUDA device";
  EXPECT_EQ(codes[0], 33);
}

}  // namespace
}  // namespace annulus::transport
