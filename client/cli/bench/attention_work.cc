// SPDX-License-Identifier: Apache-2.0
#include "client/cli/bench/attention_work.h"

#include <algorithm>

#include "server/ring/mask.h"

namespace annulus::cli::bench {
namespace {

double ElementBytes(const AttentionShape& shape) {
  return static_cast<double>(client::DataTypeBytes(shape.problem.dtype));
}

double QueryRows(const Problem& p) {
  return static_cast<double>(p.batch) * static_cast<double>(p.query_length) * p.query_heads;
}

double KeyElements(const Problem& p) {
  return static_cast<double>(p.batch) * static_cast<double>(p.kv_length) * p.kv_heads * p.head_dim;
}

}  // namespace

double Flops(const AttentionShape& shape, ring::Direction direction) {
  const Problem& p = shape.problem;
  const double cells = ring::UnmaskedCells(shape.mask, p.query_length, p.kv_length);
  const double forward =
      4 * static_cast<double>(p.batch) * p.query_heads * cells * static_cast<double>(p.head_dim);
  return direction == ring::Direction::kBackward ? 2.5 * forward : forward;
}

double KvBytes(const AttentionShape& shape) {
  return 2 * KeyElements(shape.problem) * ElementBytes(shape);
}

double MemoryLimit(double flops, double kv_bytes, double peak_flops_rate, double read_bytes_rate) {
  return std::min(1.0, flops / (kv_bytes / read_bytes_rate) / peak_flops_rate);
}

double TensorBytes(const AttentionShape& shape, bool backward) {
  const Problem& p = shape.problem;
  constexpr double kFloat = sizeof(float);
  const double query_elements = QueryRows(p) * p.head_dim;
  const double forward =
      query_elements * (ElementBytes(shape) + kFloat) + KvBytes(shape) + QueryRows(p) * kFloat;
  if (!backward) return forward;
  return forward + query_elements * (ElementBytes(shape) + kFloat) + 2 * KeyElements(p) * kFloat +
         QueryRows(p) * kFloat;
}

}  // namespace annulus::cli::bench
