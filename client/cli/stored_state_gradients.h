// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/compute_plugin.h"

namespace annulus::cli {

struct StoredState {
  annulusTensor q, k, v, o, d_o;
  const float* lse = nullptr;  // [batch, rows of q, query heads], dense
  annulusMask mask;
  double softmax_scale = 1;
  int threads = 1;
};

struct StoredStateGradients {
  std::vector<double> dq;      // [batch, query_rows, query heads, head_dim]
  std::vector<double> dk, dv;  // [batch, key_rows, KV heads, head_dim]
};

// The gradients in float64 of the given rows as a backward pass is asked for them: from the o and
// lse that stand, with p_ij = exp(scale q_i . k_j - lse_i) and delta_i = do_i . o_i,
//   dq_i = scale sum_j p_ij (do_i . v_j - delta_i) k_j
//   dk_j = scale sum_i p_ij (do_i . v_j - delta_i) q_i,   dv_j = sum_i p_ij do_i.
// Differs from the gradient of the exact o by the error of the o and lse given. Time: about 4
// head_dim multiply-adds per pair that a wanted row sees.
StoredStateGradients GradientsFromStoredState(const StoredState& state,
                                              const std::vector<int64_t>& query_rows,
                                              const std::vector<int64_t>& key_rows);

}  // namespace annulus::cli
