// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/kernel_table.h"

#include "kernels/cuda/kernel_params.h"
#include "kernels/cuda/portable/backward.h"
#include "kernels/cuda/portable/forward.h"
#include "kernels/cuda/portable/forward_matrix.h"
#include "kernels/cuda/portable/row_ops.h"
#include "kernels/cuda/sm90/attend_shape.h"
#include "kernels/cuda/sm90/backward_shape.h"

namespace annulus::kernels::cuda {
namespace {

template <int kDim>
constexpr KernelShape PortableAttendShape(const char* name) {
  return {name, kBlockThreads, kAttendSharedFloats<kDim> * sizeof(float), sizeof(AttendParams),
          kTileRows<kDim>};
}

template <int kDim>
constexpr KernelShape AttendMatrixShape(const char* name) {
  return {name, kMatrixThreads, kAttendMatrixSharedBytes<kDim>, sizeof(AttendParams), kMatrixRows};
}

template <int kDim>
constexpr KernelShape PortableBackwardShape(const char* name) {
  return {name, kBlockThreads, kBackwardSharedFloats<kDim> * sizeof(float), sizeof(BackwardParams),
          kTileRows<kDim>};
}

template <int kDim>
constexpr KernelShape AttendHopperShape(const char* name) {
  using Shape = AttendShape<kDim>;
  return {name, Shape::kThreads, Shape::kSharedBytes, sizeof(HopperAttendParams), Shape::kQueries,
          true};
}

template <int kDim>
constexpr KernelShape BackwardHopperShape(const char* name) {
  using Shape = BackwardShape<kDim>;
  return {name, Shape::kThreads, Shape::kSharedBytes, sizeof(HopperBackwardParams), Shape::kQueries,
          true};
}

constexpr KernelShape RowShape(const char* name) {
  return {name, kBlockThreads, 0, sizeof(RowParams), 0};
}

constexpr KernelShape kShapes[kKernelCount] = {
    PortableAttendShape<64>("attend_64"),
    PortableAttendShape<128>("attend_128"),
    PortableAttendShape<256>("attend_256"),
    AttendMatrixShape<64>("attend_matrix_bf16_64"),
    AttendMatrixShape<128>("attend_matrix_bf16_128"),
    AttendMatrixShape<64>("attend_matrix_f16_64"),
    AttendMatrixShape<128>("attend_matrix_f16_128"),
    PortableBackwardShape<64>("query_gradients_64"),
    PortableBackwardShape<128>("query_gradients_128"),
    PortableBackwardShape<256>("query_gradients_256"),
    PortableBackwardShape<64>("key_gradients_64"),
    PortableBackwardShape<128>("key_gradients_128"),
    PortableBackwardShape<256>("key_gradients_256"),
    RowShape("reset"),
    RowShape("row_dots"),
    RowShape("merge"),
    RowShape("convert"),
    {"accumulate", kBlockThreads, 0, sizeof(AccumulateParams), 0},
    AttendHopperShape<64>("attend_hopper_bf16_64"),
    AttendHopperShape<128>("attend_hopper_bf16_128"),
    AttendHopperShape<64>("attend_hopper_f16_64"),
    AttendHopperShape<128>("attend_hopper_f16_128"),
    BackwardHopperShape<64>("backward_hopper_bf16_64"),
    BackwardHopperShape<128>("backward_hopper_bf16_128"),
    BackwardHopperShape<64>("backward_hopper_f16_64"),
    BackwardHopperShape<128>("backward_hopper_f16_128"),
    {"merge_partial", kBlockThreads, 0, sizeof(PartialParams), 0},
    {"backward_inputs", kBlockThreads, 0, sizeof(PartialParams), 0},
    {"add_rows", kBlockThreads, 0, sizeof(PartialParams), 0},
};

}  // namespace

const KernelShape& ShapeOf(KernelId id) { return kShapes[static_cast<int>(id)]; }

}  // namespace annulus::kernels::cuda
