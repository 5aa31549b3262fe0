// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <initializer_list>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/compute_plugin.h"

namespace annulus::kernels::cpu {

// What multiplies matrices: the providers of this plugin (annulusComputeOptions).
enum class Multiplier {
  kVectors,             // "vectors": float32 multiply-adds, for every dtype
  kAmx,                 // "amx": tdpbf16ps, for every dtype, float32 as three bfloat16
  kAvx512Bf16,          // "avx512_bf16": vdpbf16ps where all operands are bfloat16, or vectors
  kEmulatedAmx,         // "emulated_amx": its slow twin in plain C++
  kEmulatedAvx512Bf16,  // "emulated_avx512_bf16"
};

// "auto" is the fastest that this processor has, while nobody else has its matrix unit at work.
// INVALID_ARGUMENT, naming all, for names that are none, and for those that this processor, or the
// system on it, does not run.
absl::StatusOr<Multiplier> MultiplierOf(absl::string_view provider);

// As a device's description goes on after the instruction set: " with AMX", or nothing.
absl::string_view MultiplierText(Multiplier multiplier);

// What the arithmetic of a call is chosen by (arithmetic-inl.h).
struct ArithmeticChoice {
  Multiplier multiplier = Multiplier::kVectors;
  bool all_bf16 = false;  // all inputs of the call are bfloat16
};

// For a call whose inputs have these dtypes.
ArithmeticChoice ChooseArithmetic(Multiplier multiplier,
                                  std::initializer_list<annulusDtype> dtypes);

}  // namespace annulus::kernels::cpu
