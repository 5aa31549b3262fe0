// SPDX-License-Identifier: Apache-2.0

// Which products of bfloat16 operands are multiplied by, if any. Included once per instruction set.
// AVX-512 has them, whose panels the native products have, and plain C++.

#if defined(ANNULUS_KERNELS_CPU_BF16_CHOICE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_KERNELS_CPU_BF16_CHOICE_INL_H_
#undef ANNULUS_KERNELS_CPU_BF16_CHOICE_INL_H_
#else
#define ANNULUS_KERNELS_CPU_BF16_CHOICE_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/cpu/bf16_arithmetic-inl.h"
#include "kernels/cpu/bf16_emulated-inl.h"
#include "kernels/cpu/bf16_inputs-inl.h"
#include "kernels/cpu/bf16_products.h"
#include "kernels/cpu/microkernel-inl.h"
#include "kernels/cpu/multiplier.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {

// Whether the native products fit the groups and panels of this instruction set.
inline constexpr bool kHasNativeBf16 =
    kMicroRows == kNativePairRows && kPanelWidth == kNativeBf16Panel;
inline constexpr bool kHasBf16Arithmetic =
    HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128;

// Whether this instruction set can be multiplied with by it.
HWY_INLINE bool CanMultiplyBy(Multiplier multiplier) {
  switch (multiplier) {
    case Multiplier::kVectors:
      return true;
    case Multiplier::kAmx:
      return kHasNativeBf16 && NativeBf16Tiles() != nullptr;
    case Multiplier::kAvx512Bf16:
      return kHasNativeBf16 && NativeBf16Pairs() != nullptr;
    case Multiplier::kEmulatedAmx:
    case Multiplier::kEmulatedAvx512Bf16:
      return kHasBf16Arithmetic;
  }
  return false;
}

template <class Form, class Inputs, typename Body>
HWY_INLINE bool WithBf16Products(const Bf16Products* products, const Body& body) {
  products->begin();
  body(Bf16Arithmetic<Form, Inputs>{{}, *products});
  products->end();
  return true;
}
template <class Form, class Inputs, typename Body>
HWY_INLINE bool WithEmulatedBf16(const Body& body) {
  return WithBf16Products<Form, Inputs>(&EmulatedBf16Products<Form, Inputs>::kProducts, body);
}

// Runs the body with products of bfloat16 if they are chosen; false, and nothing is done, if not.
template <typename Body>
HWY_INLINE bool WithBf16Arithmetic(const ArithmeticChoice& choice, const Body& body) {
  using PairInputs = WholeInputs<PairForm::kStep>;
  using TileInputs = WholeInputs<TileForm::kStep>;
  if constexpr (kHasBf16Arithmetic) {
    if (choice.multiplier == Multiplier::kEmulatedAvx512Bf16) {
      return choice.all_bf16 && WithEmulatedBf16<PairForm, PairInputs>(body);
    }
    if (choice.multiplier == Multiplier::kEmulatedAmx) {
      return choice.all_bf16 ? WithEmulatedBf16<TileForm, TileInputs>(body)
                             : WithEmulatedBf16<TileForm, SplitInputs>(body);
    }
  }
  if constexpr (kHasNativeBf16) {
    if (choice.multiplier == Multiplier::kAvx512Bf16) {
      return choice.all_bf16 && WithBf16Products<PairForm, PairInputs>(NativeBf16Pairs(), body);
    }
    if (choice.multiplier == Multiplier::kAmx) {
      return choice.all_bf16 ? WithBf16Products<TileForm, TileInputs>(NativeBf16Tiles(), body)
                             : WithBf16Products<TileForm, SplitInputs>(NativeFloat32Tiles(), body);
    }
  }
  return false;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
