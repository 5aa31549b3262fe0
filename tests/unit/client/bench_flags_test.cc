// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/bench/kernel_flags.h"
#include "client/cli/exit_code.h"

namespace annulus::cli::bench {
namespace {

using testing::HasSubstr;

TEST(KernelFlags, ListsAreMultiplied) {
  KernelFlags flags;
  flags.seq_length = {16, 32, 48};
  flags.num_kv_heads = {4, 1};
  flags.dtype = {"f32", "bf16"};
  flags.threads = {1, 2};
  const auto options = KernelOptionsFromFlags(flags);
  ASSERT_TRUE(options.ok()) << options.status();
  std::set<std::string> names;
  for (const AttentionShape& shape : options->shapes) {
    const Problem& p = shape.problem;
    EXPECT_EQ(p.kv_length, p.query_length);
    names.insert(absl::StrCat(p.query_length, "/", p.kv_heads, "/", DataTypeName(p.dtype), "/",
                              p.head_dim, "/", static_cast<int>(shape.mask.kind)));
  }
  EXPECT_EQ(names.size(), 3 * 2 * 2 * 2 * 2) << "two head sizes and two masks by default";
  EXPECT_EQ(options->shapes.size(), names.size());
  EXPECT_EQ(options->directions.size(), 2u);
  EXPECT_EQ(options->threads, (std::vector<int>{1, 2}));
  EXPECT_TRUE(options->backward());
}

TEST(KernelFlags, KvLengthAndHeadsByDefault) {
  KernelFlags flags;
  flags.seq_length = {1};
  flags.kv_seq_length = 4096;
  flags.direction = {"forward"};
  const auto options = KernelOptionsFromFlags(flags);
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_FALSE(options->backward());
  for (const AttentionShape& shape : options->shapes) {
    EXPECT_EQ(shape.problem.query_length, 1);
    EXPECT_EQ(shape.problem.kv_length, 4096);
    EXPECT_EQ(shape.problem.kv_heads, flags.num_heads);
  }
}

TEST(KernelFlags, BadValuesAreNamed) {
  const std::pair<const char*, void (*)(KernelFlags*)> bad[] = {
      {"--seq-length: expected each value once, got 64 twice",
       [](KernelFlags* f) {
         f->seq_length = {64, 32, 64};
       }},
      {"--num-kv-heads 3",
       [](KernelFlags* f) {
         f->num_kv_heads = {1, 3};
       }},
      {"--head-dim 20",
       [](KernelFlags* f) {
         f->head_dim = {64, 20};
       }},
      {"--dtype: expected f32, bf16 or f16, got \"f8\"", [](KernelFlags* f) { f->dtype = {"f8"}; }},
      {"--cp-attention-mask-type", [](KernelFlags* f) { f->mask = {"diagonal"}; }},
      {"--direction", [](KernelFlags* f) { f->direction = {"sideways"}; }},
      {"--min-time", [](KernelFlags* f) { f->min_time = "soon"; }},
      {"--seq-length 1099511627776 need", [](KernelFlags* f) { f->seq_length = {1LL << 40}; }},
  };
  for (const auto& [message, spoil] : bad) {
    KernelFlags flags;
    spoil(&flags);
    const auto options = KernelOptionsFromFlags(flags);
    EXPECT_EQ(ExitCodeFor(options.status()), kUsage) << message;
    EXPECT_THAT(std::string(options.status().message()), HasSubstr(message));
  }
}

}  // namespace
}  // namespace annulus::cli::bench
