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

HWY_BEFORE_NAMESPACE();
namespace annulus::kernels::cpu {
namespace HWY_NAMESPACE {

// Whether the native products fit the groups and panels of this instruction set.
inline constexpr bool kHasNativeBf16 =
    kMicroRows == kNativePairRows && kPanelWidth == kNativeBf16Panel;
inline constexpr bool kHasBf16Arithmetic =
    HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128;

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

// Runs the body with products of bfloat16 if the mode asks for them; false, and nothing is done,
// if not. `all_bf16`: all operands are bfloat16.
template <typename Body>
HWY_INLINE bool WithBf16Arithmetic(Pass pass, bool all_bf16, const Body& body) {
  if (!all_bf16 && !SplitsFloat32(pass)) return false;
  using PairInputs = WholeInputs<PairForm::kStep>;
  using TileInputs = WholeInputs<TileForm::kStep>;
  if constexpr (kHasBf16Arithmetic) {
    const ProductMode mode = CurrentProductMode();
    if (mode == ProductMode::kEmulatedPairs) {
      return all_bf16 && WithEmulatedBf16<PairForm, PairInputs>(body);
    }
    if (mode == ProductMode::kEmulatedTiles) {
      return all_bf16 ? WithEmulatedBf16<TileForm, TileInputs>(body)
                      : WithEmulatedBf16<TileForm, SplitInputs>(body);
    }
    if constexpr (kHasNativeBf16) {
      const NativeProducts chosen = ChooseNativeProducts();
      if (chosen == NativeProducts::kPairs) {
        return all_bf16 && WithBf16Products<PairForm, PairInputs>(NativeBf16Pairs(), body);
      }
      if (chosen == NativeProducts::kTiles) {
        return all_bf16 ? WithBf16Products<TileForm, TileInputs>(NativeBf16Tiles(), body)
                        : WithBf16Products<TileForm, SplitInputs>(NativeFloat32Tiles(), body);
      }
    }
  }
  return false;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace annulus::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
