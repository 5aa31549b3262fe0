// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/cudnn/graph_builder.h"

#include <utility>

namespace annulus::kernels::cuda {
namespace {

constexpr int64_t kAlignmentBytes = 16;

}  // namespace

cudnnBackendDescriptor_t GraphBuilder::Keep(Descriptor descriptor, std::deque<Descriptor>* where) {
  if (status_.ok()) status_ = descriptor.status();
  where->push_back(std::move(descriptor));
  return where->back().raw();
}

GraphBuilder::Tensor GraphBuilder::Add(Descriptor tensor, int64_t id, cudnnDataType_t type,
                                       const Dims& dims, const Dims& strides) {
  tensor.Set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, id);
  tensor.Set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, type);
  tensor.Set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, kAlignmentBytes);
  tensor.Set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64,
             std::vector<int64_t>(dims.begin(), dims.end()));
  tensor.Set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64,
             std::vector<int64_t>(strides.begin(), strides.end()));
  tensor.Finalize("tensor");
  return {Keep(std::move(tensor), &parts_), dims, strides};
}

GraphBuilder::Tensor GraphBuilder::Memory(int64_t id, cudnnDataType_t type, const Dims& dims,
                                          const Dims& strides) {
  return Add(Descriptor(library_, CUDNN_BACKEND_TENSOR_DESCRIPTOR), id, type, dims, strides);
}

GraphBuilder::Tensor GraphBuilder::Scalar(int64_t id) {
  Descriptor tensor(library_, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  tensor.Set(CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, true);
  return Add(std::move(tensor), id, CUDNN_DATA_FLOAT, {1, 1, 1, 1}, {1, 1, 1, 1});
}

GraphBuilder::Tensor GraphBuilder::Virtual(cudnnDataType_t type, const Dims& dims) {
  Descriptor tensor(library_, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  tensor.Set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, true);
  return Add(std::move(tensor), next_id_++, type, dims, PackedStrides(dims));
}

void GraphBuilder::Matmul(const Tensor& a, const Tensor& b, const Tensor& c) {
  Descriptor matmul(library_, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
  matmul.Set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
  matmul.Finalize("matmul");
  Descriptor operation(library_, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
  operation.Set(CUDNN_ATTR_OPERATION_MATMUL_ADESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, a.raw);
  operation.Set(CUDNN_ATTR_OPERATION_MATMUL_BDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, b.raw);
  operation.Set(CUDNN_ATTR_OPERATION_MATMUL_CDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, c.raw);
  operation.Set(CUDNN_ATTR_OPERATION_MATMUL_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                Keep(std::move(matmul), &parts_));
  operation.Finalize("matmul operation");
  Keep(std::move(operation), &operations_);
}

GraphBuilder::Tensor GraphBuilder::Matmul(const Tensor& a, const Tensor& b, const Dims& dims) {
  const Tensor c = Virtual(CUDNN_DATA_FLOAT, dims);
  Matmul(a, b, c);
  return c;
}

Descriptor GraphBuilder::PointwiseMode(cudnnPointwiseMode_t mode, cudnnDataType_t type) {
  Descriptor pointwise(library_, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  pointwise.Set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, mode);
  pointwise.Set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, type);
  return pointwise;
}

void GraphBuilder::AddPointwise(Descriptor mode, const Tensor& a, const Tensor* b,
                                const Tensor* choice, const Tensor& c) {
  mode.Finalize("pointwise");
  Descriptor operation(library_, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  operation.Set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                Keep(std::move(mode), &parts_));
  operation.Set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, a.raw);
  if (b != nullptr) {
    operation.Set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, b->raw);
  }
  if (choice != nullptr) {
    operation.Set(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, choice->raw);
  }
  operation.Set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, c.raw);
  operation.Finalize("pointwise operation");
  Keep(std::move(operation), &operations_);
}

void GraphBuilder::Pointwise(cudnnPointwiseMode_t mode, const Tensor& a, const Tensor* b,
                             const Tensor& c) {
  AddPointwise(PointwiseMode(mode, CUDNN_DATA_FLOAT), a, b, nullptr, c);
}

GraphBuilder::Tensor GraphBuilder::Pointwise(cudnnPointwiseMode_t mode, const Tensor& a) {
  const Tensor c = Virtual(CUDNN_DATA_FLOAT, a.dims);
  Pointwise(mode, a, nullptr, c);
  return c;
}

GraphBuilder::Tensor GraphBuilder::Pointwise(cudnnPointwiseMode_t mode, const Tensor& a,
                                             const Tensor& b) {
  const Tensor c = Virtual(CUDNN_DATA_FLOAT, a.dims);
  Pointwise(mode, a, &b, c);
  return c;
}

void GraphBuilder::Reduce(cudnnReduceTensorOp_t mode, const Tensor& a, const Tensor& c) {
  Descriptor reduction(library_, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
  reduction.Set(CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, mode);
  reduction.Set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
  reduction.Finalize("reduction");
  Descriptor operation(library_, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
  operation.Set(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, a.raw);
  operation.Set(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, c.raw);
  operation.Set(CUDNN_ATTR_OPERATION_REDUCTION_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                Keep(std::move(reduction), &parts_));
  operation.Finalize("reduction operation");
  Keep(std::move(operation), &operations_);
}

GraphBuilder::Tensor GraphBuilder::Reduce(cudnnReduceTensorOp_t mode, const Tensor& a,
                                          const Dims& dims) {
  const Tensor c = Virtual(CUDNN_DATA_FLOAT, dims);
  Reduce(mode, a, c);
  return c;
}

GraphBuilder::Tensor GraphBuilder::Transpose(const Tensor& a, cudnnDataType_t type) {
  Descriptor tensor(library_, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  tensor.Set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, true);
  const Tensor c =
      Add(std::move(tensor), next_id_++, type, {a.dims[0], a.dims[1], a.dims[3], a.dims[2]},
          {a.strides[0], a.strides[1], a.strides[3], a.strides[2]});
  Descriptor operation(library_, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
  operation.Set(CUDNN_ATTR_OPERATION_RESHAPE_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, a.raw);
  operation.Set(CUDNN_ATTR_OPERATION_RESHAPE_YDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, c.raw);
  operation.Finalize("reshape operation");
  Keep(std::move(operation), &operations_);
  return c;
}

GraphBuilder::Tensor GraphBuilder::Index(const Tensor& like, int64_t axis) {
  Descriptor mode = PointwiseMode(CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_FLOAT);
  mode.Set(CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, axis);
  const Tensor index = Virtual(CUDNN_DATA_INT32, like.dims);
  AddPointwise(std::move(mode), like, nullptr, nullptr, index);
  return index;
}

GraphBuilder::Tensor GraphBuilder::CausalMask(const Tensor& a, const Tensor& masked) {
  const Tensor row = Index(a, 2);
  const Tensor column = Index(a, 3);
  const Tensor visible = Virtual(CUDNN_DATA_BOOLEAN, a.dims);
  AddPointwise(PointwiseMode(CUDNN_POINTWISE_CMP_GE, CUDNN_DATA_BOOLEAN), row, &column, nullptr,
               visible);
  const Tensor c = Virtual(CUDNN_DATA_FLOAT, a.dims);
  AddPointwise(PointwiseMode(CUDNN_POINTWISE_BINARY_SELECT, CUDNN_DATA_FLOAT), a, &masked, &visible,
               c);
  return c;
}

}  // namespace annulus::kernels::cuda
