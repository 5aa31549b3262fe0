// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "client/cli/bench/kernel_bench.h"

namespace annulus::cli::bench {

// As JSON, schema "annulus.bench.kernels.v1": rates are per second, shares of 1.
std::string KernelJson(const KernelBenchOptions& options, const KernelBenchResult& result);

// A table for people.
std::string KernelText(const KernelBenchOptions& options, const KernelBenchResult& result);

// What the reports of kernels and rings have in common.
std::string ShareText(const Spread& share);  // "81.2 % (79.9 to 82.3)": median, min, max
nlohmann::ordered_json SpreadJson(const Spread& spread);
nlohmann::ordered_json CeilingJson(const CeilingRates& ceiling);

}  // namespace annulus::cli::bench
