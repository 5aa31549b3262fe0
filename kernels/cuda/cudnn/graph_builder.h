// SPDX-License-Identifier: Apache-2.0
#pragma once

// A cuDNN operation graph, written as expressions: each operation takes tensors and returns one.
// Tensors have four dimensions, [batch, head, row, column]. Sums are float32.

#include <array>
#include <cstdint>
#include <deque>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/cudnn/descriptor.h"

namespace annulus::kernels::cuda {

using Dims = std::array<int64_t, 4>;

// Strides of elements that lie without gaps.
inline Dims PackedStrides(const Dims& dims) {
  return {dims[1] * dims[2] * dims[3], dims[2] * dims[3], dims[3], 1};
}

class GraphBuilder {
 public:
  struct Tensor {
    cudnnBackendDescriptor_t raw;
    Dims dims;
    Dims strides;
  };

  explicit GraphBuilder(const CudnnLibrary& library) : library_(library) {}

  // Device memory that Execute names by `id`, 1 .. 99; one float that it names by `id`, in host
  // memory; what lives inside of the graph alone.
  Tensor Memory(int64_t id, cudnnDataType_t type, const Dims& dims, const Dims& strides);
  Tensor Scalar(int64_t id);
  Tensor Virtual(cudnnDataType_t type, const Dims& dims);

  // c = a b; c = mode(a), mode(a, b), all elementwise with b broadcast; c = mode over what c lacks.
  void Matmul(const Tensor& a, const Tensor& b, const Tensor& c);
  void Pointwise(cudnnPointwiseMode_t mode, const Tensor& a, const Tensor* b, const Tensor& c);
  void Reduce(cudnnReduceTensorOp_t mode, const Tensor& a, const Tensor& c);
  // The same into a new float32 tensor of the graph, of a's shape or the given one.
  Tensor Matmul(const Tensor& a, const Tensor& b, const Dims& dims);
  Tensor Pointwise(cudnnPointwiseMode_t mode, const Tensor& a);
  Tensor Pointwise(cudnnPointwiseMode_t mode, const Tensor& a, const Tensor& b);
  Tensor Reduce(cudnnReduceTensorOp_t mode, const Tensor& a, const Dims& dims);
  // a with its last two dimensions exchanged: the same elements.
  Tensor Transpose(const Tensor& a, cudnnDataType_t type);
  // a where row >= column, `masked` elsewhere.
  Tensor CausalMask(const Tensor& a, const Tensor& masked);

  // The first failure of a call above.
  const absl::Status& status() const { return status_; }
  const std::deque<Descriptor>& operations() const { return operations_; }

 private:
  Tensor Add(Descriptor tensor, int64_t id, cudnnDataType_t type, const Dims& dims,
             const Dims& strides);
  Tensor Index(const Tensor& like, int64_t axis);
  Descriptor PointwiseMode(cudnnPointwiseMode_t mode, cudnnDataType_t type);
  void AddPointwise(Descriptor mode, const Tensor& a, const Tensor* b, const Tensor* choice,
                    const Tensor& c);
  // Keeps a finalized descriptor alive, and its failure.
  cudnnBackendDescriptor_t Keep(Descriptor descriptor, std::deque<Descriptor>* where);

  const CudnnLibrary& library_;
  absl::Status status_;
  int64_t next_id_ = 100;
  std::deque<Descriptor> parts_;  // tensors, and what operations are configured by
  std::deque<Descriptor> operations_;
};

}  // namespace annulus::kernels::cuda
