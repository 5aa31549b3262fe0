// SPDX-License-Identifier: Apache-2.0
#include "client/cli/random_fill.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <thread>
#include <vector>

#include "client/cli/element_types.h"
#include "kernels/tensor_view.h"

namespace annulus::cli {
namespace {

// Steele, Lea, Flood: Fast splittable pseudorandom number generators (OOPSLA 2014).
uint64_t SplitMix64(uint64_t state) {
  uint64_t z = state + 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// In (0, 1).
double Uniform(uint64_t bits) { return (static_cast<double>(bits >> 11) + 0.5) * 0x1.0p-53; }

// Box and Muller: the pair (2p, 2p + 1).
void NormalPair(uint64_t stream, uint64_t pair, float out[2]) {
  const double radius = std::sqrt(-2 * std::log(Uniform(SplitMix64(stream + 2 * pair))));
  const double angle = 2 * std::numbers::pi * Uniform(SplitMix64(stream + 2 * pair + 1));
  out[0] = static_cast<float>(radius * std::cos(angle));
  out[1] = static_cast<float>(radius * std::sin(angle));
}

uint64_t StreamOf(uint64_t seed, const std::string& name) {
  uint64_t stream = SplitMix64(seed);
  for (const unsigned char c : name) stream = SplitMix64(stream ^ c);
  return stream;
}

}  // namespace

void FillNormal(const client::TensorView& tensor, uint64_t seed, const std::string& name) {
  const uint64_t stream = StreamOf(seed, name);
  const size_t width = client::DataTypeBytes(tensor.dtype);
  const size_t count = tensor.bytes() / width;
  const size_t pairs = (count + 1) / 2;
  const size_t threads = std::clamp<size_t>(pairs / 65536, 1, std::thread::hardware_concurrency());
  const auto fill = [&](size_t begin, size_t end) {
    for (size_t pair = begin; pair < end; ++pair) {
      float values[2];
      NormalPair(stream, pair, values);
      const auto kept = static_cast<int64_t>(std::min<size_t>(2, count - 2 * pair));
      kernels::StoreFromFloat(values, kept, ToKernels(tensor.dtype),
                              static_cast<char*>(tensor.data) + 2 * pair * width);
    }
  };
  std::vector<std::thread> workers;
  for (size_t t = 1; t < threads; ++t) {
    workers.emplace_back(fill, pairs * t / threads, pairs * (t + 1) / threads);
  }
  fill(0, pairs / threads);
  for (std::thread& worker : workers) worker.join();
}

}  // namespace annulus::cli
