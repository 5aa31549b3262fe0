// SPDX-License-Identifier: Apache-2.0
#pragma once

// Everything that the provider asks of cuDNN, so that the rest of it runs without the library and
// without a GPU. There are two implementations beside the fake of the tests: library.cc, over the
// library that is found at run time, and no_library.cc, where the headers were not there to build
// it. Which one is there is decided by what is linked.
//
// Not thread safe: the provider takes care that one call runs at a time. The device must be the
// thread's current one (Driver::MakeCurrent).

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/compute_plugin.h"
#include "kernels/cuda/driver.h"

namespace annulus::kernels::cuda {

enum class AttentionPass : int32_t { kForward, kBackward };

// Of [batch, rows, heads, head_dim], in elements; head_dim is contiguous.
struct AttentionStrides {
  int64_t batch, row, head;
  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 sees a comparison with 0 in it
  auto operator<=>(const AttentionStrides&) const = default;
};

// What a plan is made for, and the key that it is kept under. Query i of the piece sees key j:
// always, or, causal, where j <= i. dtype is bf16 or f16 and that of every tensor.
struct AttentionShape {
  AttentionPass pass;
  bool causal;
  annulusDtype dtype;
  int64_t batch, q_rows, kv_rows, query_heads, kv_heads, head_dim;
  AttentionStrides q, k, v;
  AttentionStrides d_o;  // of the backward
  // NOLINTNEXTLINE(modernize-use-nullptr): as above
  auto operator<=>(const AttentionShape&) const = default;
};

// Device addresses, 16-byte aligned.
struct AttentionBuffers {
  const void *q, *k, *v;
  // [batch, q_rows, query_heads, head_dim] without gaps. Forward: written; backward: read.
  void* o;
  // Natural-log LSE, [batch, query_heads, q_rows]. Forward: written; backward: read.
  float* stats;
  // Backward. dq is like o; dk and dv are [batch, kv_rows, kv_heads, head_dim] without gaps. They
  // are overwritten.
  const void* d_o;
  void *dq, *dk, *dv;
  void* workspace;
  float softmax_scale;
};

// p_ij = exp(scale q_i . k_j - stats_i) over the visible j, in the backward as in the forward, and
// the backward takes rowsum(do * o) from what it is given as o.
class AttentionPlan {
 public:
  virtual ~AttentionPlan() = default;
  virtual size_t workspace_bytes() const = 0;
  // Enqueues the work. INTERNAL when cuDNN fails.
  virtual absl::Status Execute(const AttentionBuffers& buffers, Driver::Stream stream) = 0;
};

class CudnnApi {
 public:
  virtual ~CudnnApi() = default;
  virtual std::string version() const = 0;  // "9.19.0"
  // Takes tens of milliseconds. INVALID_ARGUMENT: the library has no kernel for the shape, with the
  // shape and cuDNN's words; INTERNAL: it failed. Plans are destroyed before the api.
  virtual absl::StatusOr<std::unique_ptr<AttentionPlan>> Build(const AttentionShape& shape) = 0;
};

// The version that is asked for at least: before it the gradients of a number of keys that is no
// multiple of 128 are wrong.
inline constexpr int kCudnnVersionMin = 91600;

// On the thread's current device. INVALID_ARGUMENT, with what is missing and what to do: built
// without the headers, no library, or one that is too old. INTERNAL: it does not start.
absl::StatusOr<std::unique_ptr<CudnnApi>> OpenCudnn();

}  // namespace annulus::kernels::cuda
