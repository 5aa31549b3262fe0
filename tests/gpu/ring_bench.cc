// SPDX-License-Identifier: Apache-2.0
// annulus-gpu-ring-bench [ranks]: a ring of processes on one GPU, one JSON object a line, for
// tests/gpu/ring_bench.sh. Each rank attends its queries over the block that it holds while the
// copy engine passes that block on: the forward of a plain ring, full mask, straight over the
// compute and the transport plugin.
//
// The processes share one card and run in turns, so a step lasts as long as all ranks' kernels one
// after the other: the figures are what the copies cost the kernels beside them, not those of as
// many GPUs. Per shape and link, best of kRounds, interleaved:
//   compute_seconds  the kernels, transfers left out       comm_seconds  the transfers alone
//   full_seconds     both; exposed = full - compute, overlap = 1 - exposed / comm
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "kernels/tensor_view.h"
#include "server/transport/host/clock.h"
#include "server/transport/pacing/pacing.h"
#include "tests/gpu/gpu_device.h"
#include "tests/gpu/gpu_transport.h"
#include "tests/gpu/rank_processes.h"

namespace annulus::transport {
namespace {

constexpr int64_t kQueryHeads = 32;
constexpr int64_t kKvHeads = 8;
constexpr int64_t kHeadDim = 128;
constexpr int kRounds = 5;
constexpr double kPacedBytesPerSecond = 370e9;  // what NVLink 4 gives one way

struct Mode {
  bool compute;
  bool transfers;
};
constexpr Mode kModes[] = {{true, false}, {false, true}, {true, true}};

// A rank's queries, its state, and two blocks of keys and values that take turns.
struct Shard {
  Shard(const kernels::GpuDevice& gpu, int64_t rows_in)
      : rows(rows_in),
        q(gpu, std::vector<char>(QueryBytes(2)).data(), QueryBytes(2)),
        o(gpu, std::vector<char>(QueryBytes(4)).data(), QueryBytes(4)),
        lse(gpu, std::vector<char>(StatBytes()).data(), StatBytes()),
        blocks{{gpu, std::vector<char>(BlockBytes()).data(), BlockBytes()},
               {gpu, std::vector<char>(BlockBytes()).data(), BlockBytes()}} {}

  size_t QueryBytes(size_t each) const { return size_t(rows * kQueryHeads * kHeadDim) * each; }
  size_t StatBytes() const { return size_t(rows * kQueryHeads) * sizeof(float); }
  size_t BlockBytes() const { return size_t(2 * rows * kKvHeads * kHeadDim) * 2; }

  annulusAttendArgs Args(int block) const {
    using kernels::ContiguousTensor;
    auto* const keys = static_cast<char*>(blocks[block].data());
    annulusAttendArgs args{};
    args.struct_size = sizeof(args);
    args.q = ContiguousTensor(q.data(), ANNULUS_BF16, 1, rows, kQueryHeads, kHeadDim);
    args.k = ContiguousTensor(keys, ANNULUS_BF16, 1, rows, kKvHeads, kHeadDim);
    args.v = ContiguousTensor(keys + BlockBytes() / 2, ANNULUS_BF16, 1, rows, kKvHeads, kHeadDim);
    args.o = ContiguousTensor(o.data(), ANNULUS_F32, 1, rows, kQueryHeads, kHeadDim);
    args.lse = kernels::ContiguousRowStat(static_cast<float*>(lse.data()), 1, rows, kQueryHeads);
    args.mask = {ANNULUS_MASK_FULL, 0, -1};
    args.softmax_scale = 0.088f;
    return args;
  }

  int64_t rows;
  kernels::DeviceCopy q, o, lse;
  kernels::DeviceCopy blocks[2];
};

// One pass round the ring; its seconds on this rank, or -1.
double RunRing(const RankContext& self, const kernels::GpuDevice& gpu, const Shard& shard,
               Mode mode, uint64_t* tag) {
  const annulusSpan span{0, shard.rows, 0, 1};
  const size_t bytes = shard.BlockBytes();
  self.Barrier();
  const int64_t start = NowNs();
  for (int step = 0; step < self.size; ++step) {
    annulusRequest* requests[2] = {};
    const bool moves = mode.transfers && step + 1 < self.size;
    if (moves) {
      const annulusSegment in{shard.blocks[(step + 1) % 2].data(), bytes};
      const annulusSegment out{shard.blocks[step % 2].data(), bytes};
      const int32_t previous = (self.rank + self.size - 1) % self.size;
      self.table->irecv(self.transport, previous, ++*tag, &in, 1, InAMinute(), &requests[0]);
      self.table->isend(self.transport, (self.rank + 1) % self.size, *tag, &out, 1, InAMinute(),
                        &requests[1]);
    }
    if (mode.compute) {
      annulusAttendArgs args = shard.Args(step % 2);
      args.q_spans = args.kv_spans = &span;
      args.q_span_count = args.kv_span_count = 1;
      gpu.Check(gpu.api().attend(gpu.stream(), &args));
      gpu.Drain();
    }
    if (!moves) continue;
    annulusCompletion ends[2] = {};
    self.table->wait(requests, 2, ends);
    for (annulusRequest* request : requests) self.table->release(request);
    if (ends[0].status != ANNULUS_TRANSPORT_OK || ends[1].status != ANNULUS_TRANSPORT_OK) return -1;
  }
  return static_cast<double>(NowNs() - start) * 1e-9;
}

// The slowest rank's seconds, on every rank.
double Slowest(const RankContext& self, double seconds) {
  self.common->seconds[static_cast<size_t>(self.rank)] = seconds;
  self.Barrier();
  const auto* all = self.common->seconds.data();
  const double slowest =
      *std::min_element(all, all + self.size) < 0 ? -1 : *std::max_element(all, all + self.size);
  self.Barrier();
  return slowest;
}

int Bench(const RankContext& self, const char* link) {
  const kernels::GpuDevice gpu;
  if (!gpu.missing().empty()) return kNoDevice;
  if (self.rank == 0) std::printf("{\"device\": \"%s\"}\n", gpu.Description().c_str());
  uint64_t tag = 0;
  for (const int64_t rows : {1024, 4096, 8192}) {
    const Shard shard(gpu, rows);
    double best[3] = {1e9, 1e9, 1e9};
    for (int round = 0; round < kRounds; ++round) {
      for (int mode = 0; mode < 3; ++mode) {
        const double seconds = Slowest(self, RunRing(self, gpu, shard, kModes[mode], &tag));
        if (seconds < 0) return 1;
        best[mode] = std::min(best[mode], seconds);
      }
    }
    const double exposed = std::max(0.0, best[2] - best[0]);
    if (self.rank != 0) continue;
    std::printf(
        "{\"what\": \"ring forward, full\", \"ranks\": %d, \"rows\": %ld, \"link\": \"%s\", "
        "\"block_bytes\": %zu, \"compute_seconds\": %.6f, \"comm_seconds\": %.6f, "
        "\"full_seconds\": %.6f, \"exposed_seconds\": %.6f, \"overlap\": %.4f}\n",
        self.size, static_cast<long>(rows), link, shard.BlockBytes(), best[0], best[1], best[2],
        exposed, 1 - exposed / best[1]);
    std::fflush(stdout);
  }
  self.Barrier();
  return 0;
}

const annulusTransportV1* Paced() {
  PacingModel model;
  model.inner = {.bytes_per_second = kPacedBytesPerSecond, .latency_seconds = 2e-6};
  model.ranks_per_node = kMaxRanks;
  return PacingTransport(LoadTransport("cuipc"), model);
}

int Main(int32_t ranks) {
  const std::vector<int> plain = RunRanks(
      ranks, [] { return LoadTransport("cuipc"); },
      [](const RankContext& self) { return Bench(self, "the card's own"); });
  if (plain[0] == kNoDevice) return kNoDevice;
  const std::vector<int> paced =
      RunRanks(ranks, Paced, [](const RankContext& self) { return Bench(self, "inner=370GB/s"); });
  const auto failed = [](int code) { return code != 0; };
  return std::any_of(plain.begin(), plain.end(), failed) ||
         std::any_of(paced.begin(), paced.end(), failed);
}

}  // namespace
}  // namespace annulus::transport

int main(int argc, char** argv) {
  const int ranks = argc > 1 ? std::atoi(argv[1]) : 8;
  if (ranks < 2 || ranks > annulus::transport::kMaxRanks) {
    std::fprintf(stderr, "usage: annulus-gpu-ring-bench [ranks, 2 to 16; 8]\n");
    return 2;
  }
  return annulus::transport::Main(ranks);
}
