// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>
#include <random>

#include "tests/support/plan_interpreter.h"

namespace annulus::testing {
namespace {

// Written out here, so that the code under test is not its own judge.
bool Visible(const ring::Mask& mask, const AttentionInput& input, int64_t query, int64_t key) {
  const int64_t diagonal = query + input.kv_length - input.query_length;
  if (mask.kind == ring::MaskKind::kCausal && key > diagonal) return false;
  return mask.window_left < 0 || key + mask.window_left >= diagonal;
}

double Dot(const double* a, const double* b, int dim) {
  double sum = 0;
  for (int d = 0; d < dim; ++d) sum += a[d] * b[d];
  return sum;
}

bool Close(const std::vector<double>& got, const std::vector<double>& expected) {
  if (got.empty()) return true;
  if (got.size() != expected.size()) return false;
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i] == expected[i]) continue;  // infinities
    if (!(std::abs(got[i] - expected[i]) <= 1e-9)) return false;
  }
  return true;
}

}  // namespace

AttentionInput RandomInput(int64_t query_length, int64_t kv_length, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  AttentionInput input{query_length, kv_length, 2, {}, {}, {}, {}};
  const auto fill = [&](int64_t rows, std::vector<double>* out) {
    for (int64_t i = 0; i < rows * input.dim; ++i) out->push_back(normal(random));
  };
  fill(query_length, &input.q);
  fill(kv_length, &input.k);
  fill(kv_length, &input.v);
  fill(query_length, &input.d_o);
  return input;
}

AttentionResult DirectAttention(const ring::Mask& mask, const AttentionInput& input) {
  const int dim = input.dim;
  AttentionResult out;
  out.o.resize(input.q.size());
  out.dq.resize(input.q.size());
  out.dk.resize(input.k.size());
  out.dv.resize(input.v.size());
  for (int64_t query = 0; query < input.query_length; ++query) {
    const double* q = &input.q[static_cast<size_t>(query * dim)];
    const double* d_o = &input.d_o[static_cast<size_t>(query * dim)];
    double* o = &out.o[static_cast<size_t>(query * dim)];
    double sum = 0;
    std::vector<double> weights(static_cast<size_t>(input.kv_length));
    for (int64_t key = 0; key < input.kv_length; ++key) {
      if (!Visible(mask, input, query, key)) continue;
      weights[static_cast<size_t>(key)] =
          std::exp(Dot(q, &input.k[static_cast<size_t>(key * dim)], dim));
      sum += weights[static_cast<size_t>(key)];
    }
    out.lse.push_back(sum > 0 ? std::log(sum) : -std::numeric_limits<double>::infinity());
    if (sum == 0) continue;
    for (size_t key = 0; key < weights.size(); ++key) {
      weights[key] /= sum;
      for (int d = 0; d < dim; ++d)
        o[d] += weights[key] * input.v[key * static_cast<size_t>(dim) + static_cast<size_t>(d)];
    }
    const double delta = Dot(d_o, o, dim);
    for (size_t key = 0; key < weights.size(); ++key) {
      const size_t row = key * static_cast<size_t>(dim);
      const double ds = weights[key] * (Dot(d_o, &input.v[row], dim) - delta);
      for (int d = 0; d < dim; ++d) {
        const size_t at = row + static_cast<size_t>(d);
        out.dq[static_cast<size_t>(query * dim + d)] += ds * input.k[at];
        out.dk[at] += ds * q[d];
        out.dv[at] += weights[key] * d_o[d];
      }
    }
  }
  return out;
}

bool Agree(const AttentionResult& got, const AttentionResult& expected) {
  return Close(got.o, expected.o) && Close(got.lse, expected.lse) && Close(got.dq, expected.dq) &&
         Close(got.dk, expected.dk) && Close(got.dv, expected.dv);
}

}  // namespace annulus::testing
