// SPDX-License-Identifier: Apache-2.0
// Token-to-row mapping against the plainest possible one: a table of every row.

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <numeric>
#include <set>
#include <tuple>
#include <vector>

#include "server/worker/row_runs.h"

namespace annulus::worker {
namespace {

std::vector<int64_t> TokensOf(const ring::TokenRanges& ranges) {
  std::vector<int64_t> tokens;
  for (const ring::TokenRange& range : ranges) {
    for (int64_t token = range.begin; token < range.end; token += range.stride) {
      tokens.push_back(token);
    }
  }
  return tokens;
}

// Ranges that name each of a random subset of [0, length) once, in a random order.
ring::TokenRanges Layout(int64_t length, bool all) {
  const auto chunks = *rc::gen::inRange<int64_t>(1, 6);
  ring::TokenRanges ranges;
  int64_t begin = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int64_t end =
        chunk + 1 == chunks ? length : *rc::gen::inRange<int64_t>(begin, length + 1);
    const auto stride = *rc::gen::inRange<int64_t>(1, 5);
    for (int64_t phase = 0; phase < stride && begin + phase < end; ++phase) {
      ranges.push_back({begin + phase, end, stride});
    }
    begin = end;
  }
  for (size_t i = ranges.size(); i > 1; --i) {
    std::swap(ranges[i - 1], ranges[*rc::gen::inRange<size_t>(0, i)]);
  }
  if (!all) ranges.resize(*rc::gen::inRange<size_t>(0, ranges.size() + 1));
  return ranges;
}

using Item = std::vector<int64_t>;  // token, row in each tensor

std::multiset<Item> Expected(const ring::TokenRanges& wanted,
                             const std::vector<ring::TokenRanges>& layouts) {
  std::multiset<Item> items;
  for (const int64_t token : TokensOf(wanted)) {
    Item item{token};
    for (const ring::TokenRanges& layout : layouts) {
      const std::vector<int64_t> rows = TokensOf(layout);
      item.push_back(std::find(rows.begin(), rows.end(), token) - rows.begin());
    }
    items.insert(item);
  }
  return items;
}

TEST(RowRunsProperty, RunsAndGroupsNameTheRowsOfATable) {
  EXPECT_TRUE(rc::check([] {
    const auto length = *rc::gen::inRange<int64_t>(1, 60);
    const auto tensors = *rc::gen::inRange<size_t>(1, kJointTensorsMax + 1);
    std::vector<ring::TokenRanges> layouts;
    std::vector<const ring::TokenRanges*> pointers;
    for (size_t t = 0; t < tensors; ++t) layouts.push_back(Layout(length, true));
    for (const auto& layout : layouts) pointers.push_back(&layout);
    const ring::TokenRanges wanted = Layout(length, false);
    const auto want = Expected(wanted, layouts);

    const auto runs = LocateRuns(wanted, pointers);
    RC_ASSERT(runs.ok());
    std::multiset<Item> from_runs;
    std::vector<int64_t> order;
    for (const RowRun& run : *runs) {
      for (int64_t i = 0; i < run.count; ++i) {
        Item item{run.position + i * run.stride};
        order.push_back(item[0]);
        for (size_t t = 0; t < tensors; ++t) {
          item.push_back(run.in[t].row + i * run.in[t].row_step);
        }
        from_runs.insert(item);
      }
    }
    RC_ASSERT(from_runs == want);
    RC_ASSERT(order == TokensOf(wanted));

    std::multiset<Item> from_groups;
    for (const RunGroup& group : GroupRuns(*runs, tensors)) {
      for (const annulusSpan& span : group.spans) {
        RC_ASSERT(span.row >= 0);
        RC_ASSERT(span.row + span.count <= group.rows);
        for (int64_t i = 0; i < span.count; ++i) {
          Item item{span.position + i * span.stride};
          for (size_t t = 0; t < tensors; ++t) {
            item.push_back(group.view[t].row + (span.row + i) * group.view[t].row_step);
          }
          from_groups.insert(item);
        }
      }
    }
    RC_ASSERT(from_groups == want);
  }));
}

TEST(RowRunsProperty, AMissingTokenIsAnError) {
  EXPECT_TRUE(rc::check([] {
    const auto length = *rc::gen::inRange<int64_t>(1, 40);
    const ring::TokenRanges layout = Layout(length, false);
    const ring::TokenRanges wanted = Layout(length, false);
    const auto held = TokensOf(layout);
    const auto tokens = TokensOf(wanted);
    const bool all = std::all_of(tokens.begin(), tokens.end(), [&](int64_t token) {
      return std::find(held.begin(), held.end(), token) != held.end();
    });
    const ring::TokenRanges* layouts[] = {&layout};
    RC_ASSERT(LocateRuns(wanted, layouts).ok() == all);
  }));
}

TEST(RowRunsProperty, AWholeSequenceInPlaceIsOneGroupWhateverTheLayout) {
  const ring::TokenRanges whole = {{0, 1000, 1}};
  const ring::TokenRanges* layouts[] = {&whole, &whole, &whole};
  for (const ring::TokenRanges& shard :
       {ring::TokenRanges{{100, 200, 1}}, ring::TokenRanges{{100, 200, 1}, {800, 900, 1}},
        ring::TokenRanges{{3, 1000, 8}}}) {
    const auto runs = LocateRuns(shard, layouts);
    ASSERT_TRUE(runs.ok());
    EXPECT_EQ(GroupRuns(*runs, 3).size(), 1u);
  }
}

}  // namespace
}  // namespace annulus::worker
