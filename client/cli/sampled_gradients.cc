// SPDX-License-Identifier: Apache-2.0
#include "client/cli/sampled_gradients.h"

#include <atomic>
#include <cmath>
#include <thread>

#include "kernels/tensor_view.h"

namespace annulus::cli {
namespace {

bool Sees(const annulusMask& mask, int64_t query, int64_t key) {
  const int64_t diagonal = query + mask.causal_offset;
  if (mask.kind == ANNULUS_MASK_CAUSAL && key > diagonal) return false;
  return mask.window_left < 0 || key >= diagonal - mask.window_left;
}

class RowLoader {
 public:
  explicit RowLoader(const annulusTensor& tensor)
      : tensor_(tensor), row_(static_cast<size_t>(tensor.head_dim)) {}
  const std::vector<float>& Load(int64_t batch, int64_t row, int64_t head) {
    kernels::LoadAsFloat(kernels::RowPointer(tensor_, batch, row, head), tensor_.dtype,
                         tensor_.head_dim, row_.data());
    return row_;
  }

 private:
  const annulusTensor& tensor_;
  std::vector<float> row_;
};

double Dot(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

// One key row of one KV head: sums over every query of its group.
void SumOverQueries(const KeyGradientInputs& in, int64_t batch, int64_t key, int64_t kv_head,
                    double* dk, double* dv) {
  RowLoader q_rows(in.q), o_rows(in.o), d_o_rows(in.d_o), k_rows(in.k), v_rows(in.v);
  const std::vector<float>& k = k_rows.Load(batch, key, kv_head);
  const std::vector<float>& v = v_rows.Load(batch, key, kv_head);
  const int64_t group = in.q.heads / in.k.heads;
  for (int64_t query = 0; query < in.q.rows; ++query) {
    if (!Sees(in.mask, query, key)) continue;
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      const double lse = in.lse[(batch * in.q.rows + query) * in.q.heads + head];
      if (lse == -INFINITY) continue;
      const std::vector<float>& q = q_rows.Load(batch, query, head);
      const std::vector<float>& d_o = d_o_rows.Load(batch, query, head);
      const double p = std::exp(in.softmax_scale * Dot(q, k) - lse);
      const double delta = Dot(d_o, o_rows.Load(batch, query, head));
      const double ds = in.softmax_scale * p * (Dot(d_o, v) - delta);
      for (size_t d = 0; d < q.size(); ++d) {
        dk[d] += ds * q[d];
        dv[d] += p * d_o[d];
      }
    }
  }
}

}  // namespace

KeyGradients SampledKeyGradients(const KeyGradientInputs& inputs,
                                 const std::vector<int64_t>& key_rows) {
  const auto rows = static_cast<int64_t>(key_rows.size());
  const int64_t units = inputs.k.batch * rows * inputs.k.heads;
  KeyGradients out;
  out.dk.assign(static_cast<size_t>(units * inputs.k.head_dim), 0.0);
  out.dv = out.dk;
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t unit = next++; unit < units; unit = next++) {
      const int64_t head = unit % inputs.k.heads;
      const int64_t row = unit / inputs.k.heads % rows;
      const int64_t batch = unit / inputs.k.heads / rows;
      const auto at = static_cast<size_t>(unit * inputs.k.head_dim);
      SumOverQueries(inputs, batch, key_rows[static_cast<size_t>(row)], head, &out.dk[at],
                     &out.dv[at]);
    }
  };
  std::vector<std::thread> threads;
  for (int t = 1; t < inputs.threads; ++t) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  return out;
}

}  // namespace annulus::cli
