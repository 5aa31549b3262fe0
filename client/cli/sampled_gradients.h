// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/compute_plugin.h"

namespace annulus::cli {

struct KeyGradientInputs {
  annulusTensor q, k, v, o, d_o;
  const float* lse = nullptr;  // [batch, rows of q, query heads], dense
  annulusMask mask;
  double softmax_scale = 1;
  int threads = 1;
};

struct KeyGradients {
  std::vector<double> dk, dv;  // [batch, key_rows, KV heads, head_dim]
};

// dK and dV of the given rows of k in float64, from the LSE that stands: with
// p_ij = exp(scale q_i . k_j - lse_i) and delta_i = do_i . o_i,
//   dv_j = sum_i p_ij do_i,   dk_j = scale sum_i p_ij (do_i . v_j - delta_i) q_i.
// Time: about 4 * batch * key_rows * rows of q * query heads * head_dim multiply-adds.
KeyGradients SampledKeyGradients(const KeyGradientInputs& inputs,
                                 const std::vector<int64_t>& key_rows);

}  // namespace annulus::cli
