// SPDX-License-Identifier: Apache-2.0
// annulus-gpu-bench [--provider NAME]: the CUDA plugin's rates, one JSON object a line, for
// tests/gpu/bench.sh.
//
// A figure is the median over windows of at least kWindowSeconds each; inputs are N(0, 1), since a
// GPU at its power limit runs faster on zeros. FLOPs count visible cells only: forward
// 4 * heads * head size * cells, backward 2.5 times that.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/tensor_view.h"
#include "tests/gpu/gpu_device.h"

namespace annulus::kernels {
namespace {

constexpr int64_t kQueryHeads = 32;
constexpr int64_t kKvHeads = 8;
constexpr int kWindows = 5;
constexpr double kWindowSeconds = 0.05;

std::vector<uint16_t> RandomBf16(int64_t count, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> values(count);
  for (uint16_t& value : values) value = FloatToBf16(normal(rng));
  return values;
}

// q, k, v, do in bf16 and the float32 accumulators of one sequence.
struct Problem {
  Problem(const GpuDevice& gpu, int64_t rows_in, int64_t head_dim_in)
      : rows(rows_in),
        head_dim(head_dim_in),
        q(gpu, RandomBf16(rows * kQueryHeads * head_dim, 1).data(), QueryBytes(2)),
        k(gpu, RandomBf16(rows * kKvHeads * head_dim, 2).data(), KeyBytes(2)),
        v(gpu, RandomBf16(rows * kKvHeads * head_dim, 3).data(), KeyBytes(2)),
        d_o(gpu, RandomBf16(rows * kQueryHeads * head_dim, 4).data(), QueryBytes(2)),
        o(gpu, std::vector<char>(QueryBytes(4)).data(), QueryBytes(4)),
        o2(gpu, std::vector<char>(QueryBytes(4)).data(), QueryBytes(4)),
        dk(gpu, std::vector<char>(KeyBytes(4)).data(), KeyBytes(4)),
        dv(gpu, std::vector<char>(KeyBytes(4)).data(), KeyBytes(4)),
        stats(gpu, std::vector<char>(3 * StatBytes()).data(), 3 * StatBytes()) {}

  size_t QueryBytes(int each) const { return rows * kQueryHeads * head_dim * each; }
  size_t KeyBytes(int each) const { return rows * kKvHeads * head_dim * each; }
  size_t StatBytes() const { return rows * kQueryHeads * sizeof(float); }

  annulusTensor Queries(const DeviceCopy& copy, annulusDtype dtype) const {
    return ContiguousTensor(copy.data(), dtype, 1, rows, kQueryHeads, head_dim);
  }
  annulusTensor Keys(const DeviceCopy& copy, annulusDtype dtype) const {
    return ContiguousTensor(copy.data(), dtype, 1, rows, kKvHeads, head_dim);
  }
  annulusRowStat Stat(int index) const {
    return ContiguousRowStat(static_cast<float*>(stats.data()) + index * rows * kQueryHeads, 1,
                             rows, kQueryHeads);
  }
  annulusAttendArgs Args(const annulusMask& mask) const {
    return {sizeof(annulusAttendArgs),
            Queries(q, ANNULUS_BF16),
            Keys(k, ANNULUS_BF16),
            Keys(v, ANNULUS_BF16),
            Queries(o, ANNULUS_F32),
            Stat(0),
            nullptr,
            0,
            nullptr,
            0,
            mask,
            0.088f,
            0};
  }
  // dq is written to o2.
  annulusAttendBackwardArgs BackwardArgs(const annulusMask& mask) const {
    return {sizeof(annulusAttendBackwardArgs),
            Queries(q, ANNULUS_BF16),
            Keys(k, ANNULUS_BF16),
            Keys(v, ANNULUS_BF16),
            Queries(d_o, ANNULUS_BF16),
            Queries(o2, ANNULUS_F32),
            Keys(dk, ANNULUS_F32),
            Keys(dv, ANNULUS_F32),
            Stat(0),
            Stat(1),
            nullptr,
            0,
            nullptr,
            0,
            mask,
            0.088f,
            0,
            0};
  }

  int64_t rows, head_dim;
  DeviceCopy q, k, v, d_o, o, o2, dk, dv, stats;
};

// Median seconds of one call of `work`.
double Seconds(const GpuDevice& gpu, const std::function<void()>& work) {
  work();
  int64_t begin = gpu.Drain();
  work();
  const double once = 1e-9 * static_cast<double>(gpu.Drain() - begin);
  const int calls = std::max(1, static_cast<int>(kWindowSeconds / once));
  std::vector<double> seconds;
  for (int window = 0; window < kWindows; ++window) {
    begin = gpu.Drain();
    for (int i = 0; i < calls; ++i) work();
    seconds.push_back(1e-9 * static_cast<double>(gpu.Drain() - begin) / calls);
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[kWindows / 2];
}

void Print(const std::string& what, int64_t rows, int64_t head_dim, double flops, double seconds) {
  std::printf(
      "{\"what\": \"%s\", \"rows\": %lld, \"head_dim\": %lld, \"seconds\": %.6g, \"tflops\": "
      "%.4g}\n",
      what.c_str(), static_cast<long long>(rows), static_cast<long long>(head_dim), seconds,
      flops / seconds * 1e-12);
  std::fflush(stdout);
}

double ForwardFlops(int64_t rows, int64_t head_dim, bool causal) {
  const double cells = causal ? 0.5 * rows * (rows + 1.0) : 1.0 * rows * rows;
  return 4.0 * kQueryHeads * head_dim * cells;
}

void WholeSequences(const GpuDevice& gpu, int64_t rows, int64_t head_dim) {
  const Problem problem(gpu, rows, head_dim);
  const annulusSpan span = {0, rows, 0, 1};
  for (const bool causal : {false, true}) {
    const annulusMask mask = {causal ? ANNULUS_MASK_CAUSAL : ANNULUS_MASK_FULL, 0, -1};
    annulusAttendArgs args = problem.Args(mask);
    args.q_spans = args.kv_spans = &span;
    args.q_span_count = args.kv_span_count = 1;
    const std::string suffix = causal ? " causal" : " full";
    const double flops = ForwardFlops(rows, head_dim, causal);
    const double in_place = Seconds(gpu, [&] { gpu.Check(gpu.api().attend(gpu.stream(), &args)); });
    Print("forward, state in place," + suffix, rows, head_dim, flops, in_place);
    Print("forward, from nothing," + suffix, rows, head_dim, flops, Seconds(gpu, [&] {
            gpu.Check(gpu.api().reset(gpu.stream(), &args.o, &args.lse));
            gpu.Check(gpu.api().attend(gpu.stream(), &args));
          }));
    annulusAttendArgs partial = args;
    partial.o = problem.Queries(problem.o2, ANNULUS_F32);
    partial.lse = problem.Stat(2);
    Print("forward, merged by a kernel of its own," + suffix, rows, head_dim, flops,
          Seconds(gpu, [&] {
            gpu.Check(gpu.api().reset(gpu.stream(), &partial.o, &partial.lse));
            gpu.Check(gpu.api().attend(gpu.stream(), &partial));
            gpu.Check(gpu.api().merge(gpu.stream(), &args.o, &args.lse, &partial.o, &partial.lse));
          }));
    annulusAttendBackwardArgs backward = problem.BackwardArgs(mask);
    backward.q_spans = backward.kv_spans = &span;
    backward.q_span_count = backward.kv_span_count = 1;
    gpu.Check(gpu.api().backward_prepare(gpu.stream(), &backward.d_o, &args.o, &backward.delta));
    Print("backward," + suffix, rows, head_dim, 2.5 * flops,
          Seconds(gpu, [&] { gpu.Check(gpu.api().attend_backward(gpu.stream(), &backward)); }));
  }
}

// Every block of a causal ring of 8 ranks in zigzag layout, one after another on this one GPU.
void RingOfBlocks(const GpuDevice& gpu, int64_t rows, int64_t head_dim) {
  constexpr int64_t kRanks = 8;
  const Problem problem(gpu, rows, head_dim);
  const int64_t chunk = rows / (2 * kRanks);
  const auto shard = [&](int64_t rank) {
    const int64_t last = 2 * kRanks - 1 - rank;
    return std::vector<annulusSpan>{{rank * chunk, chunk, rank * chunk, 1},
                                    {last * chunk, chunk, last * chunk, 1}};
  };
  annulusAttendArgs args = problem.Args({ANNULUS_MASK_CAUSAL, 0, -1});
  const double seconds = Seconds(gpu, [&] {
    for (int64_t rank = 0; rank < kRanks; ++rank) {
      const std::vector<annulusSpan> q_spans = shard(rank);
      for (int64_t step = 0; step < kRanks; ++step) {
        const std::vector<annulusSpan> kv_spans = shard((rank - step + kRanks) % kRanks);
        args.q_spans = q_spans.data();
        args.q_span_count = q_spans.size();
        args.kv_spans = kv_spans.data();
        args.kv_span_count = kv_spans.size();
        gpu.Check(gpu.api().attend(gpu.stream(), &args));
      }
    }
  });
  Print("forward, all blocks of a zigzag ring of 8, causal", rows, head_dim,
        ForwardFlops(rows, head_dim, true), seconds);
}

int Run(const char* provider) {
  const GpuDevice gpu(provider);
  if (!gpu.missing().empty()) {
    std::fprintf(stderr, "%s\n", gpu.missing().c_str());
    return 77;
  }
  std::printf("{\"device\": \"%s\"}\n", gpu.Description().c_str());
  for (const int64_t head_dim : {128, 64}) {
    for (const int64_t rows : {8192, 16384}) WholeSequences(gpu, rows, head_dim);
  }
  RingOfBlocks(gpu, 16384, 128);
  return 0;
}

}  // namespace
}  // namespace annulus::kernels

int main(int argc, char** argv) {
  if (argc == 1) return annulus::kernels::Run(nullptr);
  if (argc == 3 && std::strcmp(argv[1], "--provider") == 0) return annulus::kernels::Run(argv[2]);
  std::fprintf(stderr, "usage: %s [--provider NAME]\n", argv[0]);
  return 2;
}
