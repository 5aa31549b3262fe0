// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/kernels/attention_case.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_plugin.h"
#include "kernels/reference/error_metrics.h"
#include "kernels/tensor_view.h"

namespace annulus::kernels {
namespace {

std::vector<uint8_t> RandomElements(int64_t count, annulusDtype dtype, std::mt19937* rng) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(*rng);
  std::vector<uint8_t> bytes(count * DtypeBytes(dtype));
  StoreFromFloat(values.data(), count, dtype, bytes.data());
  return bytes;
}

std::vector<float> Rounded(std::vector<float> values, annulusDtype dtype) {
  std::vector<uint8_t> bytes(values.size() * DtypeBytes(dtype));
  StoreFromFloat(values.data(), values.size(), dtype, bytes.data());
  LoadAsFloat(bytes.data(), dtype, values.size(), values.data());
  return values;
}

}  // namespace

AttentionCase::AttentionCase(const Shape& s, uint32_t seed)
    : shape(s),
      scale(s.scale != 0.0f ? s.scale : 1.0f / std::sqrt(static_cast<float>(s.head_dim))),
      q_spans({{0, s.q_rows, 0, 1}}),
      kv_spans({{0, s.kv_rows, 0, 1}}) {
  std::mt19937 rng(seed);
  const int64_t q_count = s.batch * s.q_rows * s.q_heads * s.head_dim;
  const int64_t kv_count = s.batch * s.kv_rows * s.kv_heads * s.head_dim;
  const int64_t stat_count = s.batch * s.q_rows * s.q_heads;
  q_data = RandomElements(q_count, s.dtype, &rng);
  k_data = RandomElements(kv_count, s.dtype, &rng);
  v_data = RandomElements(kv_count, s.dtype, &rng);
  do_data = RandomElements(q_count, s.dtype, &rng);
  o_data.assign(q_count, 0.0f);
  lse_data.assign(stat_count, -std::numeric_limits<float>::infinity());
  delta_data.assign(stat_count, 0.0f);
  dq_data.assign(q_count, 0.0f);
  dk_data.assign(kv_count, 0.0f);
  dv_data.assign(kv_count, 0.0f);
}

annulusTensor AttentionCase::q() {
  return ContiguousTensor(q_data.data(), shape.dtype, shape.batch, shape.q_rows, shape.q_heads,
                          shape.head_dim);
}
annulusTensor AttentionCase::k() {
  return ContiguousTensor(k_data.data(), shape.dtype, shape.batch, shape.kv_rows, shape.kv_heads,
                          shape.head_dim);
}
annulusTensor AttentionCase::v() {
  annulusTensor view = k();
  view.data = v_data.data();
  return view;
}
annulusTensor AttentionCase::d_o() {
  annulusTensor view = q();
  view.data = do_data.data();
  return view;
}
annulusTensor AttentionCase::o() {
  return ContiguousTensor(o_data.data(), ANNULUS_F32, shape.batch, shape.q_rows, shape.q_heads,
                          shape.head_dim);
}
annulusTensor AttentionCase::dq() {
  annulusTensor view = o();
  view.data = dq_data.data();
  return view;
}
annulusTensor AttentionCase::dk() {
  return ContiguousTensor(dk_data.data(), ANNULUS_F32, shape.batch, shape.kv_rows, shape.kv_heads,
                          shape.head_dim);
}
annulusTensor AttentionCase::dv() {
  annulusTensor view = dk();
  view.data = dv_data.data();
  return view;
}
annulusRowStat AttentionCase::lse() {
  return ContiguousRowStat(lse_data.data(), shape.batch, shape.q_rows, shape.q_heads);
}
annulusRowStat AttentionCase::delta() {
  return ContiguousRowStat(delta_data.data(), shape.batch, shape.q_rows, shape.q_heads);
}

annulusAttendArgs AttentionCase::Args() {
  return {sizeof(annulusAttendArgs),
          q(),
          k(),
          v(),
          o(),
          lse(),
          q_spans.data(),
          q_spans.size(),
          kv_spans.data(),
          kv_spans.size(),
          shape.mask,
          scale,
          0};
}

annulusAttendBackwardArgs AttentionCase::BackwardArgs() {
  return {sizeof(annulusAttendBackwardArgs),
          q(),
          k(),
          v(),
          d_o(),
          dq(),
          dk(),
          dv(),
          lse(),
          delta(),
          q_spans.data(),
          q_spans.size(),
          kv_spans.data(),
          kv_spans.size(),
          shape.mask,
          scale,
          0,
          0};
}

ReferenceInputs AttentionCase::Inputs() {
  return {q(), k(), v(), q_spans, kv_spans, shape.mask, scale, 2};
}

void AttentionCase::FillRow(const annulusTensor& tensor, int64_t batch, int64_t row, int64_t head,
                            float value) {
  const std::vector<float> values(tensor.head_dim, value);
  StoreFromFloat(values.data(), tensor.head_dim, tensor.dtype,
                 const_cast<void*>(RowPointer(tensor, batch, row, head)));
}

TestDevice::TestDevice(const annulusComputeV1* api, int threads, const char* provider,
                       bool deterministic)
    : api_(api) {
  annulusComputeOptions options = {sizeof(annulusComputeOptions), 0, threads};
  options.provider = provider;
  options.deterministic = deterministic ? 1 : 0;
  Check(api_->open(&options, &device_));
  Check(api_->stream_create(device_, &stream_));
}

TestDevice::~TestDevice() {
  api_->stream_destroy(stream_);
  api_->close(device_);
}

CpuDevice::CpuDevice(int threads, const char* provider)
    : TestDevice(CpuPlugin(), threads, provider) {}

void TestDevice::Check(annulusComputeStatus status) const {
  ASSERT_EQ(status, ANNULUS_COMPUTE_OK) << api_->last_error();
}

void TestDevice::Attend(const annulusAttendArgs& args) { Check(api_->attend(stream_, &args)); }

void TestDevice::AttendBackward(AttentionCase& c) {
  const annulusTensor d_o = c.d_o();
  const annulusTensor o = c.o();
  const annulusRowStat delta = c.delta();
  Check(api_->backward_prepare(stream_, &d_o, &o, &delta));
  const annulusAttendBackwardArgs args = c.BackwardArgs();
  Check(api_->attend_backward(stream_, &args));
}

namespace {

// `results`: what they are rounded to, and whose gates they are held to.
void ForwardWithin(AttentionCase& c, annulusDtype results, double slack) {
  const AccuracyGates gates = GatesFor(results);
  const ReferenceForward want = AttendReference(c.Inputs(), AllRows(c.shape.q_rows));
  EXPECT_LE(RelativeRmse(Rounded(c.o_data, results), want.o), slack * gates.forward_relative_rmse);
  EXPECT_LE(MaxAbsError(c.lse_data, want.lse), gates.lse_max_abs);
}

void GradientsWithin(AttentionCase& c, annulusDtype results, double slack) {
  const double gate = slack * GatesFor(results).gradient_relative_rmse;
  const ReferenceGradients want = AttendBackwardReference(
      c.Inputs(), c.d_o(), AllRows(c.shape.q_rows), AllRows(c.shape.kv_rows));
  EXPECT_LE(RelativeRmse(Rounded(c.dq_data, results), want.dq), gate);
  EXPECT_LE(RelativeRmse(Rounded(c.dk_data, results), want.dk), gate);
  EXPECT_LE(RelativeRmse(Rounded(c.dv_data, results), want.dv), gate);
}

}  // namespace

void ExpectForwardMatches(AttentionCase& c, double slack) {
  ForwardWithin(c, c.shape.dtype, slack);
}
void ExpectFloat32Forward(AttentionCase& c) { ForwardWithin(c, ANNULUS_F32, 1.0); }
void ExpectGradientsMatch(AttentionCase& c, double slack) {
  GradientsWithin(c, c.shape.dtype, slack);
}
void ExpectFloat32Gradients(AttentionCase& c) { GradientsWithin(c, ANNULUS_F32, 1.0); }

std::vector<std::vector<annulusSpan>> SplitSpans(const std::vector<annulusSpan>& spans, int pieces,
                                                 std::mt19937* rng) {
  std::vector<std::vector<annulusSpan>> lists(pieces);
  for (const annulusSpan& span : spans) {
    for (int64_t begin = 0; begin < span.count;) {
      const int64_t length =
          std::uniform_int_distribution<int64_t>(1, std::max<int64_t>(1, span.count / 2))(*rng);
      const int64_t count = std::min(length, span.count - begin);
      lists[(*rng)() % pieces].push_back(
          {span.row + begin, count, span.position + begin * span.stride, span.stride});
      begin += count;
    }
  }
  return lists;
}

std::vector<annulusSpan> ZigzagSpans(int64_t rows, int64_t ranks) {
  const int64_t chunks = 2 * ranks;
  auto start = [&](int64_t chunk) { return chunk * rows / chunks; };
  std::vector<annulusSpan> spans;
  int64_t row = 0;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    for (const int64_t chunk : {rank, chunks - 1 - rank}) {
      const int64_t count = start(chunk + 1) - start(chunk);
      spans.push_back({row, count, start(chunk), 1});
      row += count;
    }
  }
  return spans;
}

std::vector<annulusSpan> StripedSpans(int64_t rows, int64_t ranks) {
  std::vector<annulusSpan> spans;
  int64_t row = 0;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    const int64_t count = (rows - rank + ranks - 1) / ranks;
    spans.push_back({row, count, rank, ranks});
    row += count;
  }
  return spans;
}

}  // namespace annulus::kernels
