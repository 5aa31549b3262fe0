// SPDX-License-Identifier: Apache-2.0
#pragma once

// Attention in float64, written to be believed: the oracle that every kernel, the tests and
// `annulus run --verify` are compared with. Each row is computed from the definition,
//   s_ij = scale * q_i . k_j over the visible j,  lse_i = ln sum_j exp(s_ij),
//   o_i = sum_j exp(s_ij - lse_i) v_j
// and the gradients from p_ij = exp(s_ij - lse_i), delta_i = do_i . o_i,
//   ds_ij = p_ij (do_i . v_j - delta_i),
//   dq_i = scale sum_j ds_ij k_j,  dk_j = scale sum_i ds_ij q_i,  dv_j = sum_i p_ij do_i
// with each gradient row summed on its own: the weights are computed anew rather than shared.
// A row with no visible key has o = 0 and lse = -inf and gives no gradient.
//
// Memory: a float64 copy of one head of each input at a time, and a few rows of scores per thread.
// Time: about rows_wanted * rows * head_dim multiply-adds for each of 2 (forward) or 9 (backward)
// products. Threads only divide rows among themselves; the result does not depend on their number.
// Inputs are trusted: shapes must fit each other and spans must lie inside their tensors.

#include <cstdint>
#include <vector>

#include "kernels/compute_plugin.h"

namespace annulus::kernels {

struct ReferenceInputs {
  annulusTensor q, k, v;  // any dtype; never written
  // Which rows take part and where in the sequence they are; empty: all rows, position = row.
  std::vector<annulusSpan> q_spans;
  std::vector<annulusSpan> kv_spans;
  annulusMask mask = {ANNULUS_MASK_FULL, 0, -1};
  double softmax_scale = 1.0;
  int threads = 1;
};

// For rows `query_rows` of q, in that order: o [batch, rows, heads, head_dim] and
// lse [batch, rows, heads], both without gaps.
struct ReferenceForward {
  std::vector<int64_t> query_rows;
  std::vector<double> o;
  std::vector<double> lse;
};

// dq [batch, query_rows, query heads, head_dim]; dk, dv [batch, key_rows, KV heads, head_dim].
struct ReferenceGradients {
  std::vector<int64_t> query_rows;
  std::vector<int64_t> key_rows;
  std::vector<double> dq, dk, dv;
};

// {0, 1, ..., rows - 1}.
std::vector<int64_t> AllRows(int64_t rows);

// At most `count` rows spread evenly over [0, rows), the first and last among them, rising.
std::vector<int64_t> SampleRows(int64_t rows, int64_t count);

// o and lse of the given rows of q (rows outside every span have no visible key).
ReferenceForward AttendReference(const ReferenceInputs& inputs, std::vector<int64_t> query_rows);

// dq of the given rows of q, dk and dv of the given rows of k. When key_rows is not empty the
// softmax of all query rows is computed first, which costs a full forward pass.
ReferenceGradients AttendBackwardReference(const ReferenceInputs& inputs, const annulusTensor& d_o,
                                           std::vector<int64_t> query_rows,
                                           std::vector<int64_t> key_rows);

}  // namespace annulus::kernels
