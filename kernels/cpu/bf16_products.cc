// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/bf16_products.h"

#include <atomic>

#include "kernels/cpu/processor_habits.h"

namespace annulus::kernels::cpu {
namespace {

std::atomic<ProductMode> current_mode{ProductMode::kBest};

}  // namespace

ProductMode CurrentProductMode() { return current_mode.load(std::memory_order_relaxed); }
void SetProductMode(ProductMode mode) { current_mode.store(mode, std::memory_order_relaxed); }

NativeProducts ChooseNativeProducts() {
  const bool tiles = NativeBf16Tiles() != nullptr;
  const bool pairs = NativeBf16Pairs() != nullptr;
  switch (CurrentProductMode()) {
    case ProductMode::kBest:
      if (tiles) return NativeProducts::kTiles;
      return pairs && MultipliesPairsFast() ? NativeProducts::kPairs : NativeProducts::kNone;
    case ProductMode::kPairs:
      return pairs ? NativeProducts::kPairs : NativeProducts::kNone;
    case ProductMode::kTiles:
      return tiles ? NativeProducts::kTiles : NativeProducts::kNone;
    default:
      return NativeProducts::kNone;
  }
}

bool SplitsFloat32(Pass pass) {
  return pass == Pass::kForward || CurrentProductMode() != ProductMode::kBest;
}

const char* NativeProductsName() {
  switch (ChooseNativeProducts()) {
    case NativeProducts::kTiles:
      return " with AMX";
    case NativeProducts::kPairs:
      return " with AVX512_BF16";
    default:
      return "";
  }
}

}  // namespace annulus::kernels::cpu
