// SPDX-License-Identifier: Apache-2.0
#include "client/cli/verify.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "client/cli/random_fill.h"
#include "client/cli/stored_state_gradients.h"
#include "kernels/reference/error_metrics.h"
#include "kernels/reference/reference.h"
#include "kernels/tensor_view.h"

namespace annulus::cli {
namespace {

constexpr int64_t kQueries = 40, kKeys = 56;
constexpr int kQueryHeads = 4, kKvHeads = 2, kHeadDim = 16;

// A problem whose outputs are the reference's own, rounded to float.
class Solved {
 public:
  Solved() {
    flags_.backward = true;
    flags_.shape.mask = "causal";
    problem_ = {1, kQueries, kKeys, kQueryHeads, kKvHeads, kHeadDim, client::DataType::kF32};
    tensors_.q = New(kQueries, kQueryHeads, kHeadDim, "q");
    tensors_.k = New(kKeys, kKvHeads, kHeadDim, "k");
    tensors_.v = New(kKeys, kKvHeads, kHeadDim, "v");
    tensors_.d_o = New(kQueries, kQueryHeads, kHeadDim, "do");
    inputs_.q = View(tensors_.q);
    inputs_.k = View(tensors_.k);
    inputs_.v = View(tensors_.v);
    inputs_.mask = {ANNULUS_MASK_CAUSAL, kKeys - kQueries, -1};
    inputs_.softmax_scale = 1 / std::sqrt(static_cast<double>(kHeadDim));
    const auto forward = kernels::AttendReference(inputs_, kernels::AllRows(kQueries));
    gradients_ = kernels::AttendBackwardReference(
        inputs_, View(tensors_.d_o), kernels::AllRows(kQueries), kernels::AllRows(kKeys));
    tensors_.o = Hold(kQueries, kQueryHeads, kHeadDim, forward.o);
    tensors_.o_exact = tensors_.o;
    tensors_.lse = Hold(kQueries, kQueryHeads, 0, forward.lse);
    tensors_.dq = Hold(kQueries, kQueryHeads, kHeadDim, gradients_.dq);
    tensors_.dk = Hold(kKeys, kKvHeads, kHeadDim, gradients_.dk);
    tensors_.dv = Hold(kKeys, kKvHeads, kHeadDim, gradients_.dv);
  }

  static annulusTensor View(const client::Tensor& tensor) {
    const client::TensorView& v = tensor.view();
    return kernels::ContiguousTensor(v.data, ANNULUS_F32, v.batch, v.rows, v.heads, v.head_dim);
  }
  Verification Verified() const { return Verify(flags_, problem_, tensors_); }

  RunFlags flags_;
  Problem problem_;
  ProblemTensors tensors_;
  kernels::ReferenceInputs inputs_;
  kernels::ReferenceGradients gradients_;

 private:
  client::Tensor Hold(int64_t rows, int heads, int head_dim, const std::vector<double>& values) {
    memory_.emplace_back(values.begin(), values.end());
    return client::Tensor(
        nullptr, {memory_.back().data(), client::DataType::kF32, 1, rows, heads, head_dim});
  }
  client::Tensor New(int64_t rows, int heads, int head_dim, const std::string& name) {
    const auto tensor =
        Hold(rows, heads, head_dim,
             std::vector<double>(static_cast<size_t>(rows) * heads * head_dim, 0.0));
    FillNormal(tensor.view(), 1, name);
    return tensor;
  }
  std::vector<std::vector<float>> memory_;
};

TEST(Verify, AcceptsTheTruth) {
  const Verification verified = Solved().Verified();
  EXPECT_TRUE(verified.passed());
  EXPECT_FALSE(verified.sampled);
  EXPECT_EQ(verified.checks.size(), 5u);
}

TEST(Verify, FindsOneWrongElementInEachOutput) {
  for (const char* name : {"o", "lse", "dq", "dk", "dv"}) {
    Solved solved;
    const std::string which = name;
    const client::Tensor& wrong = which == "o"     ? solved.tensors_.o
                                  : which == "lse" ? solved.tensors_.lse
                                  : which == "dq"  ? solved.tensors_.dq
                                  : which == "dk"  ? solved.tensors_.dk
                                                   : solved.tensors_.dv;
    wrong.as<float>()[17] += 0.01f;
    const Verification verified = solved.Verified();
    for (const Check& check : verified.checks) {
      EXPECT_EQ(check.passed(), check.name != which) << name << ": " << check.name;
    }
  }
}

TEST(Verify, NanMustStandWhereTheReferenceHasIt) {
  Solved solved;
  solved.flags_.backward = false;
  solved.tensors_.o.as<float>()[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(solved.Verified().passed());
}

// A second way to the same numbers where the stored o and lse are exact.
TEST(StoredStateGradients, AreTheReferences) {
  const Solved solved;
  const std::vector<int64_t> queries{0, 13, kQueries - 1}, keys{0, 7, 20, kKeys - 1};
  const StoredStateGradients got = GradientsFromStoredState(
      {solved.inputs_.q, solved.inputs_.k, solved.inputs_.v, Solved::View(solved.tensors_.o),
       Solved::View(solved.tensors_.d_o), solved.tensors_.lse.as<float>(), solved.inputs_.mask,
       solved.inputs_.softmax_scale, 2},
      queries, keys);
  const auto expect_rows = [](const std::vector<double>& got_rows, const std::vector<double>& all,
                              const std::vector<int64_t>& rows, int64_t width) {
    for (size_t r = 0; r < rows.size(); ++r) {
      for (int64_t i = 0; i < width; ++i) {
        EXPECT_NEAR(got_rows[r * static_cast<size_t>(width) + static_cast<size_t>(i)],
                    all[static_cast<size_t>(rows[r] * width + i)], 1e-5);
      }
    }
  };
  expect_rows(got.dq, solved.gradients_.dq, queries, kQueryHeads * kHeadDim);
  expect_rows(got.dk, solved.gradients_.dk, keys, kKvHeads * kHeadDim);
  expect_rows(got.dv, solved.gradients_.dv, keys, kKvHeads * kHeadDim);
}

}  // namespace
}  // namespace annulus::cli
