// SPDX-License-Identifier: Apache-2.0
#include "client/cli/bench/kernel_flags.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "client/cli/exit_code.h"
#include "server/base/status_macros.h"

namespace annulus::cli::bench {
namespace {

constexpr int64_t kTokensMax = int64_t{1} << 40;

template <typename T>
CLI::Option* AddList(CLI::App* app, const char* name, std::vector<T>* values, const char* help) {
  return app->add_option(name, *values, help)->delimiter(',')->allow_extra_args(false);
}

// A value that stands in a list twice would be measured twice under one name.
template <typename T>
absl::Status CheckDistinct(const char* flag, const std::vector<T>& values) {
  for (auto value = values.begin(); value != values.end(); ++value) {
    if (std::find(values.begin(), value, *value) != value) {
      return UsageError(absl::StrCat(flag, ": expected each value once, got ", *value, " twice"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLists(const KernelFlags& flags) {
  ANNULUS_RETURN_IF_ERROR(CheckDistinct("--seq-length", flags.seq_length));
  ANNULUS_RETURN_IF_ERROR(CheckDistinct("--head-dim", flags.head_dim));
  ANNULUS_RETURN_IF_ERROR(CheckDistinct("--num-kv-heads", flags.num_kv_heads));
  ANNULUS_RETURN_IF_ERROR(CheckDistinct("--dtype", flags.dtype));
  ANNULUS_RETURN_IF_ERROR(CheckDistinct("--cp-attention-mask-type", flags.mask));
  ANNULUS_RETURN_IF_ERROR(CheckDistinct("--direction", flags.direction));
  return CheckDistinct("--threads", flags.threads);
}

// Every combination of what makes a shape, the last list of these the fastest to change.
absl::StatusOr<std::vector<AttentionShape>> Shapes(const KernelFlags& flags, bool backward) {
  const std::vector<int> kv_heads =
      flags.num_kv_heads.empty() ? std::vector<int>{flags.num_heads} : flags.num_kv_heads;
  std::vector<AttentionShape> shapes{{}};
  const auto multiply = [&](const auto& values, const auto& assign) {
    std::vector<AttentionShape> product;
    for (const AttentionShape& shape : shapes) {
      for (const auto& value : values) {
        product.push_back(shape);
        assign(&product.back(), value);
      }
    }
    shapes = std::move(product);
  };
  std::vector<client::DataType> dtypes;
  for (const std::string& text : flags.dtype) {
    ANNULUS_ASSIGN_OR_RETURN(dtypes.emplace_back(), ParseDataType(text));
  }
  std::vector<ring::MaskKind> masks;
  for (const std::string& text : flags.mask) {
    ANNULUS_ASSIGN_OR_RETURN(masks.emplace_back(), ParseMask(text));
  }
  multiply(dtypes, [](AttentionShape* s, client::DataType dtype) { s->problem.dtype = dtype; });
  multiply(flags.head_dim, [](AttentionShape* s, int head_dim) { s->problem.head_dim = head_dim; });
  multiply(kv_heads, [&](AttentionShape* s, int heads) {
    s->problem.batch = flags.batch_size;
    s->problem.query_heads = flags.num_heads;
    s->problem.kv_heads = heads;
  });
  multiply(flags.seq_length, [&](AttentionShape* s, int64_t length) {
    s->problem.query_length = length;
    s->problem.kv_length = flags.kv_seq_length.value_or(length);
  });
  multiply(masks, [](AttentionShape* s, ring::MaskKind kind) { s->mask.kind = kind; });
  for (const AttentionShape& shape : shapes) {
    ANNULUS_RETURN_IF_ERROR(CheckProblem(shape.problem, backward));
  }
  return shapes;
}

}  // namespace

void AddKernelFlags(CLI::App* app, KernelFlags* flags) {
  AddList(app, "--seq-length", &flags->seq_length, "Tokens of Q (default 2048,8192)")
      ->check(CLI::Range(int64_t{1}, kTokensMax));
  app->add_option("--kv-seq-length", flags->kv_seq_length,
                  "Tokens of K and V where they differ, as in decoding")
      ->check(CLI::Range(int64_t{1}, kTokensMax));
  AddList(app, "--head-dim", &flags->head_dim,
          "Head sizes, 16 to 256 in steps of 8 (default 64,128)");
  app->add_option("--num-heads", flags->num_heads, "Query heads (default 4)")
      ->check(CLI::Range(1, 1 << 16));
  AddList(app, "--num-kv-heads", &flags->num_kv_heads,
          "KV heads; each divides the query heads (default the same)")
      ->check(CLI::Range(1, 1 << 16));
  app->add_option("--batch-size", flags->batch_size, "Sequences (default 1)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  AddList(app, "--dtype", &flags->dtype, "f32, bf16, f16 (default f32)");
  AddList(app, "--cp-attention-mask-type", &flags->mask, "full, causal (default both)");
  AddList(app, "--direction", &flags->direction, "forward, backward (default both)");
  AddList(app, "--threads", &flags->threads, "Compute threads (default 1)")
      ->check(CLI::Range(1, 1024));
  app->add_option("--rounds", flags->rounds, "Each case is measured once in each (default 5)")
      ->check(CLI::Range(1, 1000000));
  app->add_option("--min-time", flags->min_time,
                  "Calls are repeated until they took so long together (default 20ms)");
  app->add_option("--seed", flags->seed, "Of the tensors, N(0,1) (default 0)");
  app->add_option("--compute-plugin", flags->compute_plugin,
                  "Name or path of the compute plugin (default cpu)")
      ->envname("ANNULUS_COMPUTE_PLUGIN");
  AddComputeProviderFlag(app, &flags->compute_provider);
  app->add_option("--output", flags->output, "File (default: standard output)");
  AddFormatFlag(app, &flags->format);
}

absl::StatusOr<KernelBenchOptions> KernelOptionsFromFlags(const KernelFlags& flags) {
  ANNULUS_RETURN_IF_ERROR(CheckLists(flags));
  KernelBenchOptions options;
  for (const std::string& text : flags.direction) {
    ANNULUS_ASSIGN_OR_RETURN(options.directions.emplace_back(), ParseDirection(text));
  }
  ANNULUS_ASSIGN_OR_RETURN(options.shapes, Shapes(flags, options.backward()));
  options.threads = flags.threads;
  options.compute_provider = flags.compute_provider;
  options.rounds = flags.rounds;
  const auto min_seconds = ParseSeconds(flags.min_time);
  if (!min_seconds.ok()) return UsageErrorIn("--min-time", min_seconds.status());
  options.min_seconds = *min_seconds;
  options.seed = flags.seed;
  return options;
}

}  // namespace annulus::cli::bench
