// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "client/cli/problem.h"
#include "server/ring/plan.h"

namespace annulus::cli::bench {

struct AttentionShape {
  Problem problem;
  ring::Mask mask;  // bottom-right aligned, as everywhere
};

// What the definition asks for: 4 FLOPs for each unmasked (query, key) pair, head and element of
// the head forward, 2.5 times that backward. Repeated work and masked lanes count nothing.
double Flops(const AttentionShape& shape, ring::Direction direction);

// Bytes of K and V, which even a single query has to read.
double KvBytes(const AttentionShape& shape);

// The share of the arithmetic ceiling that memory leaves a kernel whose K and V lie beyond the
// caches: 1 where the arithmetic takes longer than reading them. Rates are per second.
double MemoryLimit(double flops, double kv_bytes, double peak_flops_rate, double read_bytes_rate);

// Bytes of a kernel's tensors; `backward`: those of the gradients too.
double TensorBytes(const AttentionShape& shape, bool backward);

}  // namespace annulus::cli::bench
