// SPDX-License-Identifier: Apache-2.0
#include "client/cli/stored_state_gradients.h"

#include <atomic>
#include <cmath>
#include <functional>
#include <thread>

#include "kernels/tensor_view.h"

namespace annulus::cli {
namespace {

// All rows of one head of one sequence as floats, dense.
std::vector<float> LoadHead(const annulusTensor& tensor, int64_t batch, int64_t head) {
  std::vector<float> rows(static_cast<size_t>(tensor.rows * tensor.head_dim));
  for (int64_t row = 0; row < tensor.rows; ++row) {
    kernels::LoadAsFloat(kernels::RowPointer(tensor, batch, row, head), tensor.dtype,
                         tensor.head_dim, &rows[static_cast<size_t>(row * tensor.head_dim)]);
  }
  return rows;
}

void ForEachInParallel(int64_t count, int threads, const std::function<void(int64_t)>& work) {
  std::atomic<int64_t> next{0};
  const auto run = [&] {
    for (int64_t i = next++; i < count; i = next++) work(i);
  };
  std::vector<std::thread> helpers;
  for (int t = 1; t < threads; ++t) helpers.emplace_back(run);
  run();
  for (std::thread& helper : helpers) helper.join();
}

// One query head with the KV head that it reads.
class HeadPair {
 public:
  HeadPair(const StoredState& state, int64_t batch, int64_t query_head)
      : state_(state), width_(static_cast<size_t>(state.q.head_dim)) {
    const int64_t kv_head = query_head / (state.q.heads / state.k.heads);
    q_ = LoadHead(state.q, batch, query_head);
    d_o_ = LoadHead(state.d_o, batch, query_head);
    k_ = LoadHead(state.k, batch, kv_head);
    v_ = LoadHead(state.v, batch, kv_head);
    const std::vector<float> o = LoadHead(state.o, batch, query_head);
    for (int64_t row = 0; row < state.q.rows; ++row) {
      lse_.push_back(state.lse[(batch * state.q.rows + row) * state.q.heads + query_head]);
      delta_.push_back(Dot(Row(d_o_, row), Row(o, row)));
    }
  }

  void AddQueryRow(int64_t query, double* dq) const {
    for (int64_t key = 0; key < state_.k.rows; ++key) {
      if (!Sees(query, key)) continue;
      const double ds = ScoreGradient(query, key, Weight(query, key));
      for (size_t d = 0; d < width_; ++d) dq[d] += ds * Row(k_, key)[d];
    }
  }
  void AddKeyRow(int64_t key, double* dk, double* dv) const {
    for (int64_t query = 0; query < state_.q.rows; ++query) {
      if (!Sees(query, key)) continue;
      const double p = Weight(query, key);
      const double ds = ScoreGradient(query, key, p);
      for (size_t d = 0; d < width_; ++d) {
        dk[d] += ds * Row(q_, query)[d];
        dv[d] += p * Row(d_o_, query)[d];
      }
    }
  }

 private:
  const float* Row(const std::vector<float>& rows, int64_t row) const {
    return rows.data() + static_cast<size_t>(row) * width_;
  }
  double Dot(const float* a, const float* b) const {
    double sum = 0;
    for (size_t d = 0; d < width_; ++d) sum += static_cast<double>(a[d]) * b[d];
    return sum;
  }
  bool Sees(int64_t query, int64_t key) const {
    const annulusMask& mask = state_.mask;
    const int64_t diagonal = query + mask.causal_offset;
    if (mask.kind == ANNULUS_MASK_CAUSAL && key > diagonal) return false;
    return mask.window_left < 0 || key >= diagonal - mask.window_left;
  }
  double Weight(int64_t query, int64_t key) const {
    const double lse = lse_[static_cast<size_t>(query)];
    if (lse == -INFINITY) return 0;
    return std::exp(state_.softmax_scale * Dot(Row(q_, query), Row(k_, key)) - lse);
  }
  double ScoreGradient(int64_t query, int64_t key, double weight) const {
    const double dp = Dot(Row(d_o_, query), Row(v_, key));
    return state_.softmax_scale * weight * (dp - delta_[static_cast<size_t>(query)]);
  }

  const StoredState& state_;
  const size_t width_;
  std::vector<float> q_, k_, v_, d_o_;
  std::vector<double> lse_, delta_;
};

}  // namespace

StoredStateGradients GradientsFromStoredState(const StoredState& state,
                                              const std::vector<int64_t>& query_rows,
                                              const std::vector<int64_t>& key_rows) {
  const auto queries = static_cast<int64_t>(query_rows.size());
  const auto keys = static_cast<int64_t>(key_rows.size());
  const int64_t width = state.q.head_dim;
  const int64_t group = state.q.heads / state.k.heads;
  StoredStateGradients out;
  out.dq.assign(static_cast<size_t>(state.q.batch * queries * state.q.heads * width), 0.0);
  out.dk.assign(static_cast<size_t>(state.k.batch * keys * state.k.heads * width), 0.0);
  out.dv = out.dk;
  for (int64_t batch = 0; batch < state.q.batch; ++batch) {
    for (int64_t head = 0; head < state.q.heads; ++head) {
      const HeadPair pair(state, batch, head);
      ForEachInParallel(queries + keys, state.threads, [&](int64_t i) {
        if (i < queries) {
          const int64_t at = ((batch * queries + i) * state.q.heads + head) * width;
          pair.AddQueryRow(query_rows[static_cast<size_t>(i)], &out.dq[static_cast<size_t>(at)]);
        } else {
          const int64_t at = ((batch * keys + i - queries) * state.k.heads + head / group) * width;
          pair.AddKeyRow(key_rows[static_cast<size_t>(i - queries)],
                         &out.dk[static_cast<size_t>(at)], &out.dv[static_cast<size_t>(at)]);
        }
      });
    }
  }
  return out;
}

}  // namespace annulus::cli
