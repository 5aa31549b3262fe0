// SPDX-License-Identifier: Apache-2.0
// Spans cut into tiles, masks of tiles, and the units of a grid, against brute force.
#include "kernels/cuda/tile_schedule.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <tuple>

#include "kernels/cuda/launch_plan.h"

namespace annulus::kernels::cuda {
namespace {

std::vector<annulusSpan> RandomSpans(std::mt19937& rng, int spans_max) {
  std::vector<annulusSpan> spans;
  for (int64_t i = rng() % (spans_max + 1); i > 0; --i) {
    spans.push_back({static_cast<int64_t>(rng() % 1000), static_cast<int64_t>(rng() % 90),
                     static_cast<int64_t>(rng() % 2000) - 1000,
                     1 + static_cast<int64_t>(rng() % 3)});
  }
  return spans;
}

annulusMask RandomMask(std::mt19937& rng) {
  return {rng() % 2 == 0 ? ANNULUS_MASK_FULL : ANNULUS_MASK_CAUSAL,
          static_cast<int64_t>(rng() % 200) - 100,
          rng() % 2 == 0 ? -1 : static_cast<int64_t>(rng() % 150)};
}

bool Sees(const annulusMask& mask, int64_t query, int64_t key) {
  const int64_t last = query + mask.causal_offset;
  return (mask.kind == ANNULUS_MASK_FULL || key <= last) &&
         (mask.window_left < 0 || key >= last - mask.window_left);
}

Tile RandomTile(std::mt19937& rng) {
  return {0, static_cast<int64_t>(rng() % 300) - 150, 1 + static_cast<int64_t>(rng() % 5),
          1 + static_cast<int32_t>(rng() % 64)};
}

TEST(TileSchedule, EveryRowIsInOneTile) {
  std::mt19937 rng(1);
  for (int trial = 0; trial < 300; ++trial) {
    const std::vector<annulusSpan> spans = RandomSpans(rng, 100);
    const int tile_rows = 1 << (4 + trial % 3);
    std::vector<std::pair<int64_t, int64_t>> want, got;  // (row, position)
    for (const annulusSpan& span : spans) {
      for (int64_t i = 0; i < span.count; ++i) {
        want.emplace_back(span.row + i, span.position + i * span.stride);
      }
    }
    for (const SegmentList& list : SegmentLists(spans.data(), spans.size(), tile_rows)) {
      EXPECT_LE(list.count, kSegmentsMax);
      for (int64_t n = 0; n < list.tiles; ++n) {
        const Tile tile = TileAt(list, n);
        ASSERT_GE(tile.rows, 1);
        ASSERT_LE(tile.rows, tile_rows);
        for (int64_t i = 0; i < tile.rows; ++i) {
          got.emplace_back(tile.row + i, tile.PositionOf(i));
        }
      }
    }
    ASSERT_EQ(got, want);
  }
}

TEST(TileSchedule, VisibleRowsAreThoseThatTheMaskAllows) {
  std::mt19937 rng(2);
  for (int trial = 0; trial < 20000; ++trial) {
    const annulusMask mask = RandomMask(rng);
    const Tile tile = RandomTile(rng);
    const int64_t other = static_cast<int64_t>(rng() % 500) - 250;
    const Interval keys = VisibleKeys(mask, other, tile);
    const Interval queries = VisibleQueries(mask, other, tile);
    for (int32_t i = 0; i < tile.rows; ++i) {
      ASSERT_EQ(keys.Holds(i), Sees(mask, other, tile.PositionOf(i))) << trial;
      ASSERT_EQ(queries.Holds(i), Sees(mask, tile.PositionOf(i), other)) << trial;
    }
    ASSERT_TRUE(keys.begin >= 0 && keys.end <= tile.rows);
    ASSERT_TRUE(queries.begin >= 0 && queries.end <= tile.rows);
  }
}

TEST(TileSchedule, OnlyTilesThatSeeNothingAreLeftOut) {
  std::mt19937 rng(3);
  int left_out = 0;
  for (int trial = 0; trial < 3000; ++trial) {
    const annulusMask mask = RandomMask(rng);
    Tile queries = RandomTile(rng);
    Tile keys = RandomTile(rng);
    if (trial % 2 == 0) queries.stride = keys.stride = 1;
    bool any = false;
    for (int64_t i = 0; i < queries.rows; ++i) {
      for (int64_t j = 0; j < keys.rows; ++j) {
        any = any || Sees(mask, queries.PositionOf(i), keys.PositionOf(j));
      }
    }
    const bool nothing = SeesNothing(mask, queries, keys);
    ASSERT_FALSE(nothing && any) << trial;
    // Of tiles without gaps every empty one is found.
    if (trial % 2 == 0) {
      ASSERT_EQ(nothing, !any) << trial;
    }
    left_out += nothing;
  }
  EXPECT_GT(left_out, 300);
}

TEST(TileSchedule, ExtremePositionsDoNotOverflow) {
  const int64_t far = int64_t{1} << 48;
  for (const int64_t position : {-far, far - 64}) {
    const Tile tile = {0, position, 1, 64};
    EXPECT_EQ(VisibleKeys({ANNULUS_MASK_CAUSAL, far, 0}, position - far + 10, tile).end, 11);
    EXPECT_EQ(VisibleKeys({ANNULUS_MASK_FULL, far, -1}, position, tile).end, 64);
    EXPECT_EQ(VisibleQueries({ANNULUS_MASK_CAUSAL, -far, -1}, position - far + 10, tile).begin, 10);
  }
}

TEST(TileSchedule, UnitsOfAGridAreEachOnce) {
  std::set<std::tuple<int64_t, int64_t, int64_t>> seen;
  for (int64_t block = 0; block < 5 * 3 * 2; ++block) {
    const WorkUnit unit = UnitOfBlock(block, 3, 2);
    EXPECT_TRUE(unit.tile < 5 && unit.head < 3 && unit.batch < 2);
    EXPECT_TRUE(seen.emplace(unit.tile, unit.head, unit.batch).second);
  }
}

// Over all launches of a call: each pair of a query tile and a key tile is walked once by the
// kernels of the queries and once by those of the keys.
TEST(LaunchPlan, EveryPairOfRowsIsWalkedOnce) {
  std::mt19937 rng(4);
  for (int trial = 0; trial < 20; ++trial) {
    const std::vector<annulusSpan> q_spans = RandomSpans(rng, 50);
    const std::vector<annulusSpan> kv_spans = RandomSpans(rng, 80);
    annulusAttendBackwardArgs args = {};
    args.q.batch = args.k.batch = 2;
    args.q.heads = 6;
    args.k.heads = 3;
    args.q.head_dim = 40 + 60 * (trial % 3);
    args.q_spans = q_spans.data();
    args.q_span_count = q_spans.size();
    args.kv_spans = kv_spans.data();
    args.kv_span_count = kv_spans.size();
    std::map<std::pair<KernelId, const char*>, int64_t> pairs;
    const auto launches = PlanAttendBackward(args);
    ASSERT_TRUE(launches.ok());
    for (const PlannedLaunch<BackwardParams>& launch : *launches) {
      int64_t q_rows = 0;
      int64_t kv_rows = 0;
      for (int64_t n = 0; n < launch.params.q_segments.tiles; ++n) {
        q_rows += TileAt(launch.params.q_segments, n).rows;
      }
      for (int64_t n = 0; n < launch.params.kv_segments.tiles; ++n) {
        kv_rows += TileAt(launch.params.kv_segments, n).rows;
      }
      const char* name = ShapeOf(launch.kernel).name;
      pairs[{launch.kernel, name}] += q_rows * kv_rows;
      const bool of_queries = std::string(name).find("query") == 0;
      EXPECT_EQ(launch.blocks, of_queries ? launch.params.q_segments.tiles * 6 * 2
                                          : launch.params.kv_segments.tiles * 3 * 2);
      EXPECT_EQ(launch.params.q_segments.tile_rows, ShapeOf(launch.kernel).tile_rows);
    }
    int64_t q_rows = 0;
    int64_t kv_rows = 0;
    for (const annulusSpan& span : q_spans) q_rows += span.count;
    for (const annulusSpan& span : kv_spans) kv_rows += span.count;
    for (const auto& [kernel, count] : pairs) EXPECT_EQ(count, q_rows * kv_rows) << kernel.second;
    EXPECT_EQ(pairs.size(), q_rows * kv_rows > 0 ? 2u : 0u);
  }
}

TEST(LaunchPlan, TooLargeAGridIsRefused) {
  annulusAttendArgs args = {};
  const annulusSpan span = {0, int64_t{1} << 40, 0, 1};
  args.q.batch = args.k.batch = 1;
  args.q.heads = args.k.heads = 1;
  args.q.head_dim = 64;
  args.q_spans = args.kv_spans = &span;
  args.q_span_count = args.kv_span_count = 1;
  EXPECT_EQ(PlanAttend(args).status().code(), absl::StatusCode::kInvalidArgument);
  annulusTensor huge = {};
  huge.batch = huge.rows = int64_t{1} << 40;
  huge.heads = 1;
  EXPECT_EQ(BlocksForRows(huge).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(BlocksForElements(int64_t{1} << 50).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace annulus::kernels::cuda
