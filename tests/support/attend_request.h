// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "annulus/v1/worker.pb.h"

namespace annulus::testing_support {

inline void FillRef(int heads, int head_dim, v1::Dtype dtype, uint64_t offset, v1::TensorRef* ref) {
  ref->mutable_region()->set_region_id(7);
  ref->mutable_region()->set_generation(1);
  ref->mutable_region()->set_offset(offset);
  ref->set_dtype(dtype);
  ref->set_batch(1);
  ref->set_rows(6);
  ref->set_heads(heads);
  ref->set_head_dim(head_dim);
  // Zigzag: the first and the last chunk of a sequence of 24.
  v1::TokenRange* range = ref->add_tokens();
  range->set_begin(0);
  range->set_end(3);
  range = ref->add_tokens();
  range->set_begin(21);
  range->set_end(24);
  range->set_stride(1);
}

// A valid forward: 4 query heads on 2 KV heads of size 16, 6 rows, bf16.
inline v1::AttendRequest ForwardRequest(const std::string& request_id = "request-1") {
  v1::AttendRequest request;
  request.mutable_fence()->set_term(1);
  request.mutable_fence()->set_group("g");
  request.mutable_fence()->set_epoch(2);
  request.mutable_fence()->set_incarnation(3);
  request.mutable_fence()->set_request_id(request_id);
  request.set_session_id(std::string(32, 'a'));
  request.set_plan_digest(std::string(64, '0'));
  request.set_batch(1);
  request.set_query_heads(4);
  request.set_kv_heads(2);
  request.set_head_dim(16);
  request.set_dtype(v1::DTYPE_BF16);
  request.set_overlap(true);
  FillRef(4, 16, v1::DTYPE_BF16, 0, request.mutable_q());
  FillRef(2, 16, v1::DTYPE_BF16, 4096, request.mutable_k());
  FillRef(2, 16, v1::DTYPE_BF16, 8192, request.mutable_v());
  FillRef(4, 16, v1::DTYPE_BF16, 12288, request.mutable_o());
  FillRef(4, 0, v1::DTYPE_F32, 16384, request.mutable_lse());
  return request;
}

inline v1::AttendRequest BackwardRequest() {
  v1::AttendRequest request = ForwardRequest("request-2");
  FillRef(4, 16, v1::DTYPE_BF16, 20480, request.mutable_d_o());
  FillRef(4, 16, v1::DTYPE_F32, 24576, request.mutable_dq());
  FillRef(2, 16, v1::DTYPE_F32, 28672, request.mutable_dk());
  FillRef(2, 16, v1::DTYPE_F32, 32768, request.mutable_dv());
  request.set_gradient_wire(v1::GRADIENT_WIRE_BF16);
  request.set_forward_request_id("request-1");
  return request;
}

}  // namespace annulus::testing_support
