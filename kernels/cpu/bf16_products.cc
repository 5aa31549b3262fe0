// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/bf16_products.h"

#include <atomic>

#include "kernels/cpu/processor_habits.h"

namespace annulus::kernels::cpu {
namespace {

std::atomic<Bf16Mode> current_mode{Bf16Mode::kBest};

}  // namespace

Bf16Mode CurrentBf16Mode() { return current_mode.load(std::memory_order_relaxed); }
void SetBf16Mode(Bf16Mode mode) { current_mode.store(mode, std::memory_order_relaxed); }

ChosenBf16 ChooseNativeBf16() {
  switch (CurrentBf16Mode()) {
    case Bf16Mode::kBest: {
      const Bf16Products* tiles = NativeBf16Tiles();
      if (tiles != nullptr) return {nullptr, tiles};
      return {MultipliesPairsFast() ? NativeBf16Pairs() : nullptr, nullptr};
    }
    case Bf16Mode::kPairs:
      return {NativeBf16Pairs(), nullptr};
    case Bf16Mode::kTiles:
      return {nullptr, NativeBf16Tiles()};
    default:
      return {};
  }
}

const char* NativeBf16Name() {
  const ChosenBf16 chosen = ChooseNativeBf16();
  if (chosen.tiles != nullptr) return " with AMX";
  return chosen.pairs != nullptr ? " with AVX512_BF16" : "";
}

}  // namespace annulus::kernels::cpu
