// SPDX-License-Identifier: Apache-2.0
// Speed of the CPU kernels on one thread, as a share of a multiply-add loop timed beside them.
//
//   annulus-bench-kernels [repetitions]
//
// FLOPs are counted as 4 * heads * cells * head_dim forward and 2.5 times that backward, cells
// being the unmasked (query, key) pairs; repeated work and masked lanes count zero. Variants take
// turns and the best of all repetitions counts, because a shared machine slows down for seconds at
// a time.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_plugin.h"
#include "kernels/tensor_view.h"
#include "tests/bench/kernels/fma_peak.h"

namespace annulus::kernels {
namespace {

double Seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void Require(annulusComputeStatus status) {
  if (status == ANNULUS_COMPUTE_OK) return;
  std::fprintf(stderr, "annulus-bench-kernels: %s\n", CpuPlugin()->last_error());
  std::exit(1);
}

// One head of attention with everything it needs; forward and backward may be run repeatedly.
class Variant {
 public:
  Variant(annulusStream* stream, int64_t rows, int64_t head_dim, annulusDtype dtype, bool causal)
      : stream_(stream),
        span_{0, rows, 0, 1},
        elements_(4, std::vector<uint8_t>(rows * head_dim * DtypeBytes(dtype))),
        floats_(4, std::vector<float>(rows * head_dim)),
        lse_(rows),
        delta_(rows) {
    char name[64];
    std::snprintf(name, sizeof(name), "%-4s D=%-3d S=%-5d %s", DtypeName(dtype),
                  static_cast<int>(head_dim), static_cast<int>(rows), causal ? "causal" : "full");
    label = name;
    const double n = static_cast<double>(rows);
    forward_flops = 4.0 * (causal ? n * (n + 1) / 2 : n * n) * static_cast<double>(head_dim);
    FillNormal(dtype, rows * head_dim);
    auto input = [&](int i) {
      return ContiguousTensor(elements_[i].data(), dtype, 1, rows, 1, head_dim);
    };
    auto output = [&](int i) {
      return ContiguousTensor(floats_[i].data(), ANNULUS_F32, 1, rows, 1, head_dim);
    };
    const annulusRowStat lse = ContiguousRowStat(lse_.data(), 1, rows, 1);
    const annulusRowStat delta = ContiguousRowStat(delta_.data(), 1, rows, 1);
    const annulusMask mask = {causal ? ANNULUS_MASK_CAUSAL : ANNULUS_MASK_FULL, 0, -1};
    const float scale = 0.125f;
    forward_ = {sizeof(forward_), input(0), input(1), input(2), output(0), lse, &span_, 1,
                &span_,           1,        mask,     scale,    0};
    backward_ = {sizeof(backward_),
                 input(0),
                 input(1),
                 input(2),
                 input(3),
                 output(1),
                 output(2),
                 output(3),
                 lse,
                 delta,
                 &span_,
                 1,
                 &span_,
                 1,
                 mask,
                 scale,
                 0,
                 0};
  }
  Variant(const Variant&) = delete;
  Variant& operator=(const Variant&) = delete;

  void Measure() {
    const annulusComputeV1* api = CpuPlugin();
    Require(api->reset(stream_, &forward_.o, &forward_.lse));
    forward_seconds =
        std::min(forward_seconds, Seconds([&] { Require(api->attend(stream_, &forward_)); }));
    Require(api->backward_prepare(stream_, &backward_.d_o, &forward_.o, &backward_.delta));
    backward_seconds = std::min(
        backward_seconds, Seconds([&] { Require(api->attend_backward(stream_, &backward_)); }));
  }

  std::string label;
  double forward_flops = 0.0;
  double forward_seconds = std::numeric_limits<double>::infinity();
  double backward_seconds = std::numeric_limits<double>::infinity();

 private:
  void FillNormal(annulusDtype dtype, int64_t count) {
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    std::vector<float> values(count);
    for (std::vector<uint8_t>& tensor : elements_) {
      for (float& value : values) value = normal(rng);
      StoreFromFloat(values.data(), count, dtype, tensor.data());
    }
  }

  annulusStream* stream_;
  annulusSpan span_;
  std::vector<std::vector<uint8_t>> elements_;
  std::vector<std::vector<float>> floats_;
  std::vector<float> lse_;
  std::vector<float> delta_;
  annulusAttendArgs forward_ = {};
  annulusAttendBackwardArgs backward_ = {};
};

int Main(int repetitions) {
  const annulusComputeV1* api = CpuPlugin();
  const annulusComputeOptions options = {sizeof(options), 0, 1};
  annulusDevice* device = nullptr;
  annulusStream* stream = nullptr;
  Require(api->open(&options, &device));
  Require(api->stream_create(device, &stream));
  annulusDeviceInfo info = {};
  info.struct_size = sizeof(info);
  Require(api->device_info(device, &info));

  std::vector<std::unique_ptr<Variant>> variants;
  for (const int64_t rows : {1024, 3072}) {
    for (const bool causal : {false, true}) {
      for (const int64_t head_dim : {64, 128}) {
        variants.push_back(std::make_unique<Variant>(stream, rows, head_dim, ANNULUS_F32, causal));
      }
    }
  }
  variants.push_back(std::make_unique<Variant>(stream, 3072, 128, ANNULUS_BF16, false));

  double peak = 0.0;
  for (int repetition = 0; repetition < repetitions; ++repetition) {
    for (const auto& variant : variants) {
      double flops = 0.0;
      const double seconds = Seconds([&] { flops = RunFmaPeak(); });
      peak = std::max(peak, flops / seconds);
      variant->Measure();
    }
  }
  std::printf("%s; multiply-add peak %.1f GFLOP/s; best of %d\n", info.description, peak * 1e-9,
              repetitions);
  std::printf("%-26s %12s %8s %12s %8s\n", "", "fwd GFLOP/s", "of peak", "bwd GFLOP/s", "of peak");
  for (const auto& variant : variants) {
    const double forward = variant->forward_flops / variant->forward_seconds;
    const double backward = 2.5 * variant->forward_flops / variant->backward_seconds;
    std::printf("%-26s %12.1f %7.1f%% %12.1f %7.1f%%\n", variant->label.c_str(), forward * 1e-9,
                100 * forward / peak, backward * 1e-9, 100 * backward / peak);
  }
  variants.clear();
  api->stream_destroy(stream);
  api->close(device);
  return 0;
}

}  // namespace
}  // namespace annulus::kernels

int main(int argc, char** argv) {
  const int repetitions = argc > 1 ? std::atoi(argv[1]) : 20;
  if (repetitions < 1) {
    std::fprintf(stderr, "usage: annulus-bench-kernels [repetitions >= 1]\n");
    return 2;
  }
  return annulus::kernels::Main(repetitions);
}
