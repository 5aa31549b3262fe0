// SPDX-License-Identifier: Apache-2.0
// Few query rows against many keys: the unpacked path of the forward pass.
#include "kernels/cpu/few_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu/few_rows_kernel.h"
#include "kernels/reference/error_metrics.h"
#include "kernels/reference/reference.h"
#include "kernels/tensor_view.h"
#include "tests/support/under_sanitizer.h"
#include "tests/unit/kernels/attention_case.h"

namespace annulus::kernels {
namespace {

TEST(FewRows, CountsTheRowsOfAGroup) {
  AttentionCase c({1, 3, 10, 8, 2, 16});
  EXPECT_TRUE(cpu::HasFewRows(c.Args()));
  c.q_spans = {{0, 2, 0, 1}, {2, 1, 2, 1}};
  EXPECT_TRUE(cpu::HasFewRows(c.Args()));
  AttentionCase more({1, 4, 10, 8, 2, 16});
  EXPECT_FALSE(cpu::HasFewRows(more.Args()));
}

TEST(FewRows, RandomShapes) {
  std::mt19937 rng(11);
  auto pick = [&](int low, int high) { return std::uniform_int_distribution(low, high)(rng); };
  CpuDevice device(2);
  for (int trial = 0; trial < (kUnderSanitizer ? 20 : 200); ++trial) {
    const int64_t kv_heads = trial % 10 == 0 ? pick(8, 17) : pick(1, 3);
    const int64_t group = pick(1, 4);
    const int64_t q_rows = pick(1, static_cast<int>(cpu::kFewRowsMax / group));
    const int64_t kv_rows = pick(1, 2000);
    const annulusMask masks[] = {Full(), Causal(kv_rows - q_rows), Causal(pick(-20, 2000)),
                                 Causal(kv_rows - q_rows, pick(0, 700)), Full(pick(0, 300))};
    const annulusDtype dtypes[] = {ANNULUS_F32, ANNULUS_BF16, ANNULUS_F16};
    AttentionCase c({pick(1, 2), q_rows, kv_rows, kv_heads * group, kv_heads, 8 * pick(2, 32),
                     dtypes[trial % 3], masks[trial % 5], trial % 7 == 0 ? -0.3f : 0.0f},
                    trial);
    ASSERT_TRUE(cpu::HasFewRows(c.Args()));
    if (trial % 4 == 1) c.kv_spans = ZigzagSpans(kv_rows, 3);
    if (trial % 4 == 3) c.kv_spans = StripedSpans(kv_rows, 5);
    SCOPED_TRACE(testing::Message() << "trial " << trial);
    device.Attend(c);
    ExpectForwardMatches(c);
  }
}

// Every count of rows that is worked on in a way of its own, and every kind of row end.
TEST(FewRows, EveryRowCountHeadSizeDtypeAndMask) {
  constexpr int64_t kKeys = 603;  // two tiles and a part of a panel
  CpuDevice device(1);
  for (const int64_t rows : {1, 2, 3, 4, 5, 12}) {
    for (const int64_t head_dim : {16, 40, 64, 128, 256}) {
      if (kUnderSanitizer && head_dim > 64) continue;
      for (const annulusDtype dtype : {ANNULUS_F32, ANNULUS_BF16, ANNULUS_F16}) {
        for (const annulusMask mask : {Full(), Causal(kKeys - rows), Causal(300, 41)}) {
          AttentionCase c({1, rows, kKeys, 3, 3, head_dim, dtype, mask});
          SCOPED_TRACE(testing::Message() << rows << " rows, head size " << head_dim << ", dtype "
                                          << dtype << ", offset " << mask.causal_offset);
          device.Attend(c);
          ExpectForwardMatches(c);
        }
      }
    }
  }
}

// The rows of `from` as they lie with other strides, of elements.
annulusTensor Moved(const annulusTensor& from, int64_t row_stride, int64_t head_stride,
                    int64_t batch_stride, std::vector<uint8_t>* data) {
  const auto bytes = static_cast<int64_t>(DtypeBytes(from.dtype));
  data->assign(from.batch * batch_stride * bytes, 0xff);  // a NaN of every dtype
  annulusTensor to = from;
  to.data = data->data();
  to.row_stride = row_stride;
  to.head_stride = head_stride;
  to.batch_stride = batch_stride;
  for (int64_t b = 0; b < from.batch; ++b) {
    for (int64_t row = 0; row < from.rows; ++row) {
      for (int64_t head = 0; head < from.heads; ++head) {
        std::memcpy(const_cast<void*>(RowPointer(to, b, row, head)), RowPointer(from, b, row, head),
                    from.head_dim * bytes);
      }
    }
  }
  return to;
}

// Keys lie head after head, values in rows that are longer than their heads.
TEST(FewRows, KeysAndValuesHaveStridesOfTheirOwn) {
  constexpr int64_t kRows = 700;
  constexpr int64_t kHeadDim = 40;
  for (const annulusDtype dtype : {ANNULUS_F32, ANNULUS_BF16}) {
    for (const int64_t heads : {1, 4, 9}) {
      AttentionCase c({2, 2, kRows, heads * 2, heads, kHeadDim, dtype, Causal(690, 600)});
      annulusAttendArgs args = c.Args();
      std::vector<uint8_t> k, v;
      args.k = Moved(args.k, kHeadDim, kRows * kHeadDim, heads * kRows * kHeadDim, &k);
      const int64_t row_stride = heads * kHeadDim + 24;
      args.v = Moved(args.v, row_stride, kHeadDim, kRows * row_stride + 8, &v);
      ASSERT_TRUE(cpu::HasFewRows(args));
      SCOPED_TRACE(testing::Message() << heads << " heads, dtype " << dtype);
      CpuDevice(2).Attend(args);
      ExpectForwardMatches(c);
    }
  }
}

// Each of q, k and v may have a dtype of its own; few rows are not packed where k and v share one.
TEST(FewRows, MixedDtypes) {
  constexpr annulusDtype kDtypes[] = {ANNULUS_F32, ANNULUS_BF16, ANNULUS_F16};
  for (const annulusDtype k_dtype : kDtypes) {
    for (const annulusDtype v_dtype : kDtypes) {
      AttentionCase c({1, 1, 300, 2, 1, 40, ANNULUS_BF16});
      AttentionCase keys({1, 1, 300, 2, 1, 40, k_dtype}, 2);
      AttentionCase values({1, 1, 300, 2, 1, 40, v_dtype}, 3);
      annulusAttendArgs args = c.Args();
      args.k = keys.k();
      args.v = values.v();
      SCOPED_TRACE(testing::Message() << "k " << k_dtype << ", v " << v_dtype);
      EXPECT_EQ(cpu::HasFewRows(args), k_dtype == v_dtype);
      CpuDevice(1).Attend(args);
      ReferenceInputs inputs = c.Inputs();
      inputs.k = args.k;
      inputs.v = args.v;
      EXPECT_LE(RelativeRmse(c.o_data, AttendReference(inputs, {0}).o), 5e-6);
    }
  }
}

// Keys in pages, in order and not, some of the pages empty.
TEST(FewRows, ManyShortSpans) {
  AttentionCase c({2, 3, 700, 4, 2, 40, ANNULUS_BF16, Causal(650, 500)});
  for (const int64_t page : {1, 3, 16}) {
    c.kv_spans.clear();
    for (int64_t row = 0; row < c.shape.kv_rows; row += page) {
      c.kv_spans.push_back({row, std::min(page, c.shape.kv_rows - row), row, 1});
      c.kv_spans.push_back({row, 0, 0, 1});
    }
    AttentionCase in_order = c;
    CpuDevice(2).Attend(in_order);
    ExpectForwardMatches(in_order);
    std::shuffle(c.kv_spans.begin(), c.kv_spans.end(), std::mt19937(page));
    AttentionCase paged = c;
    SCOPED_TRACE(testing::Message() << "pages of " << page);
    CpuDevice(2).Attend(paged);
    ExpectForwardMatches(paged);
  }
}

TEST(FewRows, StateGoesOnFromStepToStep) {
  AttentionCase c({1, 1, 4096, 4, 1, 64, ANNULUS_F32, Full()});
  CpuDevice device(1);
  for (int64_t step = 0; step < 64; ++step) {
    c.kv_spans = {{64 * step, 64, 64 * step, 1}};
    device.Attend(c);
  }
  c.kv_spans = {{0, 4096, 0, 1}};
  ExpectForwardMatches(c);
}

TEST(FewRows, SameBytesForAnyThreads) {
  AttentionCase one({2, 2, 5000, 4, 2, 64, ANNULUS_BF16, Causal(4000)});
  AttentionCase three = one;
  CpuDevice(1).Attend(one);
  CpuDevice(3).Attend(three);
  EXPECT_EQ(one.o_data, three.o_data);
  EXPECT_EQ(one.lse_data, three.lse_data);
}

TEST(FewRows, RowsWithoutKeysKeepTheirBytes) {
  AttentionCase c({1, 4, 50, 1, 1, 16, ANNULUS_F32, Causal(-2)});
  std::fill(c.o_data.begin(), c.o_data.end(), 7.0f);
  CpuDevice(1).Attend(c);
  for (int64_t row = 0; row < 2; ++row) {
    EXPECT_EQ(c.lse_data[row], -std::numeric_limits<float>::infinity());
    for (int64_t d = 0; d < 16; ++d) EXPECT_EQ(c.o_data[row * 16 + d], 7.0f);
  }
  EXPECT_TRUE(std::isfinite(c.lse_data[2]));
}

TEST(FewRows, NaNReachesExactlyTheRowsThatSeeIt) {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  for (const bool in_k : {false, true}) {
    AttentionCase c({1, 4, 50, 1, 1, 16, ANNULUS_F32, Causal(20)});
    AttentionCase::FillRow(in_k ? c.k() : c.v(), 0, 22, 0, kNaN);
    CpuDevice(1).Attend(c);
    for (int64_t row = 0; row < 4; ++row) {
      EXPECT_EQ(std::isnan(c.o_data[row * 16]), row >= 2) << row;
      EXPECT_EQ(std::isnan(c.lse_data[row]), in_k && row >= 2) << row;
    }
  }
}

}  // namespace
}  // namespace annulus::kernels
