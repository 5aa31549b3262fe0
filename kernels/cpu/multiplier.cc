// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/multiplier.h"

#include <algorithm>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/cpu/forward_kernel.h"
#include "kernels/cpu/processor_habits.h"

namespace annulus::kernels::cpu {
namespace {

struct Provider {
  absl::string_view name;
  Multiplier multiplier;
  absl::string_view text;
};
constexpr Provider kProviders[] = {
    {"vectors", Multiplier::kVectors, ""},
    {"amx", Multiplier::kAmx, " with AMX"},
    {"avx512_bf16", Multiplier::kAvx512Bf16, " with AVX512_BF16"},
    {"emulated_amx", Multiplier::kEmulatedAmx, " with AMX emulated"},
    {"emulated_avx512_bf16", Multiplier::kEmulatedAvx512Bf16, " with AVX512_BF16 emulated"},
};

std::string Names() {
  return absl::StrJoin(kProviders, ", ", [](std::string* out, const Provider& known) {
    absl::StrAppend(out, "\"", known.name, "\"");
  });
}

Multiplier Fastest() {
  if (RunsMultiplier(Multiplier::kAmx)) return Multiplier::kAmx;
  if (RunsMultiplier(Multiplier::kAvx512Bf16) && MultipliesPairsFast()) {
    return Multiplier::kAvx512Bf16;
  }
  return Multiplier::kVectors;
}

}  // namespace

absl::StatusOr<Multiplier> MultiplierOf(absl::string_view provider) {
  if (provider == "auto") return Fastest();
  for (const Provider& known : kProviders) {
    if (known.name != provider) continue;
    if (RunsMultiplier(known.multiplier)) return known.multiplier;
    return absl::InvalidArgumentError(absl::StrCat(
        "provider \"", provider, "\" does not run here: the processor (", SimdTargetName(),
        "), or the system on it, has no such instructions. \"auto\" is the fastest of ", Names(),
        " that do"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("provider \"", provider, "\", expected \"auto\" or one of ", Names()));
}

absl::string_view MultiplierText(Multiplier multiplier) {
  for (const Provider& known : kProviders) {
    if (known.multiplier == multiplier) return known.text;
  }
  return "";
}

ArithmeticChoice ChooseArithmetic(Multiplier multiplier,
                                  std::initializer_list<annulusDtype> dtypes) {
  const auto is_bf16 = [](annulusDtype dtype) { return dtype == ANNULUS_BF16; };
  return {multiplier, std::all_of(dtypes.begin(), dtypes.end(), is_bf16)};
}

}  // namespace annulus::kernels::cpu
