// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/cuda/fake_cudnn.h"

#include <cmath>
#include <cstring>
#include <memory>

#include "kernels/tensor_view.h"

namespace annulus::kernels::cuda {
namespace {

// Elements of [batch, rows, heads, head_dim] as float64, and back.
class Elements {
 public:
  Elements(const void* data, const AttentionShape& shape, const AttentionStrides& strides)
      : tensor_{const_cast<void*>(data), shape.dtype,   0,           0,           0,
                shape.head_dim,          strides.batch, strides.row, strides.head} {}

  std::vector<double> Row(int64_t batch, int64_t row, int64_t head) const {
    std::vector<float> values(tensor_.head_dim);
    LoadAsFloat(RowPointer(tensor_, batch, row, head), tensor_.dtype, tensor_.head_dim,
                values.data());
    return {values.begin(), values.end()};
  }
  void Store(const std::vector<double>& row_values, int64_t batch, int64_t row, int64_t head) {
    const std::vector<float> values(row_values.begin(), row_values.end());
    StoreFromFloat(values.data(), tensor_.head_dim, tensor_.dtype,
                   const_cast<void*>(RowPointer(tensor_, batch, row, head)));
  }

 private:
  const annulusTensor tensor_;
};

using Row = std::vector<double>;

double Dot(const Row& a, const Row& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

void AddScaled(double factor, const Row& from, Row* to) {
  for (size_t i = 0; i < from.size(); ++i) (*to)[i] += factor * from[i];
}

AttentionStrides Packed(const AttentionShape& shape, int64_t rows, int64_t heads) {
  return {rows * heads * shape.head_dim, heads * shape.head_dim, shape.head_dim};
}

class FakePlan final : public AttentionPlan {
 public:
  explicit FakePlan(const AttentionShape& shape) : shape_(shape) { ++FakeCudnn().plans; }
  ~FakePlan() override { --FakeCudnn().plans; }

  size_t workspace_bytes() const override { return FakeCudnn().workspace_bytes; }

  absl::Status Execute(const AttentionBuffers& buffers, Driver::Stream) override {
    if (!FakeCudnn().execute.ok()) return FakeCudnn().execute;
    FakeCudnn().executed.push_back(shape_);
    std::memset(buffers.workspace, 0xff, workspace_bytes());
    for (int64_t batch = 0; batch < shape_.batch; ++batch) {
      if (shape_.pass == AttentionPass::kForward) {
        for (int64_t head = 0; head < shape_.query_heads; ++head) Forward(buffers, batch, head);
      } else {
        for (int64_t head = 0; head < shape_.kv_heads; ++head) Backward(buffers, batch, head);
      }
    }
    return absl::OkStatus();
  }

 private:
  int64_t Visible(int64_t i) const {
    return shape_.causal ? std::min(i + 1, shape_.kv_rows) : shape_.kv_rows;
  }
  float& Stat(const AttentionBuffers& buffers, int64_t batch, int64_t head, int64_t row) const {
    return buffers.stats[(batch * shape_.query_heads + head) * shape_.q_rows + row];
  }

  void Forward(const AttentionBuffers& b, int64_t batch, int64_t head) {
    const int64_t kv_head = head / (shape_.query_heads / shape_.kv_heads);
    const Elements q(b.q, shape_, shape_.q), k(b.k, shape_, shape_.k), v(b.v, shape_, shape_.v);
    Elements o(b.o, shape_, Packed(shape_, shape_.q_rows, shape_.query_heads));
    for (int64_t i = 0; i < shape_.q_rows; ++i) {
      const Row q_row = q.Row(batch, i, head);
      std::vector<double> scores(Visible(i));
      double largest = -INFINITY;
      for (size_t j = 0; j < scores.size(); ++j) {
        scores[j] = b.softmax_scale * Dot(q_row, k.Row(batch, j, kv_head));
        largest = std::max(largest, scores[j]);
      }
      double sum = 0.0;
      Row o_row(shape_.head_dim, 0.0);
      for (size_t j = 0; j < scores.size(); ++j) {
        const double weight = std::exp(scores[j] - largest);
        sum += weight;
        AddScaled(weight, v.Row(batch, j, kv_head), &o_row);
      }
      for (double& value : o_row) value /= sum;
      o.Store(o_row, batch, i, head);
      Stat(b, batch, head, i) = static_cast<float>(largest + std::log(sum));
    }
  }

  void Backward(const AttentionBuffers& b, int64_t batch, int64_t kv_head) {
    const int64_t group = shape_.query_heads / shape_.kv_heads;
    const AttentionStrides packed_q = Packed(shape_, shape_.q_rows, shape_.query_heads);
    const AttentionStrides packed_k = Packed(shape_, shape_.kv_rows, shape_.kv_heads);
    const Elements q(b.q, shape_, shape_.q), k(b.k, shape_, shape_.k), v(b.v, shape_, shape_.v);
    const Elements d_o(b.d_o, shape_, shape_.d_o), o(b.o, shape_, packed_q);
    Elements dq(b.dq, shape_, packed_q), dk(b.dk, shape_, packed_k), dv(b.dv, shape_, packed_k);
    std::vector<Row> dk_rows(shape_.kv_rows, Row(shape_.head_dim, 0.0));
    std::vector<Row> dv_rows = dk_rows;
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      for (int64_t i = 0; i < shape_.q_rows; ++i) {
        const Row q_row = q.Row(batch, i, head);
        const Row do_row = d_o.Row(batch, i, head);
        const double delta = Dot(do_row, o.Row(batch, i, head));
        Row dq_row(shape_.head_dim, 0.0);
        for (int64_t j = 0; j < Visible(i); ++j) {
          const Row k_row = k.Row(batch, j, kv_head);
          const double p = std::exp(b.softmax_scale * Dot(q_row, k_row) - Stat(b, batch, head, i));
          const double ds = b.softmax_scale * p * (Dot(do_row, v.Row(batch, j, kv_head)) - delta);
          AddScaled(ds, k_row, &dq_row);
          AddScaled(ds, q_row, &dk_rows[j]);
          AddScaled(p, do_row, &dv_rows[j]);
        }
        dq.Store(dq_row, batch, i, head);
      }
    }
    for (int64_t j = 0; j < shape_.kv_rows; ++j) {
      dk.Store(dk_rows[j], batch, j, kv_head);
      dv.Store(dv_rows[j], batch, j, kv_head);
    }
  }

  const AttentionShape shape_;
};

class FakeApi final : public CudnnApi {
 public:
  std::string version() const override { return "9.99.0"; }
  absl::StatusOr<std::unique_ptr<AttentionPlan>> Build(const AttentionShape& shape) override {
    if (!FakeCudnn().build.ok()) return FakeCudnn().build;
    FakeCudnn().built.push_back(shape);
    return std::make_unique<FakePlan>(shape);
  }
};

}  // namespace

FakeCudnnState& FakeCudnn() {
  static FakeCudnnState fake;
  return fake;
}

absl::StatusOr<std::unique_ptr<CudnnApi>> OpenCudnn() {
  if (!FakeCudnn().open.ok()) return FakeCudnn().open;
  return std::make_unique<FakeApi>();
}

}  // namespace annulus::kernels::cuda
