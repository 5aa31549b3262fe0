// SPDX-License-Identifier: Apache-2.0
// matrix COORDINATOR ci|full: the end-to-end matrix over real worker processes. Each problem (mask,
// lengths, heads, type) is solved once in float64 and then by every ring (N, w) and layout, forward
// and backward; each result must be inside the gates.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "annulus/client.h"
#include "kernels/reference/error_metrics.h"
#include "kernels/reference/reference.h"
#include "kernels/tensor_view.h"

namespace client = annulus::client;
namespace kernels = annulus::kernels;

namespace {

constexpr int kHeadDim = 32;
constexpr int kQueryHeads = 8;

struct Problem {
  int64_t query_length, kv_length;
  int kv_heads;
  client::DataType dtype;
  client::MaskKind mask;
};

struct Ring {
  int size, window;
  client::Layout layout;
};

template <typename T>
T Must(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
    std::exit(1);
  }
  return *std::move(value);
}

annulusDtype ToKernel(client::DataType dtype) {
  return dtype == client::DataType::kF32 ? ANNULUS_F32 : ANNULUS_BF16;
}

annulusTensor View(const client::Tensor& tensor) {
  const client::TensorView& view = tensor.view();
  return kernels::ContiguousTensor(view.data, ToKernel(view.dtype), view.batch, view.rows,
                                   view.heads, view.head_dim);
}

std::vector<float> Floats(const client::Tensor& tensor) {
  const size_t width = client::DataTypeBytes(tensor.view().dtype);
  std::vector<float> values(tensor.bytes() / width);
  kernels::LoadAsFloat(tensor.data(), ToKernel(tensor.view().dtype),
                       static_cast<int64_t>(values.size()), values.data());
  return values;
}

double Rms(const std::vector<double>& values) {
  double sum = 0;
  for (double value : values) sum += value * value;
  return values.empty() ? 0 : std::sqrt(sum / static_cast<double>(values.size()));
}

// Relative RMSE; where the float64 gradient vanishes identically (one key: the softmax is constant)
// a relative error has no meaning, and the error is taken relative to the unit variance of dO.
double GradientError(const std::vector<float>& got, const std::vector<double>& want) {
  if (Rms(want) > 1e-12) return kernels::RelativeRmse(got, want);
  return kernels::MaxAbsError(got, want);
}

// Tensors of one problem, in memory shared with the workers, and its float64 solution.
class Case {
 public:
  Case(client::Client& service, const Problem& problem) : service_(service), problem_(problem) {
    std::mt19937 random(static_cast<unsigned>(problem.query_length * 31 + problem.kv_heads));
    q_ = Input(problem.query_length, kQueryHeads, random);
    k_ = Input(problem.kv_length, problem.kv_heads, random);
    v_ = Input(problem.kv_length, problem.kv_heads, random);
    d_o_ = Input(problem.query_length, kQueryHeads, random);
    o_ = Output(problem.query_length, kQueryHeads, problem.dtype, kHeadDim);
    lse_ = Output(problem.query_length, kQueryHeads, client::DataType::kF32, 0);
    dq_ = Output(problem.query_length, kQueryHeads, problem.dtype, kHeadDim);
    dk_ = Output(problem.kv_length, problem.kv_heads, problem.dtype, kHeadDim);
    dv_ = Output(problem.kv_length, problem.kv_heads, problem.dtype, kHeadDim);
    Solve();
  }

  // The number of results outside the gates.
  int Run(const Ring& ring, bool retain) {
    const std::string group = "n" + std::to_string(ring.size) + "w" + std::to_string(ring.window);
    Must(service_.EnsureGroup({.name = group, .size = ring.size, .window_size = ring.window}));
    for (client::Tensor* tensor : {&o_, &lse_, &dq_, &dk_, &dv_}) {
      std::memset(tensor->data(), 0xff, tensor->bytes());  // NaN: what is not written shows
    }
    client::AttendOptions options;
    options.mask.kind = problem_.mask;
    options.layout = ring.layout;
    options.retain = retain;
    auto forward = Must(service_.Attend({group, q_, k_, v_, o_, lse_}, options));
    options.retain = false;
    client::AttendBackwardCall call{group, q_, k_, v_, o_, lse_, d_o_, dq_, dk_, dv_, ""};
    if (retain) call.forward_request_id = forward.request_id;
    Must(service_.AttendBackward(call, options));
    if (retain && !service_.ReleaseRetained(group, forward.request_id).ok()) return 1;
    return Compare(ring);
  }

 private:
  client::Tensor Output(int64_t rows, int heads, client::DataType dtype, int head_dim) {
    return Must(service_.AllocateTensor(dtype, 1, rows, heads, head_dim));
  }

  client::Tensor Input(int64_t rows, int heads, std::mt19937& random) {
    client::Tensor tensor = Output(rows, heads, problem_.dtype, kHeadDim);
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<size_t>(rows) * heads * kHeadDim);
    for (float& value : values) value = normal(random);
    kernels::StoreFromFloat(values.data(), static_cast<int64_t>(values.size()),
                            ToKernel(problem_.dtype), tensor.data());
    return tensor;
  }

  void Solve() {
    kernels::ReferenceInputs inputs;
    inputs.q = View(q_);
    inputs.k = View(k_);
    inputs.v = View(v_);
    inputs.mask.kind =
        problem_.mask == client::MaskKind::kCausal ? ANNULUS_MASK_CAUSAL : ANNULUS_MASK_FULL;
    inputs.mask.causal_offset = problem_.kv_length - problem_.query_length;
    inputs.softmax_scale = 1 / std::sqrt(static_cast<double>(kHeadDim));
    inputs.threads = 2;
    forward_ = kernels::AttendReference(inputs, kernels::AllRows(problem_.query_length));
    gradients_ = kernels::AttendBackwardReference(inputs, View(d_o_),
                                                  kernels::AllRows(problem_.query_length),
                                                  kernels::AllRows(problem_.kv_length));
  }

  int Compare(const Ring& ring) {
    const kernels::AccuracyGates gates = kernels::GatesFor(ToKernel(problem_.dtype));
    const struct {
      const char* name;
      double error, gate;
    } results[] = {
        {"o", kernels::RelativeRmse(Floats(o_), forward_.o), gates.forward_relative_rmse},
        {"lse", kernels::MaxAbsError(Floats(lse_), forward_.lse), gates.lse_max_abs},
        {"dq", GradientError(Floats(dq_), gradients_.dq), gates.gradient_relative_rmse},
        {"dk", GradientError(Floats(dk_), gradients_.dk), gates.gradient_relative_rmse},
        {"dv", GradientError(Floats(dv_), gradients_.dv), gates.gradient_relative_rmse},
    };
    int wrong = 0;
    for (const auto& result : results) {
      if (result.error <= result.gate) continue;
      ++wrong;
      std::printf(
          "WRONG %s: error %.3g, gate %.3g: Lq %ld Lkv %ld heads %d:%d %s %s N %d w %d layout %d\n",
          result.name, result.error, result.gate, problem_.query_length, problem_.kv_length,
          kQueryHeads, problem_.kv_heads, problem_.dtype == client::DataType::kF32 ? "f32" : "bf16",
          problem_.mask == client::MaskKind::kCausal ? "causal" : "full", ring.size, ring.window,
          static_cast<int>(ring.layout));
    }
    return wrong;
  }

  client::Client& service_;
  const Problem problem_;
  client::Tensor q_, k_, v_, d_o_, o_, lse_, dq_, dk_, dv_;
  kernels::ReferenceForward forward_;
  kernels::ReferenceGradients gradients_;
};

std::vector<Ring> Rings(const std::vector<int>& sizes, const std::vector<client::Layout>& layouts) {
  std::vector<Ring> rings;
  for (int size : sizes) {
    for (int window = 1; window <= size; ++window) {
      if (size % window != 0) continue;
      for (client::Layout layout : layouts) rings.push_back({size, window, layout});
    }
  }
  return rings;
}

struct Part {
  std::vector<std::pair<int64_t, int64_t>> lengths;
  std::vector<Ring> rings;
};

std::vector<Part> Parts(bool full) {
  const std::vector<client::Layout> layouts = {client::Layout::kContiguous, client::Layout::kZigzag,
                                               client::Layout::kStriped};
  const std::vector<int> sizes = {1, 2, 3, 4, 5, 6, 7, 8};
  const std::vector<std::pair<int64_t, int64_t>> unequal = {{97, 160}, {160, 97}};
  if (full) {
    return {{{{1, 1}, {7, 7}, {1000, 1000}, {4097, 4097}, {1000, 1500}}, Rings(sizes, layouts)},
            {unequal, Rings(sizes, layouts)}};
  }
  return {{{{1, 1}, {7, 7}, {257, 257}}, Rings(sizes, layouts)},
          {unequal, Rings(sizes, layouts)},
          {{{1000, 1000}}, Rings({3, 4, 8}, {client::Layout::kZigzag})}};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || (std::strcmp(argv[2], "ci") != 0 && std::strcmp(argv[2], "full") != 0)) {
    std::fprintf(stderr, "usage: matrix HOST:PORT ci|full (a coordinator with eight workers)\n");
    return 2;
  }
  auto service = Must(client::Client::Connect({.coordinator = argv[1]}));
  int runs = 0, wrong = 0;
  const auto start = std::chrono::steady_clock::now();
  for (const Part& part : Parts(std::strcmp(argv[2], "full") == 0)) {
    for (auto [query_length, kv_length] : part.lengths) {
      for (int kv_heads : {2, 1}) {
        for (client::DataType dtype : {client::DataType::kF32, client::DataType::kBf16}) {
          for (client::MaskKind mask : {client::MaskKind::kFull, client::MaskKind::kCausal}) {
            Case solved(*service, {query_length, kv_length, kv_heads, dtype, mask});
            for (const Ring& ring : part.rings) wrong += solved.Run(ring, ++runs % 2 == 0);
          }
        }
      }
      std::printf("Lq %ld, Lkv %ld: %d runs so far, %d wrong, %.0f s\n", query_length, kv_length,
                  runs, wrong,
                  std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
      std::fflush(stdout);
    }
  }
  std::printf("%d runs forward and backward, %d results outside their gates\n", runs, wrong);
  return wrong == 0 && runs > 0 ? 0 : 1;
}
