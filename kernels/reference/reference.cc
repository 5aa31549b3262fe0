// SPDX-License-Identifier: Apache-2.0
#include "kernels/reference/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <thread>

#include "kernels/tensor_view.h"

// Compiled twice where the toolchain can choose at load time: the same loops with wider vectors.
// Sanitizers run before such a choice can be made.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define ANNULUS_WIDE_CLONES __attribute__((target_clones("arch=x86-64-v3", "default")))
// Called functions are cloned along only when inlined.
#define ANNULUS_INLINE inline __attribute__((always_inline))
#else
#define ANNULUS_WIDE_CLONES
#define ANNULUS_INLINE inline
#endif

namespace annulus::kernels {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();
// Rows of one group share each row of the other side while it is in cache.
constexpr int64_t kGroup = 8;
constexpr int64_t kCacheRows = 128;

// a . b, in sixteen interleaved partial sums.
ANNULUS_INLINE double Dot(const double* a, const double* b, int64_t count) {
  constexpr int64_t kSums = 16;
  double sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= count; i += kSums) {
    for (int64_t lane = 0; lane < kSums; ++lane) {
      sums[lane] += a[i + lane] * b[i + lane];
    }
  }
  for (; i < count; ++i) sums[0] += a[i] * b[i];
  return std::accumulate(sums, sums + kSums, 0.0);
}

// sum += factor * row
ANNULUS_INLINE void AddScaled(double factor, const double* row, int64_t count, double* sum) {
  for (int64_t i = 0; i < count; ++i) sum[i] += factor * row[i];
}

// Rows of one head as float64.
struct Head {
  std::vector<double> values;
  int64_t head_dim = 0;
  const double* Row(int64_t row) const { return values.data() + row * head_dim; }
};

Head CopyHead(const annulusTensor& tensor, int64_t batch, int64_t head) {
  Head copy = {std::vector<double>(tensor.rows * tensor.head_dim), tensor.head_dim};
  std::vector<float> row_values(tensor.head_dim);
  for (int64_t row = 0; row < tensor.rows; ++row) {
    LoadAsFloat(RowPointer(tensor, batch, row, head), tensor.dtype, tensor.head_dim,
                row_values.data());
    std::copy(row_values.begin(), row_values.end(), copy.values.begin() + row * tensor.head_dim);
  }
  return copy;
}

// A row that takes part and its place in the sequence.
struct Token {
  int64_t row;
  int64_t position;
};

std::vector<Token> TokensOf(const std::vector<annulusSpan>& spans, int64_t rows) {
  std::vector<Token> tokens;
  if (spans.empty()) {
    for (int64_t row = 0; row < rows; ++row) tokens.push_back({row, row});
  }
  for (const annulusSpan& span : spans) {
    for (int64_t i = 0; i < span.count; ++i) {
      tokens.push_back({span.row + i, span.position + i * span.stride});
    }
  }
  return tokens;
}

// Those of `rows` that take part, each with its index in `rows`.
struct WantedToken {
  Token token;
  int64_t index;
};

std::vector<WantedToken> Select(const std::vector<Token>& tokens, std::span<const int64_t> rows,
                                int64_t row_count) {
  constexpr int64_t kAbsent = std::numeric_limits<int64_t>::min();
  std::vector<int64_t> positions(row_count, kAbsent);
  for (const Token& token : tokens) positions[token.row] = token.position;
  std::vector<WantedToken> wanted;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (positions[rows[i]] == kAbsent) continue;
    wanted.push_back({{rows[i], positions[rows[i]]}, static_cast<int64_t>(i)});
  }
  return wanted;
}

ANNULUS_INLINE bool Visible(const annulusMask& mask, int64_t query_position, int64_t key_position) {
  const int64_t last = query_position + mask.causal_offset;
  if (mask.kind == ANNULUS_MASK_CAUSAL && key_position > last) return false;
  return mask.window_left < 0 || key_position >= last - mask.window_left;
}

// work(begin, end) for the chunks of [0, count), each thread taking every threads-th chunk.
template <typename Work>
void ForEachChunk(int64_t count, int64_t chunk, int threads, const Work& work) {
  auto run = [&](int64_t first) {
    for (int64_t begin = first * chunk; begin < count; begin += threads * chunk) {
      work(begin, std::min(begin + chunk, count));
    }
  };
  std::vector<std::thread> helpers;
  for (int thread = 1; thread < threads; ++thread) helpers.emplace_back(run, thread);
  run(0);
  for (std::thread& helper : helpers) helper.join();
}

// One query head and the KV head it reads. Queries and keys are the tokens that take part.
struct Problem {
  annulusMask mask;
  double scale;
  int threads;
  const Head& q;
  const Head& k;
  const Head& v;
  const std::vector<Token>& queries;
  const std::vector<Token>& keys;
};

// visit(j_begin, j_end) for cache-sized pieces of [0, count).
template <typename Visit>
void ForEachPiece(int64_t count, const Visit& visit) {
  for (int64_t begin = 0; begin < count; begin += kCacheRows) {
    visit(begin, std::min(begin + kCacheRows, count));
  }
}

// scores[j] of one query for keys [begin, end), -inf where masked.
ANNULUS_WIDE_CLONES void Scores(const Problem& p, const Token& query, int64_t begin, int64_t end,
                                double* scores) {
  for (int64_t j = begin; j < end; ++j) {
    const bool visible = Visible(p.mask, query.position, p.keys[j].position);
    scores[j] = visible ? p.scale * Dot(p.q.Row(query.row), p.k.Row(p.keys[j].row), p.q.head_dim)
                        : kMinusInfinity;
  }
}

// o += weight * v over keys [begin, end).
ANNULUS_WIDE_CLONES void AddValues(const Problem& p, const double* weights, int64_t begin,
                                   int64_t end, double* o) {
  for (int64_t j = begin; j < end; ++j) {
    if (weights[j] == 0.0) continue;
    AddScaled(weights[j], p.v.Row(p.keys[j].row), p.v.head_dim, o);
  }
}

// Turns scores into weights exp(score - lse) in place and returns lse, the logarithm of the sum of
// their exponentials. A masked score, -inf, has weight 0. NaN when a score is NaN.
double Softmax(std::vector<double>& scores) {
  double max = kMinusInfinity;
  for (const double score : scores) max = score > max || std::isnan(score) ? score : max;
  if (max == kMinusInfinity) {
    std::fill(scores.begin(), scores.end(), 0.0);
    return max;
  }
  double sum = 0.0;
  for (double& score : scores) {
    if (score == kMinusInfinity) {
      score = 0.0;
      continue;
    }
    score = std::exp(score - max);
    sum += score;
  }
  for (double& weight : scores) weight /= sum;
  return max + std::log(sum);
}

// lse[index] and o[index * head_dim ...] of the wanted queries; the rest is left as it is.
void ForwardRows(const Problem& p, const std::vector<WantedToken>& wanted, double* o, double* lse) {
  const int64_t head_dim = p.q.head_dim;
  const int64_t key_count = static_cast<int64_t>(p.keys.size());
  ForEachChunk(wanted.size(), kGroup, p.threads, [&](int64_t first, int64_t last) {
    std::vector<std::vector<double>> scores(last - first, std::vector<double>(key_count));
    ForEachPiece(key_count, [&](int64_t begin, int64_t end) {
      for (int64_t i = first; i < last; ++i) {
        Scores(p, wanted[i].token, begin, end, scores[i - first].data());
      }
    });
    for (int64_t i = first; i < last; ++i) lse[wanted[i].index] = Softmax(scores[i - first]);
    ForEachPiece(key_count, [&](int64_t begin, int64_t end) {
      for (int64_t i = first; i < last; ++i) {
        AddValues(p, scores[i - first].data(), begin, end, o + wanted[i].index * head_dim);
      }
    });
  });
}

// What the backward pass knows of each query row: its softmax and delta = do . o.
struct RowSoftmax {
  std::vector<double> lse;
  std::vector<double> delta;
};

ANNULUS_INLINE bool Sees(const Problem& p, const RowSoftmax& softmax, const Token& query,
                         const Token& key) {
  return Visible(p.mask, query.position, key.position) && softmax.lse[query.row] != kMinusInfinity;
}

// p_ij and ds_ij of one pair where the query sees the key.
struct PairGradient {
  double weight;
  double d_score;
};

ANNULUS_INLINE PairGradient Differentiate(const Problem& p, const Head& d_o,
                                          const RowSoftmax& softmax, const Token& query,
                                          const Token& key) {
  const double score = p.scale * Dot(p.q.Row(query.row), p.k.Row(key.row), p.q.head_dim);
  const double weight = std::exp(score - softmax.lse[query.row]);
  const double d_weight = Dot(d_o.Row(query.row), p.v.Row(key.row), p.q.head_dim);
  return {weight, weight * (d_weight - softmax.delta[query.row])};
}

// dq of one query += what keys [begin, end) give it.
ANNULUS_WIDE_CLONES void AddQueryGradient(const Problem& p, const Head& d_o,
                                          const RowSoftmax& softmax, const Token& query,
                                          int64_t begin, int64_t end, double* dq) {
  for (int64_t j = begin; j < end; ++j) {
    if (!Sees(p, softmax, query, p.keys[j])) continue;
    const PairGradient pair = Differentiate(p, d_o, softmax, query, p.keys[j]);
    AddScaled(p.scale * pair.d_score, p.k.Row(p.keys[j].row), p.k.head_dim, dq);
  }
}

// dk and dv of one key += what queries [begin, end) give it.
ANNULUS_WIDE_CLONES void AddKeyGradient(const Problem& p, const Head& d_o,
                                        const RowSoftmax& softmax, const Token& key, int64_t begin,
                                        int64_t end, double* dk, double* dv) {
  for (int64_t i = begin; i < end; ++i) {
    const Token& query = p.queries[i];
    if (!Sees(p, softmax, query, key)) continue;
    const PairGradient pair = Differentiate(p, d_o, softmax, query, key);
    AddScaled(p.scale * pair.d_score, p.q.Row(query.row), p.q.head_dim, dk);
    AddScaled(pair.weight, d_o.Row(query.row), p.q.head_dim, dv);
  }
}

void QueryGradientRows(const Problem& p, const Head& d_o, const RowSoftmax& softmax,
                       const std::vector<WantedToken>& wanted, double* dq) {
  const int64_t head_dim = p.q.head_dim;
  ForEachChunk(wanted.size(), kGroup, p.threads, [&](int64_t first, int64_t last) {
    ForEachPiece(p.keys.size(), [&](int64_t begin, int64_t end) {
      for (int64_t i = first; i < last; ++i) {
        AddQueryGradient(p, d_o, softmax, wanted[i].token, begin, end,
                         dq + wanted[i].index * head_dim);
      }
    });
  });
}

// dk and dv of the wanted keys += what this query head gives them.
void KeyGradientRows(const Problem& p, const Head& d_o, const RowSoftmax& softmax,
                     const std::vector<WantedToken>& wanted, double* dk, double* dv) {
  const int64_t head_dim = p.q.head_dim;
  ForEachChunk(wanted.size(), kGroup, p.threads, [&](int64_t first, int64_t last) {
    ForEachPiece(p.queries.size(), [&](int64_t begin, int64_t end) {
      for (int64_t j = first; j < last; ++j) {
        AddKeyGradient(p, d_o, softmax, wanted[j].token, begin, end,
                       dk + wanted[j].index * head_dim, dv + wanted[j].index * head_dim);
      }
    });
  });
}

// delta of the rows that have an o; both indexed by row of q.
RowSoftmax SoftmaxOfRows(const Problem& p, const Head& d_o, const std::vector<int64_t>& rows,
                         int64_t row_count) {
  const std::vector<WantedToken> wanted = Select(p.queries, rows, row_count);
  std::vector<double> o(rows.size() * p.q.head_dim);
  std::vector<double> lse(rows.size(), kMinusInfinity);
  ForwardRows(p, wanted, o.data(), lse.data());
  RowSoftmax softmax = {std::vector<double>(row_count, kMinusInfinity),
                        std::vector<double>(row_count)};
  for (const WantedToken& query : wanted) {
    softmax.lse[query.token.row] = lse[query.index];
    for (int64_t c = 0; c < p.q.head_dim; ++c) {
      softmax.delta[query.token.row] +=
          d_o.Row(query.token.row)[c] * o[query.index * p.q.head_dim + c];
    }
  }
  return softmax;
}

// Copies the rows of one head, `from` [rows, width], into `to` [rows, heads, width] at `head`.
void PlaceHead(const std::vector<double>& from, int64_t heads, int64_t head, int64_t width,
               double* to) {
  for (int64_t i = 0; i < static_cast<int64_t>(from.size()); ++i) {
    to[(i / width * heads + head) * width + i % width] = from[i];
  }
}

}  // namespace

std::vector<int64_t> AllRows(int64_t rows) {
  std::vector<int64_t> all(rows);
  std::iota(all.begin(), all.end(), int64_t{0});
  return all;
}

std::vector<int64_t> SampleRows(int64_t rows, int64_t count) {
  if (count >= rows) return AllRows(rows);
  std::vector<int64_t> sample;
  for (int64_t i = 0; i < count; ++i) {
    sample.push_back(count == 1 ? 0 : i * (rows - 1) / (count - 1));
  }
  return sample;
}

ReferenceForward AttendReference(const ReferenceInputs& inputs, std::vector<int64_t> query_rows) {
  const annulusTensor& q = inputs.q;
  const int64_t wanted_rows = static_cast<int64_t>(query_rows.size());
  const std::vector<Token> queries = TokensOf(inputs.q_spans, q.rows);
  const std::vector<Token> keys = TokensOf(inputs.kv_spans, inputs.k.rows);
  const std::vector<WantedToken> wanted = Select(queries, query_rows, q.rows);
  ReferenceForward result = {std::move(query_rows), {}, {}};
  result.o.resize(q.batch * wanted_rows * q.heads * q.head_dim);
  result.lse.resize(q.batch * wanted_rows * q.heads);
  for (int64_t batch = 0; batch < q.batch; ++batch) {
    for (int64_t kv_head = 0; kv_head < inputs.k.heads; ++kv_head) {
      const Head k = CopyHead(inputs.k, batch, kv_head);
      const Head v = CopyHead(inputs.v, batch, kv_head);
      const int64_t group = q.heads / inputs.k.heads;
      for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        const Head q_head = CopyHead(q, batch, head);
        const Problem problem = {
            inputs.mask, inputs.softmax_scale, inputs.threads, q_head, k, v, queries, keys};
        std::vector<double> o(wanted_rows * q.head_dim);
        std::vector<double> lse(wanted_rows, kMinusInfinity);
        ForwardRows(problem, wanted, o.data(), lse.data());
        const int64_t first_row = batch * wanted_rows * q.heads;
        PlaceHead(o, q.heads, head, q.head_dim, result.o.data() + first_row * q.head_dim);
        PlaceHead(lse, q.heads, head, 1, result.lse.data() + first_row);
      }
    }
  }
  return result;
}

ReferenceGradients AttendBackwardReference(const ReferenceInputs& inputs, const annulusTensor& d_o,
                                           std::vector<int64_t> query_rows,
                                           std::vector<int64_t> key_rows) {
  const annulusTensor& q = inputs.q;
  const annulusTensor& k = inputs.k;
  const std::vector<Token> queries = TokensOf(inputs.q_spans, q.rows);
  const std::vector<Token> keys = TokensOf(inputs.kv_spans, k.rows);
  const std::vector<WantedToken> wanted_queries = Select(queries, query_rows, q.rows);
  const std::vector<WantedToken> wanted_keys = Select(keys, key_rows, k.rows);
  const std::vector<int64_t> softmax_rows = key_rows.empty() ? query_rows : AllRows(q.rows);
  const int64_t dq_rows = static_cast<int64_t>(query_rows.size());
  const int64_t dk_rows = static_cast<int64_t>(key_rows.size());
  ReferenceGradients result = {std::move(query_rows), std::move(key_rows), {}, {}, {}};
  result.dq.resize(q.batch * dq_rows * q.heads * q.head_dim);
  result.dk.resize(k.batch * dk_rows * k.heads * k.head_dim);
  result.dv.resize(result.dk.size());
  const int64_t group = q.heads / k.heads;
  for (int64_t batch = 0; batch < q.batch; ++batch) {
    for (int64_t kv_head = 0; kv_head < k.heads; ++kv_head) {
      const Head k_head = CopyHead(k, batch, kv_head);
      const Head v_head = CopyHead(inputs.v, batch, kv_head);
      std::vector<double> dk(dk_rows * k.head_dim);
      std::vector<double> dv(dk_rows * k.head_dim);
      for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        const Head q_head = CopyHead(q, batch, head);
        const Head do_head = CopyHead(d_o, batch, head);
        const Problem problem = {
            inputs.mask, inputs.softmax_scale, inputs.threads, q_head, k_head, v_head, queries,
            keys};
        const RowSoftmax softmax = SoftmaxOfRows(problem, do_head, softmax_rows, q.rows);
        std::vector<double> dq(dq_rows * q.head_dim);
        QueryGradientRows(problem, do_head, softmax, wanted_queries, dq.data());
        KeyGradientRows(problem, do_head, softmax, wanted_keys, dk.data(), dv.data());
        PlaceHead(dq, q.heads, head, q.head_dim,
                  result.dq.data() + batch * dq_rows * q.heads * q.head_dim);
      }
      const int64_t first = batch * dk_rows * k.heads * k.head_dim;
      PlaceHead(dk, k.heads, kv_head, k.head_dim, result.dk.data() + first);
      PlaceHead(dv, k.heads, kv_head, k.head_dim, result.dv.data() + first);
    }
  }
  return result;
}

}  // namespace annulus::kernels
