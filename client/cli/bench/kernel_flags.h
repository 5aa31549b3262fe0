// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cli/bench/kernel_bench.h"
#include "client/cli/flags.h"

namespace annulus::cli::bench {

// The flags of `bench kernels`; what is a list is measured in every combination.
struct KernelFlags {
  std::vector<int64_t> seq_length = {2048, 8192};
  std::optional<int64_t> kv_seq_length;
  std::vector<int> head_dim = {64, 128};
  int num_heads = 4;
  std::vector<int> num_kv_heads;  // empty: num_heads
  int64_t batch_size = 1;
  std::vector<std::string> dtype = {"f32"};
  std::vector<std::string> mask = {"full", "causal"};
  std::vector<std::string> direction = {"forward", "backward"};
  std::vector<int> threads = {1};
  int rounds = 5;
  std::string min_time = "20ms";
  uint64_t seed = 0;
  std::string compute_plugin = "cpu";
  std::string compute_provider;  // "": the fastest
  std::string output;
  Format format = Format::kText;
};

void AddKernelFlags(CLI::App* app, KernelFlags* flags);
// Errors are usage errors that name the flag.
absl::StatusOr<KernelBenchOptions> KernelOptionsFromFlags(const KernelFlags& flags);

}  // namespace annulus::cli::bench
