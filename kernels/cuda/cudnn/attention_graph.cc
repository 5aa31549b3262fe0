// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/cudnn/attention_graph.h"

namespace annulus::kernels::cuda {
namespace {

using Tensor = GraphBuilder::Tensor;

// The tensors of a shape, as cuDNN takes them: [batch, head, row, column].
struct Tensors {
  Tensors(const AttentionShape& shape_in, GraphBuilder* graph_in)
      : graph(*graph_in),
        shape(shape_in),
        half(shape.dtype == ANNULUS_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_HALF),
        rows({shape.batch, shape.query_heads, shape.q_rows, shape.head_dim}),
        row_stats({shape.batch, shape.query_heads, shape.q_rows, 1}),
        scores({shape.batch, shape.query_heads, shape.q_rows, shape.kv_rows}) {}

  Tensor Queries(GraphTensor id, const AttentionStrides& strides) {
    return graph.Memory(static_cast<int64_t>(id), half, rows,
                        {strides.batch, strides.head, strides.row, 1});
  }
  Tensor Keys(GraphTensor id, const AttentionStrides& strides) {
    return graph.Memory(static_cast<int64_t>(id), half,
                        {shape.batch, shape.kv_heads, shape.kv_rows, shape.head_dim},
                        {strides.batch, strides.head, strides.row, 1});
  }
  Tensor TransposedKeys(GraphTensor id, const AttentionStrides& strides) {
    return graph.Memory(static_cast<int64_t>(id), half,
                        {shape.batch, shape.kv_heads, shape.head_dim, shape.kv_rows},
                        {strides.batch, strides.head, 1, strides.row});
  }
  Tensor Stats(GraphTensor id) {
    return graph.Memory(static_cast<int64_t>(id), CUDNN_DATA_FLOAT, row_stats,
                        PackedStrides(row_stats));
  }
  Tensor Scalar(GraphTensor id) { return graph.Scalar(static_cast<int64_t>(id)); }

  GraphBuilder& graph;
  const AttentionShape& shape;
  const cudnnDataType_t half;
  const Dims rows, row_stats, scores;
};

// Of [batch, rows, heads, head_dim] without gaps.
AttentionStrides Packed(int64_t rows, int64_t heads, int64_t head_dim) {
  return {rows * heads * head_dim, heads * head_dim, head_dim};
}

void BuildForward(Tensors t) {
  GraphBuilder& g = t.graph;
  const AttentionShape& shape = t.shape;
  const Tensor q = t.Queries(GraphTensor::kQ, shape.q);
  const Tensor k = t.TransposedKeys(GraphTensor::kK, shape.k);
  Tensor s = g.Matmul(q, k, t.scores);
  s = g.Pointwise(CUDNN_POINTWISE_MUL, s, t.Scalar(GraphTensor::kScale));
  if (shape.causal) s = g.CausalMask(s, t.Scalar(GraphTensor::kMasked));

  const Tensor maximum = g.Reduce(CUDNN_REDUCE_TENSOR_MAX, s, t.row_stats);
  const Tensor weights =
      g.Pointwise(CUDNN_POINTWISE_EXP, g.Pointwise(CUDNN_POINTWISE_SUB, s, maximum));
  const Tensor sum = g.Reduce(CUDNN_REDUCE_TENSOR_ADD, weights, t.row_stats);
  const Tensor log_sum = g.Pointwise(CUDNN_POINTWISE_LOG, sum);
  g.Pointwise(CUDNN_POINTWISE_ADD, maximum, &log_sum, t.Stats(GraphTensor::kStats));

  const Tensor p = g.Virtual(t.half, t.scores);
  g.Pointwise(CUDNN_POINTWISE_DIV, weights, &sum, p);
  g.Matmul(p, t.Keys(GraphTensor::kV, shape.v),
           t.Queries(GraphTensor::kO, Packed(shape.q_rows, shape.query_heads, shape.head_dim)));
}

// gradient = transpose(weights) by_row, [key, head_dim], added up over the query heads of a group.
void KeyGradient(Tensors& t, const Tensor& weights, const Tensor& by_row, GraphTensor id) {
  const AttentionShape& shape = t.shape;
  const Tensor gradient = t.Keys(id, Packed(shape.kv_rows, shape.kv_heads, shape.head_dim));
  const Tensor transposed = t.graph.Transpose(weights, t.half);
  if (shape.query_heads == shape.kv_heads) {
    t.graph.Matmul(transposed, by_row, gradient);
    return;
  }
  const Tensor each_head =
      t.graph.Virtual(t.half, {shape.batch, shape.query_heads, shape.kv_rows, shape.head_dim});
  t.graph.Matmul(transposed, by_row, each_head);
  t.graph.Reduce(CUDNN_REDUCE_TENSOR_ADD, each_head, gradient);
}

void BuildBackward(Tensors t) {
  GraphBuilder& g = t.graph;
  const AttentionShape& shape = t.shape;
  const AttentionStrides packed = Packed(shape.q_rows, shape.query_heads, shape.head_dim);
  const Tensor q = t.Queries(GraphTensor::kQ, shape.q);
  const Tensor k = t.TransposedKeys(GraphTensor::kK, shape.k);
  const Tensor v = t.TransposedKeys(GraphTensor::kV, shape.v);
  const Tensor d_o = t.Queries(GraphTensor::kDo, shape.d_o);
  const Tensor scale = t.Scalar(GraphTensor::kScale);

  // delta = rowsum(do * o). The factor is that of dropout: cuDNN looks for it.
  const Tensor products = g.Pointwise(CUDNN_POINTWISE_MUL, d_o, t.Queries(GraphTensor::kO, packed));
  const Tensor row_sums = g.Reduce(CUDNN_REDUCE_TENSOR_ADD, products, t.row_stats);
  const Tensor one = t.Scalar(GraphTensor::kOne);
  const Tensor delta = t.Stats(GraphTensor::kDelta);
  g.Pointwise(CUDNN_POINTWISE_MUL, row_sums, &one, delta);

  // p = exp(s - lse); dv = p^T do.
  Tensor s = g.Pointwise(CUDNN_POINTWISE_MUL, g.Matmul(q, k, t.scores), scale);
  s = g.Pointwise(CUDNN_POINTWISE_SUB, s, t.Stats(GraphTensor::kStats));
  if (shape.causal) s = g.CausalMask(s, t.Scalar(GraphTensor::kMasked));
  const Tensor p = g.Pointwise(CUDNN_POINTWISE_EXP, s);
  KeyGradient(t, p, d_o, GraphTensor::kDv);

  // ds = scale p (do v^T - delta); dk = ds^T q; dq = ds k.
  Tensor ds = g.Pointwise(CUDNN_POINTWISE_SUB, g.Matmul(d_o, v, t.scores), delta);
  ds = g.Pointwise(CUDNN_POINTWISE_MUL, ds, p);
  ds = g.Pointwise(CUDNN_POINTWISE_MUL, ds, scale);
  KeyGradient(t, ds, q, GraphTensor::kDk);
  const Tensor sum = g.Memory(static_cast<int64_t>(GraphTensor::kDqSum), CUDNN_DATA_FLOAT, t.rows,
                              PackedStrides(t.rows));
  g.Matmul(ds, g.Transpose(k, t.half), sum);
  g.Pointwise(CUDNN_POINTWISE_IDENTITY, sum, nullptr, t.Queries(GraphTensor::kDq, packed));
}

}  // namespace

void BuildAttentionGraph(const AttentionShape& shape, GraphBuilder* graph) {
  const Tensors tensors(shape, graph);
  if (shape.pass == AttentionPass::kForward) {
    BuildForward(tensors);
  } else {
    BuildBackward(tensors);
  }
}

}  // namespace annulus::kernels::cuda
