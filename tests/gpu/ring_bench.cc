// SPDX-License-Identifier: Apache-2.0
// annulus-gpu-ring-bench [ranks]: a ring of processes on one GPU, one JSON object a line, for
// tests/gpu/ring_bench.sh. Each rank attends its queries over the block that it holds while the
// copy engine passes that block on: the forward of a plain ring, full or causal in the zigzag
// layout, straight over the compute and the transport plugin.
//
// The processes share one card and run in turns, so a step lasts as long as all ranks' kernels one
// after the other: the figures are what the copies cost the kernels beside them, not those of as
// many GPUs. Per shape and link, best of kRounds, interleaved:
//   ideal_seconds    every rank's kernels with the card to itself, one rank after the other
//   compute_seconds  the kernels, transfers left out       comm_seconds  the transfers alone
//   full_seconds     both; exposed = full - compute, overlap = 1 - exposed / comm
//   efficiency = ideal / full
//   contention: how much longer kernels take, from launch to end, beside transfers than without:
//   their sum over the steps in a full run / in a compute run - 1, mean over the ranks
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

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
  bool alone = false;  // the ranks one after the other
};
enum { kCompute, kTransfers, kFull, kAlone, kModeCount };
constexpr Mode kModes[kModeCount] = {
    {true, false}, {false, true}, {true, true}, {true, false, true}};

// bfloat16 of either sign between a half and one: zeros would spare the card power, and its clock.
std::vector<char> Drawn(size_t bytes) {
  std::vector<char> out(bytes);
  uint32_t state = 1;
  for (size_t i = 0; i + 1 < bytes; i += 2) {
    state = state * 1664525u + 1013904223u;
    const auto value = static_cast<uint16_t>(((state >> 16) & 0x807f) | 0x3f00);
    std::memcpy(&out[i], &value, sizeof(value));
  }
  return out;
}

// A rank's queries, its state, and two blocks of keys and values that take turns.
struct Shard {
  Shard(const kernels::GpuDevice& gpu, int64_t rows_in)
      : rows(rows_in),
        q(gpu, Drawn(QueryBytes(2)).data(), QueryBytes(2)),
        o(gpu, std::vector<char>(QueryBytes(4)).data(), QueryBytes(4)),
        lse(gpu, std::vector<char>(StatBytes()).data(), StatBytes()),
        blocks{{gpu, Drawn(BlockBytes()).data(), BlockBytes()},
               {gpu, Drawn(BlockBytes()).data(), BlockBytes()}} {}

  size_t QueryBytes(size_t each) const { return size_t(rows * kQueryHeads * kHeadDim) * each; }
  size_t StatBytes() const { return size_t(rows * kQueryHeads) * sizeof(float); }
  size_t BlockBytes() const { return size_t(2 * rows * kKvHeads * kHeadDim) * 2; }

  annulusAttendArgs Args(int block, bool causal) const {
    using kernels::ContiguousTensor;
    auto* const keys = static_cast<char*>(blocks[block].data());
    annulusAttendArgs args{};
    args.struct_size = sizeof(args);
    args.q = ContiguousTensor(q.data(), ANNULUS_BF16, 1, rows, kQueryHeads, kHeadDim);
    args.k = ContiguousTensor(keys, ANNULUS_BF16, 1, rows, kKvHeads, kHeadDim);
    args.v = ContiguousTensor(keys + BlockBytes() / 2, ANNULUS_BF16, 1, rows, kKvHeads, kHeadDim);
    args.o = ContiguousTensor(o.data(), ANNULUS_F32, 1, rows, kQueryHeads, kHeadDim);
    args.lse = kernels::ContiguousRowStat(static_cast<float*>(lse.data()), 1, rows, kQueryHeads);
    args.mask = {causal ? ANNULUS_MASK_CAUSAL : ANNULUS_MASK_FULL, 0, -1};
    args.softmax_scale = 0.088f;
    return args;
  }

  int64_t rows;
  kernels::DeviceCopy q, o, lse;
  kernels::DeviceCopy blocks[2];
};

// The two chunks of a rank in the zigzag layout, of 2 N; rows is even.
std::array<annulusSpan, 2> Zigzag(int32_t rank, int32_t size, int64_t rows) {
  const int64_t chunk = rows / 2;
  return {annulusSpan{0, chunk, rank * chunk, 1},
          annulusSpan{chunk, chunk, (2 * size - 1 - rank) * chunk, 1}};
}

struct Pass {
  double seconds = -1;  // -1: a transfer failed
  double kernel_seconds = 0;
};

// One pass round the ring on this rank.
Pass RunRing(const RankContext& self, const kernels::GpuDevice& gpu, const Shard& shard,
             bool causal, Mode mode, uint64_t* tag) {
  const auto queries = Zigzag(self.rank, self.size, shard.rows);
  const size_t bytes = shard.BlockBytes();
  for (int32_t turn = 0; mode.alone && turn < self.rank; ++turn) self.Barrier();
  self.Barrier();
  Pass pass;
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
      annulusAttendArgs args = shard.Args(step % 2, causal);
      const auto keys = Zigzag((self.rank - step + self.size) % self.size, self.size, shard.rows);
      args.q_spans = queries.data();
      args.kv_spans = keys.data();
      args.q_span_count = args.kv_span_count = 2;
      const int64_t launched = NowNs();
      gpu.Check(gpu.api().attend(gpu.stream(), &args));
      gpu.Drain();
      pass.kernel_seconds += static_cast<double>(NowNs() - launched) * 1e-9;
    }
    if (!moves) continue;
    annulusCompletion ends[2] = {};
    self.table->wait(requests, 2, ends);
    for (annulusRequest* request : requests) self.table->release(request);
    if (ends[0].status != ANNULUS_TRANSPORT_OK || ends[1].status != ANNULUS_TRANSPORT_OK) {
      return pass;
    }
  }
  pass.seconds = static_cast<double>(NowNs() - start) * 1e-9;
  for (int32_t turn = self.rank; mode.alone && turn < self.size; ++turn) self.Barrier();
  return pass;
}

// What every rank has to say, on every rank.
std::vector<double> Everyones(const RankContext& self, double value) {
  self.common->seconds[static_cast<size_t>(self.rank)] = value;
  self.Barrier();
  std::vector<double> all(self.common->seconds.begin(), self.common->seconds.begin() + self.size);
  self.Barrier();
  return all;
}

struct Case {
  const char* what;
  int64_t rows;  // of a rank
  bool causal;
};
constexpr Case kCases[] = {{"ring forward, full", 1024, false},
                           {"ring forward, full", 4096, false},
                           {"ring forward, full", 8192, false},
                           {"ring forward, causal zigzag", 8192, true}};

void Print(const RankContext& self, const Case& one, const char* link, size_t block_bytes,
           const double* seconds, double contention) {
  const double exposed = std::max(0.0, seconds[kFull] - seconds[kCompute]);
  std::printf(
      "{\"what\": \"%s\", \"ranks\": %d, \"rows\": %ld, \"link\": \"%s\", "
      "\"block_bytes\": %zu, \"ideal_seconds\": %.6f, \"compute_seconds\": %.6f, "
      "\"comm_seconds\": %.6f, \"full_seconds\": %.6f, \"exposed_seconds\": %.6f, "
      "\"overlap\": %.4f, \"efficiency\": %.4f, \"contention\": %.4f}\n",
      one.what, self.size, static_cast<long>(one.rows), link, block_bytes, seconds[kAlone],
      seconds[kCompute], seconds[kTransfers], seconds[kFull], exposed,
      1 - exposed / seconds[kTransfers], seconds[kAlone] / seconds[kFull], contention);
  std::fflush(stdout);
}

// 0, or 1 where a transfer failed.
int Measure(const RankContext& self, const kernels::GpuDevice& gpu, const Case& one,
            const char* link, uint64_t* tag) {
  const Shard shard(gpu, one.rows);
  double best[kModeCount] = {1e9, 1e9, 1e9, 1e9};
  double kernels[kModeCount] = {1e9, 1e9, 1e9, 1e9};  // of this rank
  for (int round = 0; round < kRounds; ++round) {
    for (int mode = 0; mode < kModeCount; ++mode) {
      const Pass pass = RunRing(self, gpu, shard, one.causal, kModes[mode], tag);
      const std::vector<double> all = Everyones(self, pass.seconds);
      if (*std::min_element(all.begin(), all.end()) < 0) return 1;
      best[mode] =
          std::min(best[mode], kModes[mode].alone ? std::accumulate(all.begin(), all.end(), 0.0)
                                                  : *std::max_element(all.begin(), all.end()));
      kernels[mode] = std::min(kernels[mode], pass.kernel_seconds);
    }
  }
  const auto slower = Everyones(self, kernels[kFull] / kernels[kCompute] - 1);
  const double mean = std::accumulate(slower.begin(), slower.end(), 0.0) / self.size;
  if (self.rank == 0) Print(self, one, link, shard.BlockBytes(), best, mean);
  return 0;
}

int Bench(const RankContext& self, const char* link) {
  const kernels::GpuDevice gpu;
  if (!gpu.missing().empty()) return kNoDevice;
  if (self.rank == 0) std::printf("{\"device\": \"%s\"}\n", gpu.Description().c_str());
  uint64_t tag = 0;
  for (const Case& one : kCases) {
    if (Measure(self, gpu, one, link, &tag) != 0) return 1;
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
