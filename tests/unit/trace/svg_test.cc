// SPDX-License-Identifier: Apache-2.0
#include "client/trace/svg.h"

#include <cstdlib>
#include <regex>
#include <string>
#include <vector>

#include "client/trace/svg_canvas.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace annulus::trace {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

struct Box {
  double x, y, width, height;
};

// The boxes of one class, in the order in which they stand.
std::vector<Box> BoxesOf(const std::string& svg, const std::string& css_class) {
  const std::regex pattern("<rect class=\"" + css_class +
                           "\" x=\"([-0-9.]+)\" y=\"([-0-9.]+)\" width=\"([-0-9.]+)\" "
                           "height=\"([-0-9.]+)\"");
  std::vector<Box> boxes;
  for (std::sregex_iterator it(svg.begin(), svg.end(), pattern), end; it != end; ++it) {
    boxes.push_back(
        {std::stod((*it)[1]), std::stod((*it)[2]), std::stod((*it)[3]), std::stod((*it)[4])});
  }
  return boxes;
}

size_t Count(const std::string& text, const std::string& what) {
  size_t count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

// Tags balance, and no stray '<' or '&' is left: enough of XML for what the canvas writes.
void ExpectWellFormed(const std::string& svg) {
  std::vector<std::string> open;
  const std::regex tag("<(/?)([a-z]+)((?:\\s[a-zA-Z0-9:-]+=\"[^\"<]*\")*)\\s*(/?)>");
  std::string rest;
  auto last = svg.cbegin();
  for (std::sregex_iterator it(svg.begin(), svg.end(), tag), end; it != end; ++it) {
    rest.append(last, svg.cbegin() + it->position());
    last = svg.cbegin() + it->position() + it->length();
    if ((*it)[1].length() > 0) {
      ASSERT_FALSE(open.empty());
      ASSERT_EQ(open.back(), (*it)[2].str());
      open.pop_back();
    } else if ((*it)[4].length() == 0) {
      open.push_back((*it)[2]);
    }
  }
  EXPECT_TRUE(open.empty());
  EXPECT_EQ(rest.find_first_of("<>"), std::string::npos)
      << rest.substr(rest.find_first_of("<>"), 80);
  const std::regex stray("&(?!(amp|lt|gt|quot);)");
  EXPECT_FALSE(std::regex_search(svg, stray));
}

Op MakeOp(OpKind kind, int step, int64_t start_ms, int64_t end_ms, Level level = Level::kInner) {
  Op op;
  op.kind = kind;
  op.step = step;
  op.level = level;
  op.start_ns = start_ms * 1'000'000;
  op.end_ns = end_ms * 1'000'000;
  op.label = "kv";
  return op;
}

Trace MakeTrace() {
  Trace trace;
  trace.title = "ring <of> \"4\" & more";
  for (int rank = 0; rank < 4; ++rank) {
    trace.ranks.push_back(
        {rank,
         "worker-" + std::to_string(rank),
         "node",
         0.5,
         {MakeOp(OpKind::kCompute, 0, 0, 40), MakeOp(OpKind::kReceive, 0, 10, 50),
          MakeOp(OpKind::kReceive, 0, 5, 60, Level::kOuter), MakeOp(OpKind::kSend, 0, 0, 100),
          MakeOp(OpKind::kWait, 0, 40, 60), MakeOp(OpKind::kCompute, 1, 60, 100)}});
  }
  return trace;
}

TEST(RenderSvg, IsWellFormed) {
  ExpectWellFormed(RenderSvg(MakeTrace()));
  ExpectWellFormed(RenderSvg(Trace()));
}

TEST(RenderSvg, EscapesText) {
  const std::string svg = RenderSvg(MakeTrace());
  EXPECT_THAT(svg, HasSubstr("ring &lt;of&gt; &quot;4&quot; &amp; more"));
  EXPECT_EQ(EscapeXml("a\x01\xff<b"), "a??&lt;b");
}

TEST(RenderSvg, HasARowPerRank) {
  const std::string svg = RenderSvg(MakeTrace());
  const std::vector<Box> rows = BoxesOf(svg, "row");
  ASSERT_EQ(rows.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_THAT(svg, HasSubstr(">rank " + std::to_string(i) + "<"));
    EXPECT_THAT(svg, HasSubstr(">worker-" + std::to_string(i) + ", node<"));
    if (i > 0) {
      EXPECT_GT(rows[i].y, rows[i - 1].y + rows[i - 1].height);
    }
  }
  EXPECT_EQ(Count(svg, ">50.0 %<"), 4u);
}

TEST(RenderSvg, BarsStandWhereTheirTimeIs) {
  const std::string svg = RenderSvg(MakeTrace());
  const Box row = BoxesOf(svg, "row")[0];
  const auto at = [&row](double share) { return row.x + share * row.width; };
  const std::vector<Box> computes = BoxesOf(svg, "compute");
  ASSERT_EQ(computes.size(), 8u);
  EXPECT_NEAR(computes[0].x, at(0), 0.1);
  EXPECT_NEAR(computes[0].x + computes[0].width, at(0.4), 1);
  EXPECT_NEAR(computes[1].x, at(0.6), 0.1);
  EXPECT_NEAR(computes[1].x + computes[1].width, at(1), 1);
  const std::vector<Box> waits = BoxesOf(svg, "wait");
  ASSERT_EQ(waits.size(), 4u);
  EXPECT_NEAR(waits[0].x, at(0.4), 0.1);
  EXPECT_NEAR(waits[0].width, 0.2 * row.width, 1);
  EXPECT_EQ(waits[0].y, row.y);
  const std::vector<Box> inner = BoxesOf(svg, "inner");
  const std::vector<Box> outer = BoxesOf(svg, "outer");
  ASSERT_EQ(inner.size(), 4u);
  ASSERT_EQ(outer.size(), 4u);
  EXPECT_NEAR(inner[0].x, at(0.1), 0.1);
  EXPECT_NEAR(outer[0].x + outer[0].width, at(0.6), 1);
  EXPECT_GE(inner[0].y, row.y + row.height);
  EXPECT_GE(outer[0].y, inner[0].y + inner[0].height);
  EXPECT_GT(BoxesOf(svg, "row")[1].y, outer[0].y + outer[0].height);
}

TEST(RenderSvg, NumbersStepsAndNamesColours) {
  const std::string svg = RenderSvg(MakeTrace());
  EXPECT_EQ(Count(svg, "fill=\"#ffffff\">0</text>"), 4u);
  EXPECT_EQ(Count(svg, "fill=\"#ffffff\">1</text>"), 4u);
  EXPECT_EQ(BoxesOf(svg, "legend").size(), 4u);  // compute, standing still, inner, outer
  EXPECT_THAT(svg, HasSubstr("outer hop: K, V"));
  EXPECT_THAT(svg, Not(HasSubstr("dK, dV")));
  EXPECT_THAT(svg, HasSubstr(">20 ms<"));
  EXPECT_THAT(svg, HasSubstr("receive kv from rank -1, outer, 0 B, 55 ms</title>"));
}

// A hundred thousand hops become a picture and not a hundred thousand boxes.
TEST(RenderSvg, JoinsBarsTooNarrowToTellApart) {
  Trace trace;
  trace.ranks.resize(1);
  for (int i = 0; i < 100'000; ++i) {
    trace.ranks[0].ops.push_back(MakeOp(OpKind::kReceive, i, 2 * i, 2 * i + 1));
  }
  const std::string svg = RenderSvg(trace);
  EXPECT_LT(svg.size(), 400'000u);
  EXPECT_GT(BoxesOf(svg, "inner").size(), 100u);
}

}  // namespace
}  // namespace annulus::trace
