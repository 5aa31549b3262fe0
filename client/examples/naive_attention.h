// SPDX-License-Identifier: Apache-2.0
#pragma once

// Attention of one sequence and one head in double, from the definition: what the examples compare
// the service's answers with. Causal: query i sees keys 0..i.

#include <cmath>
#include <cstdint>
#include <vector>

namespace examples {

struct Sequence {
  int64_t length = 0;
  int heads = 0;
  int head_dim = 0;
  std::vector<float> q, k, v, d_o;  // [length, heads, head_dim]

  double At(const std::vector<float>& tensor, int64_t row, int head, int d) const {
    return tensor[static_cast<size_t>((row * heads + head) * head_dim + d)];
  }
};

// A sequence of small numbers that every process computes alike.
inline Sequence MakeSequence(int64_t length, int heads, int head_dim) {
  Sequence s{length, heads, head_dim, {}, {}, {}, {}};
  uint32_t state = 12345;
  for (std::vector<float>* tensor : {&s.q, &s.k, &s.v, &s.d_o}) {
    tensor->resize(static_cast<size_t>(length * heads * head_dim));
    for (float& value : *tensor) {
      state = state * 1664525u + 1013904223u;
      value = static_cast<float>(state >> 8) / static_cast<float>(1 << 23) - 1.0f;
    }
  }
  return s;
}

struct NaiveResult {
  std::vector<double> o, dq, dk, dv;  // [length, heads, head_dim]
  std::vector<double> lse;            // [length, heads]
};

inline NaiveResult NaiveCausalAttention(const Sequence& s) {
  NaiveResult r;
  const auto size = static_cast<size_t>(s.length * s.heads * s.head_dim);
  for (std::vector<double>* tensor : {&r.o, &r.dq, &r.dk, &r.dv}) tensor->assign(size, 0.0);
  r.lse.assign(static_cast<size_t>(s.length * s.heads), 0.0);
  const double scale = 1 / std::sqrt(static_cast<double>(s.head_dim));
  const auto at = [&](std::vector<double>& tensor, int64_t row, int head, int d) -> double& {
    return tensor[static_cast<size_t>((row * s.heads + head) * s.head_dim + d)];
  };
  for (int head = 0; head < s.heads; ++head) {
    for (int64_t i = 0; i < s.length; ++i) {
      std::vector<double> p(static_cast<size_t>(i + 1));
      double sum = 0;
      for (int64_t j = 0; j <= i; ++j) {
        double score = 0;
        for (int d = 0; d < s.head_dim; ++d) score += s.At(s.q, i, head, d) * s.At(s.k, j, head, d);
        sum += p[static_cast<size_t>(j)] = std::exp(scale * score);
      }
      r.lse[static_cast<size_t>(i * s.heads + head)] = std::log(sum);
      double delta = 0;
      for (int d = 0; d < s.head_dim; ++d) {
        for (int64_t j = 0; j <= i; ++j) {
          at(r.o, i, head, d) += p[static_cast<size_t>(j)] / sum * s.At(s.v, j, head, d);
        }
        delta += at(r.o, i, head, d) * s.At(s.d_o, i, head, d);
      }
      for (int64_t j = 0; j <= i; ++j) {
        double dp = 0;
        for (int d = 0; d < s.head_dim; ++d) {
          dp += s.At(s.d_o, i, head, d) * s.At(s.v, j, head, d);
        }
        const double weight = p[static_cast<size_t>(j)] / sum;
        const double ds = scale * weight * (dp - delta);
        for (int d = 0; d < s.head_dim; ++d) {
          at(r.dq, i, head, d) += ds * s.At(s.k, j, head, d);
          at(r.dk, j, head, d) += ds * s.At(s.q, i, head, d);
          at(r.dv, j, head, d) += weight * s.At(s.d_o, i, head, d);
        }
      }
    }
  }
  return r;
}

}  // namespace examples
