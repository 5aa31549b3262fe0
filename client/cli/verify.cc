// SPDX-License-Identifier: Apache-2.0
#include "client/cli/verify.h"

#include <algorithm>
#include <cmath>
#include <thread>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/cli/element_types.h"
#include "client/cli/stored_state_gradients.h"
#include "kernels/reference/error_metrics.h"
#include "kernels/reference/reference.h"
#include "kernels/tensor_view.h"

namespace annulus::cli {
namespace {

// Multiply-adds that the reference may take for one tensor: some seconds.
constexpr double kBudget = 6e9;
constexpr int64_t kSampledRowsMin = 8;

annulusTensor View(const client::Tensor& tensor) {
  const client::TensorView& view = tensor.view();
  return kernels::ContiguousTensor(view.data, ToKernels(view.dtype), view.batch, view.rows,
                                   view.heads, view.head_dim);
}

// The given rows of every sequence as floats, dense.
std::vector<float> RowsOf(const client::Tensor& tensor, const std::vector<int64_t>& rows) {
  const client::TensorView& view = tensor.view();
  const int64_t row_elements = static_cast<int64_t>(view.heads) * std::max(view.head_dim, 1);
  const auto width = static_cast<int64_t>(client::DataTypeBytes(view.dtype));
  std::vector<float> out(static_cast<size_t>(view.batch * row_elements) * rows.size());
  float* to = out.data();
  for (int64_t b = 0; b < view.batch; ++b) {
    for (const int64_t row : rows) {
      const char* from =
          static_cast<const char*>(view.data) + (b * view.rows + row) * row_elements * width;
      kernels::LoadAsFloat(from, ToKernels(view.dtype), row_elements, to);
      to += row_elements;
    }
  }
  return out;
}

double Rms(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value * value;
  return values.empty() ? 0 : std::sqrt(sum / static_cast<double>(values.size()));
}

// Relative RMSE; absolute where the true gradient vanishes identically (a single key).
double GradientError(const std::vector<float>& got, const std::vector<double>& want) {
  return Rms(want) > 1e-12 || std::isnan(Rms(want)) ? kernels::RelativeRmse(got, want)
                                                    : kernels::MaxAbsError(got, want);
}

class Verifier {
 public:
  Verifier(const RunFlags& flags, const Problem& problem, const ProblemTensors& tensors)
      : flags_(flags), problem_(problem), tensors_(tensors) {
    inputs_.q = View(tensors.q);
    inputs_.k = View(tensors.k);
    inputs_.v = View(tensors.v);
    inputs_.mask = {flags.shape.mask == "causal" ? ANNULUS_MASK_CAUSAL : ANNULUS_MASK_FULL,
                    problem.kv_length - problem.query_length, flags.shape.window_left};
    inputs_.softmax_scale = flags.softmax_scale != 0
                                ? static_cast<double>(flags.softmax_scale)
                                : 1 / std::sqrt(static_cast<double>(problem.head_dim));
    inputs_.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    gates_ = kernels::GatesFor(ToKernels(problem.dtype));
  }

  Verification Run() {
    const absl::Time start = absl::Now();
    CheckForward();
    if (flags_.backward) {
      if (WholeBackwardFits()) {
        CheckGradients();
      } else {
        CheckSampledGradients();
      }
    }
    for (const Check& check : out_.checks) {
      out_.sampled = out_.sampled || check.rows < check.rows_total;
    }
    out_.seconds = absl::ToDoubleSeconds(absl::Now() - start);
    return out_;
  }

 private:
  // Multiply-adds of one product of a query row with all keys, or of a key row with all queries.
  double RowCost(int64_t others) const {
    return static_cast<double>(problem_.batch) * problem_.query_heads * problem_.head_dim *
           static_cast<double>(others);
  }
  std::vector<int64_t> Sample(int64_t rows, double cost_per_row) const {
    const auto affordable = static_cast<int64_t>(std::min(kBudget / cost_per_row, 1e9));
    return kernels::SampleRows(rows, std::max(affordable, kSampledRowsMin));
  }
  bool WholeBackwardFits() const {
    return 11 * RowCost(problem_.kv_length) * static_cast<double>(problem_.query_length) <=
           2 * kBudget;
  }

  void CheckForward() {
    const int64_t total = problem_.query_length;
    const auto rows = Sample(total, 2 * RowCost(problem_.kv_length));
    const kernels::ReferenceForward want = kernels::AttendReference(inputs_, rows);
    const auto count = static_cast<int64_t>(rows.size());
    out_.checks.push_back({"o", "relative RMSE",
                           kernels::RelativeRmse(RowsOf(tensors_.o, rows), want.o),
                           gates_.forward_relative_rmse, count, total});
    out_.checks.push_back({"lse", "max abs error",
                           kernels::MaxAbsError(RowsOf(tensors_.lse, rows), want.lse),
                           gates_.lse_max_abs, count, total});
  }

  void CheckGradients() {
    const kernels::ReferenceGradients want = kernels::AttendBackwardReference(
        inputs_, View(tensors_.d_o), kernels::AllRows(problem_.query_length),
        kernels::AllRows(problem_.kv_length));
    Add("dq", tensors_.dq, want.query_rows, want.dq);
    Add("dk", tensors_.dk, want.key_rows, want.dk);
    Add("dv", tensors_.dv, want.key_rows, want.dv);
  }

  void CheckSampledGradients() {
    const auto queries = Sample(problem_.query_length, 4 * RowCost(problem_.kv_length));
    const auto keys = Sample(problem_.kv_length, 4 * RowCost(problem_.query_length));
    const StoredState state{inputs_.q,          inputs_.k,
                            inputs_.v,          View(tensors_.o_exact),
                            View(tensors_.d_o), tensors_.lse.as<float>(),
                            inputs_.mask,       inputs_.softmax_scale,
                            inputs_.threads};
    const StoredStateGradients want = GradientsFromStoredState(state, queries, keys);
    Add("dq", tensors_.dq, queries, want.dq);
    Add("dk", tensors_.dk, keys, want.dk);
    Add("dv", tensors_.dv, keys, want.dv);
    out_.gradients_of_stored_state = true;
  }

  void Add(const char* name, const client::Tensor& got, const std::vector<int64_t>& rows,
           const std::vector<double>& want) {
    out_.checks.push_back({name, "relative RMSE", GradientError(RowsOf(got, rows), want),
                           GradientGate(), static_cast<int64_t>(rows.size()), got.view().rows});
  }
  double GradientGate() const {
    const double wire = 1.6e-3 * std::sqrt(static_cast<double>(flags_.shape.context_parallel_size));
    return flags_.gradient_wire == "bf16" ? std::max(wire, gates_.gradient_relative_rmse)
                                          : gates_.gradient_relative_rmse;
  }

  const RunFlags& flags_;
  const Problem& problem_;
  const ProblemTensors& tensors_;
  kernels::ReferenceInputs inputs_;
  kernels::AccuracyGates gates_;
  Verification out_;
};

}  // namespace

bool Verification::passed() const {
  return std::all_of(checks.begin(), checks.end(), [](const Check& c) { return c.passed(); });
}

double Verification::error(const std::string& name) const {
  for (const Check& check : checks) {
    if (check.name == name) return check.error;
  }
  return -1;
}

Verification Verify(const RunFlags& flags, const Problem& problem, const ProblemTensors& tensors) {
  return Verifier(flags, problem, tensors).Run();
}

}  // namespace annulus::cli
