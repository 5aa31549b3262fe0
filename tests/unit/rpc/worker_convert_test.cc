// SPDX-License-Identifier: Apache-2.0
// Every refusal of an Attend request that needs no plan, and that nothing of a good one is lost.
#include "server/rpc/worker_convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/attend_request.h"

namespace annulus::rpc {
namespace {

using ::testing::HasSubstr;
using testing_support::BackwardRequest;
using testing_support::ForwardRequest;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

TEST(WorkerConvert, ForwardIsPassedWhole) {
  v1::AttendRequest request = ForwardRequest();
  request.set_softmax_scale(0.5f);
  request.set_retain(true);
  request.set_record_timeline(true);
  request.mutable_q()->set_row_stride(64);
  request.mutable_q()->set_head_stride(16);
  request.mutable_q()->set_batch_stride(1000);
  const auto call = AttendCallFromProto(request);
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(call->fence.term, 1u);
  EXPECT_EQ(call->fence.group, "g");
  EXPECT_EQ(call->fence.epoch, 2u);
  EXPECT_EQ(call->fence.incarnation, 3u);
  EXPECT_EQ(call->fence.request_id, "request-1");
  EXPECT_EQ(call->session_id, std::string(32, 'a'));
  EXPECT_EQ(call->plan_digest, std::string(64, '0'));
  EXPECT_EQ(call->query_heads, 4);
  EXPECT_EQ(call->kv_heads, 2);
  EXPECT_EQ(call->head_dim, 16);
  EXPECT_EQ(call->dtype, ANNULUS_BF16);
  EXPECT_EQ(call->softmax_scale, 0.5f);
  EXPECT_TRUE(call->overlap);
  EXPECT_TRUE(call->retain);
  EXPECT_TRUE(call->record_timeline);
  EXPECT_FALSE(call->gradient_wire_bf16);
  EXPECT_FALSE(call->d_o || call->dq || call->dk || call->dv);
  ASSERT_TRUE(call->q && call->q->region);
  EXPECT_EQ(call->q->region->region_id, 7u);
  EXPECT_EQ(call->q->region->generation, 1u);
  EXPECT_EQ(call->q->batch_stride, 1000);
  EXPECT_EQ(call->q->row_stride, 64);
  EXPECT_EQ(call->q->head_stride, 16);
  EXPECT_EQ(call->k->region->offset, 4096u);
  EXPECT_EQ(call->lse->head_dim, 0);
  EXPECT_EQ(call->lse->dtype, ANNULUS_F32);
  // A stride of 0 stands for 1.
  const ring::TokenRanges tokens = {{0, 3, 1}, {21, 24, 1}};
  EXPECT_EQ(call->q->tokens, tokens);
}

TEST(WorkerConvert, BackwardIsPassedWhole) {
  const auto call = AttendCallFromProto(BackwardRequest());
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_TRUE(call->d_o && call->dq && call->dk && call->dv);
  EXPECT_EQ(call->dk->dtype, ANNULUS_F32);
  EXPECT_EQ(call->dk->heads, 2);
  EXPECT_TRUE(call->gradient_wire_bf16);
  EXPECT_EQ(call->forward_request_id, "request-1");
}

TEST(WorkerConvert, ScaleOfZeroStandsForTheUsualOne) {
  const auto call = AttendCallFromProto(ForwardRequest());
  ASSERT_TRUE(call.ok());
  EXPECT_FLOAT_EQ(call->softmax_scale, 0.25f);
}

TEST(WorkerConvert, PayloadInRegionsIsCounted) {
  v1::AttendRequest request = ForwardRequest();
  request.mutable_v()->set_tensor_id("v");
  const auto call = AttendCallFromProto(request);
  ASSERT_TRUE(call.ok());
  // q, o: 6 x 4 x 16 bf16; k: 6 x 2 x 16 bf16; lse: 6 x 4 fp32; v is not in a region.
  EXPECT_EQ(RegionBytes(*call), 2 * 768 + 384 + 96);
}

struct Refusal {
  const char* says;
  absl::StatusCode code;
  std::function<void(v1::AttendRequest*)> spoil;
};

std::vector<Refusal> Refusals() {
  using Request = v1::AttendRequest;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  return {
      {"fence.group", kInvalid, [](Request* r) { r->mutable_fence()->set_group("G"); }},
      {"fence.group", kInvalid, [](Request* r) { r->clear_fence(); }},
      {"fence.request_id", kInvalid, [](Request* r) { r->mutable_fence()->set_request_id(""); }},
      {"fence.request_id", kInvalid,
       [](Request* r) { r->mutable_fence()->set_request_id(std::string(65, 'r')); }},
      {"fence.request_id", kInvalid,
       [](Request* r) { r->mutable_fence()->set_request_id("a\nb"); }},
      {"session_id", kInvalid, [](Request* r) { r->set_session_id(std::string(31, 'a')); }},
      {"session_id", kInvalid, [](Request* r) { r->set_session_id(std::string(32, 'A')); }},
      {"plan_digest", kInvalid, [](Request* r) { r->set_plan_digest("abc"); }},
      {"batch", kInvalid, [](Request* r) { r->set_batch(0); }},
      {"batch", kInvalid, [](Request* r) { r->set_batch((int64_t{1} << 40) + 1); }},
      {"query_heads", kInvalid, [](Request* r) { r->set_query_heads(3); }},
      {"query_heads", kInvalid, [](Request* r) { r->set_query_heads(1 << 20); }},
      {"kv_heads 0", kInvalid, [](Request* r) { r->set_kv_heads(0); }},
      {"kv_heads -2", kInvalid, [](Request* r) { r->set_kv_heads(-2); }},
      {"head_dim", kInvalid, [](Request* r) { r->set_head_dim(8); }},
      {"head_dim", kInvalid, [](Request* r) { r->set_head_dim(20); }},
      {"head_dim", kInvalid, [](Request* r) { r->set_head_dim(264); }},
      {"dtype", kInvalid, [](Request* r) { r->set_dtype(v1::DTYPE_UNSPECIFIED); }},
      {"dtype", kInvalid, [](Request* r) { r->set_dtype(static_cast<v1::Dtype>(9)); }},
      {"softmax_scale", kInvalid, [](Request* r) { r->set_softmax_scale(kNan); }},
      {"softmax_scale", kInvalid, [](Request* r) { r->set_softmax_scale(-kInf); }},
      {"lse_base", kUnimplemented, [](Request* r) { r->set_lse_base(v1::LSE_BASE_TWO); }},
      {"lse_base", kInvalid, [](Request* r) { r->set_lse_base(static_cast<v1::LseBase>(7)); }},
      {"gradient_wire", kInvalid,
       [](Request* r) { r->set_gradient_wire(static_cast<v1::GradientWire>(7)); }},
      {"one is missing", kInvalid, [](Request* r) { r->clear_lse(); }},
      {"one is missing", kInvalid, [](Request* r) { r->clear_k(); }},
      {"got 1 of 4", kInvalid, [](Request* r) { *r->mutable_dq() = r->q(); }},
      {"forward_request_id", kInvalid, [](Request* r) { r->set_forward_request_id("r"); }},
      {"q.location", kInvalid, [](Request* r) { r->mutable_q()->clear_location(); }},
      {"q.tensor_id", kInvalid, [](Request* r) { r->mutable_q()->set_tensor_id("a b"); }},
      {"q.batch", kInvalid, [](Request* r) { r->mutable_q()->set_batch(2); }},
      {"q.heads", kInvalid, [](Request* r) { r->mutable_q()->set_heads(2); }},
      {"k.heads", kInvalid, [](Request* r) { r->mutable_k()->set_heads(4); }},
      {"v.head_dim", kInvalid, [](Request* r) { r->mutable_v()->set_head_dim(32); }},
      {"lse.head_dim", kInvalid, [](Request* r) { r->mutable_lse()->set_head_dim(16); }},
      {"q.dtype", kInvalid, [](Request* r) { r->mutable_q()->set_dtype(v1::DTYPE_F32); }},
      {"o.dtype", kInvalid, [](Request* r) { r->mutable_o()->set_dtype(v1::DTYPE_F16); }},
      {"lse.dtype", kInvalid, [](Request* r) { r->mutable_lse()->set_dtype(v1::DTYPE_BF16); }},
      {"q.rows", kInvalid, [](Request* r) { r->mutable_q()->set_rows(-1); }},
      {"q.rows", kInvalid, [](Request* r) { r->mutable_q()->set_rows(int64_t{1} << 62); }},
      {"q.row_stride", kInvalid, [](Request* r) { r->mutable_q()->set_row_stride(-64); }},
      {"q.head_stride", kInvalid,
       [](Request* r) { r->mutable_q()->set_head_stride(int64_t{1} << 41); }},
      {"k.batch_stride", kInvalid, [](Request* r) { r->mutable_k()->set_batch_stride(-1); }},
      {"q.region.offset", kInvalid,
       [](Request* r) { r->mutable_q()->mutable_region()->set_offset(~uint64_t{0}); }},
      {"q.tokens", kInvalid, [](Request* r) { r->mutable_q()->clear_tokens(); }},
      {"q.tokens", kInvalid, [](Request* r) { r->mutable_q()->mutable_tokens(0)->set_begin(-1); }},
      {"q.tokens", kInvalid, [](Request* r) { r->mutable_q()->mutable_tokens(1)->set_end(20); }},
      {"q.tokens", kInvalid, [](Request* r) { r->mutable_q()->mutable_tokens(0)->set_stride(-1); }},
      {"q.tokens", kInvalid, [](Request* r) { r->mutable_q()->mutable_tokens(0)->set_stride(2); }},
      {"q.tokens", kInvalid,
       [](Request* r) {
         for (int i = 0; i < 65537; ++i) r->mutable_q()->add_tokens();
       }},
      {"q.position_ids", kUnimplemented, [](Request* r) { r->mutable_q()->add_position_ids(0); }},
  };
}

TEST(WorkerConvert, RefusesByFieldName) {
  for (const Refusal& refusal : Refusals()) {
    v1::AttendRequest request = ForwardRequest();
    refusal.spoil(&request);
    const absl::Status status = AttendCallFromProto(request).status();
    EXPECT_EQ(status.code(), refusal.code) << refusal.says << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(refusal.says));
  }
}

TEST(WorkerConvert, BackwardRefusesWhatOnlyAForwardTakes) {
  v1::AttendRequest request = BackwardRequest();
  request.set_retain(true);
  EXPECT_THAT(std::string(AttendCallFromProto(request).status().message()), HasSubstr("retain"));
  request = BackwardRequest();
  request.set_forward_request_id("a/b");
  EXPECT_THAT(std::string(AttendCallFromProto(request).status().message()),
              HasSubstr("forward_request_id"));
}

TEST(WorkerConvert, RefusalsDoNotEchoControlCharacters) {
  v1::AttendRequest request = ForwardRequest();
  request.mutable_fence()->set_group("a\x1b[2Jb\n");
  const std::string message(AttendCallFromProto(request).status().message());
  EXPECT_EQ(message.find('\x1b'), std::string::npos);
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

TEST(WorkerConvert, TimeoutIsBounded) {
  v1::AttendRequest request = ForwardRequest();
  EXPECT_EQ(CallTimeout(request).value(), std::nullopt);
  request.set_timeout_seconds(2.5);
  EXPECT_EQ(CallTimeout(request).value(), 2.5);
  for (const double bad : {-1.0, std::nan(""), 1e300, double{INFINITY}}) {
    request.set_timeout_seconds(bad);
    EXPECT_EQ(CallTimeout(request).status().code(), kInvalid) << bad;
  }
}

TEST(WorkerConvert, HashIsOfTheContentAlone) {
  const v1::AttendRequest request = ForwardRequest();
  v1::AttendRequest retry = request;
  retry.mutable_fence()->set_term(9);
  retry.mutable_fence()->set_epoch(9);
  retry.mutable_fence()->set_incarnation(9);
  retry.mutable_fence()->set_step(9);
  retry.mutable_fence()->set_hop(9);
  retry.set_timeout_seconds(9);
  EXPECT_EQ(AttendContentHash(request), AttendContentHash(retry));

  v1::AttendRequest other = request;
  other.mutable_q()->mutable_region()->set_offset(64);
  EXPECT_NE(AttendContentHash(request), AttendContentHash(other));
  other = request;
  other.set_retain(true);
  EXPECT_NE(AttendContentHash(request), AttendContentHash(other));
}

}  // namespace
}  // namespace annulus::rpc
