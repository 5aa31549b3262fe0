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
#define ANNULUS_WIDE_CLONES __attribute__((target_clones("avx2,fma", "default")))
#else
#define ANNULUS_WIDE_CLONES
#endif

namespace annulus::kernels {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();
// Rows of one group share each row of the other side while it is in cache.
constexpr int64_t kGroup = 8;
constexpr int64_t kCacheRows = 128;

// a . b, in eight interleaved partial sums.
ANNULUS_WIDE_CLONES double Dot(const float* a, const float* b, int64_t count) {
  double sums[8] = {};
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (int64_t lane = 0; lane < 8; ++lane) {
      sums[lane] += static_cast<double>(a[i + lane]) * static_cast<double>(b[i + lane]);
    }
  }
  for (; i < count; ++i) sums[0] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

// sum += factor * row
ANNULUS_WIDE_CLONES void AddScaled(double factor, const float* row, int64_t count, double* sum) {
  for (int64_t i = 0; i < count; ++i) sum[i] += factor * static_cast<double>(row[i]);
}

// Rows of one head as float32, which every dtype converts to exactly.
struct Head {
  std::vector<float> values;
  int64_t head_dim = 0;
  const float* Row(int64_t row) const { return values.data() + row * head_dim; }
};

Head CopyHead(const annulusTensor& tensor, int64_t batch, int64_t head) {
  Head copy = {std::vector<float>(tensor.rows * tensor.head_dim), tensor.head_dim};
  for (int64_t row = 0; row < tensor.rows; ++row) {
    LoadAsFloat(RowPointer(tensor, batch, row, head), tensor.dtype, tensor.head_dim,
                copy.values.data() + row * tensor.head_dim);
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

bool Visible(const annulusMask& mask, int64_t query_position, int64_t key_position) {
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
void Scores(const Problem& p, const Token& query, int64_t begin, int64_t end, double* scores) {
  for (int64_t j = begin; j < end; ++j) {
    const bool visible = Visible(p.mask, query.position, p.keys[j].position);
    scores[j] = visible ? p.scale * Dot(p.q.Row(query.row), p.k.Row(p.keys[j].row), p.q.head_dim)
                        : kMinusInfinity;
  }
}

// ln of the sum of exponentials. NaN when a score is NaN.
double LogSumExp(const std::vector<double>& scores) {
  double max = kMinusInfinity;
  for (const double score : scores) {
    if (std::isnan(score)) return score;
    max = std::max(max, score);
  }
  if (max == kMinusInfinity) return max;
  double sum = 0.0;
  for (const double score : scores) sum += std::exp(score - max);
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
    for (int64_t i = first; i < last; ++i) lse[wanted[i].index] = LogSumExp(scores[i - first]);
    ForEachPiece(key_count, [&](int64_t begin, int64_t end) {
      for (int64_t i = first; i < last; ++i) {
        const double row_lse = lse[wanted[i].index];
        for (int64_t j = begin; j < end; ++j) {
          const double score = scores[i - first][j];
          if (score == kMinusInfinity) continue;
          AddScaled(std::exp(score - row_lse), p.v.Row(p.keys[j].row), head_dim,
                    o + wanted[i].index * head_dim);
        }
      }
    });
  });
}

// What the backward pass knows of each query row: its softmax and delta = do . o.
struct RowSoftmax {
  std::vector<double> lse;
  std::vector<double> delta;
};

bool Sees(const Problem& p, const RowSoftmax& softmax, const Token& query, const Token& key) {
  return Visible(p.mask, query.position, key.position) && softmax.lse[query.row] != kMinusInfinity;
}

// p_ij and ds_ij of one pair where the query sees the key.
struct PairGradient {
  double weight;
  double d_score;
};

PairGradient Differentiate(const Problem& p, const Head& d_o, const RowSoftmax& softmax,
                           const Token& query, const Token& key) {
  const double score = p.scale * Dot(p.q.Row(query.row), p.k.Row(key.row), p.q.head_dim);
  const double weight = std::exp(score - softmax.lse[query.row]);
  const double d_weight = Dot(d_o.Row(query.row), p.v.Row(key.row), p.q.head_dim);
  return {weight, weight * (d_weight - softmax.delta[query.row])};
}

void QueryGradientRows(const Problem& p, const Head& d_o, const RowSoftmax& softmax,
                       const std::vector<WantedToken>& wanted, double* dq) {
  const int64_t head_dim = p.q.head_dim;
  ForEachChunk(wanted.size(), kGroup, p.threads, [&](int64_t first, int64_t last) {
    ForEachPiece(p.keys.size(), [&](int64_t begin, int64_t end) {
      for (int64_t i = first; i < last; ++i) {
        for (int64_t j = begin; j < end; ++j) {
          if (!Sees(p, softmax, wanted[i].token, p.keys[j])) continue;
          const PairGradient pair = Differentiate(p, d_o, softmax, wanted[i].token, p.keys[j]);
          AddScaled(p.scale * pair.d_score, p.k.Row(p.keys[j].row), head_dim,
                    dq + wanted[i].index * head_dim);
        }
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
        for (int64_t i = begin; i < end; ++i) {
          const Token& query = p.queries[i];
          if (!Sees(p, softmax, query, wanted[j].token)) continue;
          const PairGradient pair = Differentiate(p, d_o, softmax, query, wanted[j].token);
          AddScaled(p.scale * pair.d_score, p.q.Row(query.row), head_dim,
                    dk + wanted[j].index * head_dim);
          AddScaled(pair.weight, d_o.Row(query.row), head_dim, dv + wanted[j].index * head_dim);
        }
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
          static_cast<double>(d_o.Row(query.token.row)[c]) * o[query.index * p.q.head_dim + c];
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
