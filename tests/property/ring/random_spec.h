// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/ring/names.h"
#include "server/ring/plan.h"

namespace annulus::testing {

using Random = std::mt19937_64;

// ANNULUS_TEST_SEED, or the same seed every time: what fails once fails again.
inline uint64_t BaseSeed() {
  const char* seed = std::getenv("ANNULUS_TEST_SEED");
  return seed == nullptr ? 20261123 : std::strtoull(seed, nullptr, 10);
}

// In [low, high].
inline int Draw(Random& random, int low, int high) {
  return low + static_cast<int>(random() % static_cast<uint64_t>(high - low + 1));
}

template <typename T>
const T& Pick(Random& random, const std::vector<T>& from) {
  return from[random() % from.size()];
}

// Any forward spec of up to `max_ranks` ranks; short sequences, so that pieces are often uneven or
// empty.
inline ring::Spec RandomSpec(Random& random, int max_ranks, int max_length) {
  ring::Spec spec;
  spec.context_parallel_size = Draw(random, 1, max_ranks);
  std::vector<int> windows = {0};
  for (int w = 1; w <= spec.context_parallel_size; ++w) {
    if (spec.context_parallel_size % w == 0) windows.push_back(w);
  }
  spec.window_size = Pick(random, windows);
  spec.query_length = Draw(random, 1, max_length);
  spec.kv_length = Draw(random, 0, 1) == 0 ? spec.query_length : Draw(random, 1, max_length);
  spec.mask.kind = Draw(random, 0, 2) == 0 ? ring::MaskKind::kFull : ring::MaskKind::kCausal;
  if (Draw(random, 0, 3) == 0) spec.mask.window_left = Draw(random, 0, max_length);
  spec.layout = static_cast<ring::Layout>(Draw(random, 0, 2));
  spec.keep_resident = Draw(random, 0, 1) == 1;
  return spec;
}

inline std::string Describe(const ring::Spec& spec) {
  return absl::StrCat(ring::Name(spec.direction), " N=", spec.context_parallel_size,
                      " w=", spec.window_size, " Lq=", spec.query_length, " Lkv=", spec.kv_length,
                      " ", ring::Name(spec.mask.kind), " window_left=", spec.mask.window_left, " ",
                      ring::Name(spec.layout), " keep_resident=", spec.keep_resident);
}

}  // namespace annulus::testing
