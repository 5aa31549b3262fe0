// SPDX-License-Identifier: Apache-2.0
#pragma once

// A random attention problem with memory of its own, and a device to run it on: what the kernel
// tests share.

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/compute_plugin.h"
#include "kernels/reference/reference.h"

namespace annulus::kernels {

struct Shape {
  int64_t batch = 1;
  int64_t q_rows = 64;
  int64_t kv_rows = 64;
  int64_t q_heads = 2;
  int64_t kv_heads = 1;
  int64_t head_dim = 64;
  annulusDtype dtype = ANNULUS_F32;
  annulusMask mask = {ANNULUS_MASK_FULL, 0, -1};
  float scale = 0.0f;  // 0: 1 / sqrt(head_dim)
};

inline annulusMask Causal(int64_t offset, int64_t window_left = -1) {
  return {ANNULUS_MASK_CAUSAL, offset, window_left};
}
inline annulusMask Full(int64_t window_left = -1) { return {ANNULUS_MASK_FULL, 0, window_left}; }

// Inputs drawn from N(0, 1) and rounded to the dtype; (o, lse) the identity; gradients zero.
// Spans start as one over all rows at position = row.
class AttentionCase {
 public:
  explicit AttentionCase(const Shape& shape, uint32_t seed = 1);

  annulusTensor q(), k(), v(), d_o(), o(), dq(), dk(), dv();
  annulusRowStat lse(), delta();
  annulusAttendArgs Args();
  annulusAttendBackwardArgs BackwardArgs();
  ReferenceInputs Inputs();

  // Overwrites head_dim elements of a row of one of the inputs above.
  static void FillRow(const annulusTensor& tensor, int64_t batch, int64_t row, int64_t head,
                      float value);

  Shape shape;
  float scale;
  std::vector<annulusSpan> q_spans;
  std::vector<annulusSpan> kv_spans;
  std::vector<uint8_t> q_data, k_data, v_data, do_data;
  std::vector<float> o_data, lse_data, delta_data, dq_data, dk_data, dv_data;
};

// A plugin opened with a number of threads, and a stream of it, for cases in memory that the device
// and the host share; a failed call fails the test with its reason.
class TestDevice {
 public:
  explicit TestDevice(const annulusComputeV1* api, int threads = 1, const char* provider = nullptr,
                      bool deterministic = false);
  ~TestDevice();
  TestDevice(const TestDevice&) = delete;
  TestDevice& operator=(const TestDevice&) = delete;

  const annulusComputeV1& api() const { return *api_; }
  annulusDevice* device() const { return device_; }
  annulusStream* stream() const { return stream_; }

  void Attend(AttentionCase& c) { Attend(c.Args()); }
  void Attend(const annulusAttendArgs& args);
  // Prepares delta from the case's (o, lse), which must be final, then runs the backward pass.
  void AttendBackward(AttentionCase& c);
  void Check(annulusComputeStatus status) const;

 private:
  const annulusComputeV1* api_;
  annulusDevice* device_ = nullptr;
  annulusStream* stream_ = nullptr;
};

class CpuDevice : public TestDevice {
 public:
  explicit CpuDevice(int threads = 1, const char* provider = nullptr);
};

// Compares o and lse of the case with the reference, within the gates of the dtype. A bf16 or f16
// case has its o rounded to that dtype first, as a caller would receive it. `slack` multiplies the
// gates, for a device that rounds what it adds up.
void ExpectForwardMatches(AttentionCase& c, double slack = 1.0);
// The same as they were left, in float32, whatever the dtype of the inputs: within the gates of
// float32.
void ExpectFloat32Forward(AttentionCase& c);
// Compares dq, dk and dv.
void ExpectGradientsMatch(AttentionCase& c, double slack = 1.0);
void ExpectFloat32Gradients(AttentionCase& c);

// Cuts spans at random places into up to `pieces` lists; every token is in exactly one.
std::vector<std::vector<annulusSpan>> SplitSpans(const std::vector<annulusSpan>& spans, int pieces,
                                                 std::mt19937* rng);

// Rows in order, positions 0, 1, ... dealt out as a zigzag shard holds them: the first and the last
// of 2 * ranks chunks and so on, here all chunks of all ranks after one another.
std::vector<annulusSpan> ZigzagSpans(int64_t rows, int64_t ranks);
// Rows in order hold positions 0, ranks, 2 ranks, ..., then 1, ranks + 1, ...: striped shards.
std::vector<annulusSpan> StripedSpans(int64_t rows, int64_t ranks);

}  // namespace annulus::kernels
