// SPDX-License-Identifier: Apache-2.0
#include "server/ring/plan_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_replace.h"
#include "server/ring/digest.h"
#include "server/ring/json_document.h"
#include "tests/unit/ring/plans.h"

namespace annulus::ring {
namespace {

using ::annulus::testing::Keeping;
using ::annulus::testing::PlanOf;
using ::annulus::testing::SmallSpec;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string ErrorOf(const std::string& text, const PlanJsonOptions& options = {}) {
  const auto plan = ParsePlanJson(text, options);
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(plan.status().message());
}

// A small backward plan with one place replaced, its digest not looked at.
std::string ErrorAfter(const std::string& from, const std::string& to) {
  Spec spec = Keeping(SmallSpec(Direction::kBackward, 2, 2, 8));
  spec.layout = Layout::kStriped;
  const std::string text = PlanToJson(PlanOf(spec));
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from << " is not in " << text;
  return ErrorOf(std::string(text).replace(at, from.size(), to), {.verify_digest = false});
}

TEST(PlanJson, ForwardIsTheSchemaLetterByLetter) {
  Spec spec = SmallSpec(Direction::kForward, 2, 2, 4);
  spec.layout = Layout::kStriped;
  const Plan plan = PlanOf(spec);
  EXPECT_EQ(
      PlanToJson(plan),
      R"({"schema":"annulus.plan.v1","digest":")" + plan.digest +
          R"(","algorithm":"ring","direction":"forward","context_parallel_size":2,)"
          R"("window_size":2,"steps":2,"query_length":4,"kv_length":4,)"
          R"("mask":{"kind":"causal","window_left":-1},"layout":"striped",)"
          R"("ranks":[{"rank":0,"q":[[0,3,2]],"kv":[[0,3,2]]},)"
          R"({"rank":1,"q":[[1,4,2]],"kv":[[1,4,2]]}],"resident":[],)"
          R"("computes":[{"step":0,"rank":0,"slot":"own","q":[[0,3,2]],"kv":[[0,3,2]],"case":"partial"},)"
          R"({"step":0,"rank":1,"slot":"own","q":[[1,4,2]],"kv":[[1,4,2]],"case":"partial"},)"
          R"({"step":1,"rank":0,"slot":"inner0","q":[[0,3,2]],"kv":[[1,4,2]],"case":"partial"},)"
          R"({"step":1,"rank":1,"slot":"inner0","q":[[1,4,2]],"kv":[[0,3,2]],"case":"partial"}],)"
          R"("transfers":[{"payload":"kv","src":0,"src_slot":"own","dst":1,"dst_slot":"inner0",)"
          R"("combine":"replace","post_step":0,"due_step":1,"tokens":[[0,3,2]],"level":"inner"},)"
          R"({"payload":"kv","src":1,"src_slot":"own","dst":0,"dst_slot":"inner0",)"
          R"("combine":"replace","post_step":0,"due_step":1,"tokens":[[1,4,2]],"level":"inner"}]})");
  EXPECT_EQ(plan.digest, Sha256Hex(CanonicalPlanJson(plan)));
}

TEST(PlanJson, ComesBackAsItWas) {
  for (const Direction direction : {Direction::kForward, Direction::kBackward}) {
    const Plan plan = PlanOf(Keeping(SmallSpec(direction, 8, 4)));
    const auto parsed = ParsePlanJson(PlanToJson(plan));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(*parsed, plan);
  }
}

TEST(PlanJson, WhiteSpaceAndKeyOrderDoNotMatter) {
  const Plan plan = PlanOf(SmallSpec(Direction::kForward, 2, 2));
  const std::string loose = absl::StrReplaceAll(PlanToJson(plan), {{",", " ,\n"}, {":", ": "}});
  const auto parsed = ParsePlanJson(loose);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, plan);
}

TEST(PlanJson, AWrongDigestIsRefusedWithBoth) {
  Plan plan = PlanOf(SmallSpec(Direction::kForward, 2, 2));
  const std::string right = plan.digest;
  plan.digest = std::string(64, '0');
  EXPECT_EQ(ErrorOf(PlanToJson(plan)), "digest: expected " + right + ", got " + plan.digest);
  EXPECT_EQ(ErrorOf(CanonicalPlanJson(plan)), "digest: missing");
  EXPECT_TRUE(ParsePlanJson(CanonicalPlanJson(plan), {.verify_digest = false}).ok());
}

TEST(PlanJson, ErrorsNameTheField) {
  EXPECT_THAT(ErrorAfter("\"steps\":2", "\"steps\":2.5"), StartsWith("steps: expected an integer"));
  EXPECT_THAT(ErrorAfter("\"steps\":2", "\"steps\":0"),
              StartsWith("steps: expected an integer in 1.."));
  EXPECT_THAT(ErrorAfter("\"steps\":2", "\"steps\":99999999999999999999"),
              StartsWith("steps: expected"));
  EXPECT_THAT(ErrorAfter("\"steps\":2", "\"steps\":18446744073709551615"),
              StartsWith("steps: expected"));
  EXPECT_EQ(ErrorAfter("\"steps\":2,", ""), "steps: missing");
  EXPECT_EQ(ErrorAfter("\"steps\":2", "\"steps\":2,\"steps\":3"), "field 'steps' given twice");
  EXPECT_EQ(ErrorAfter("\"steps\":2", "\"steps\":2,\"heads\":[0,4]"), "heads: unknown field");
  EXPECT_EQ(ErrorAfter("\"case\":\"partial\"", "\"case\":\"partial\",\"heads\":[0,4]"),
            "computes[0].heads: unknown field");
  EXPECT_EQ(ErrorAfter("\"causal\"", "\"packed\""),
            "mask.kind: expected one of full, causal, got \"packed\"");
  EXPECT_EQ(ErrorAfter("\"level\":\"inner\"", "\"level\":7"),
            "transfers[0].level: expected one of inner, outer, got 7");
  EXPECT_THAT(ErrorAfter("[0,7,2]", "[0,7,1]"), StartsWith("ranks[0].q[0]: expected 0 <= begin"));
  EXPECT_THAT(ErrorAfter("[0,7,2]", "[7,7]"), StartsWith("ranks[0].q[0]: expected 0 <= begin"));
  EXPECT_THAT(ErrorAfter("[0,7,2]", "[-1,7]"), StartsWith("ranks[0].q[0]: expected 0 <= begin"));
  EXPECT_THAT(ErrorAfter("[0,7,2]", "[0]"), StartsWith("ranks[0].q[0]: expected [begin, end]"));
  EXPECT_THAT(ErrorAfter("\"q\":[[0,7,2]]", "\"q\":{}"),
              StartsWith("ranks[0].q: expected an array"));
  EXPECT_THAT(ErrorAfter("\"into\":\"g0\"", "\"into\":\"" + std::string(33, 'g') + "\""),
              StartsWith("computes[0].into: expected a string of at most 32 bytes"));
  EXPECT_THAT(ErrorAfter("annulus.plan.v1", "annulus.plan.v2"),
              StartsWith("schema: expected \"annulus.plan.v1\", got"));
}

TEST(PlanJson, AnythingButAPlanIsRefused) {
  EXPECT_THAT(ErrorOf(""), StartsWith("malformed JSON"));
  EXPECT_THAT(ErrorOf("{"), StartsWith("malformed JSON"));
  EXPECT_THAT(ErrorOf("{} {}"), StartsWith("malformed JSON"));
  EXPECT_THAT(ErrorOf("\"\xff\""), StartsWith("malformed JSON"));
  EXPECT_EQ(ErrorOf("[]"), "plan: expected an object, got an array");
  EXPECT_EQ(ErrorOf("null"), "plan: expected an object, got null");
  EXPECT_EQ(ErrorOf("{}"), "schema: missing");
}

TEST(PlanJson, IsBounded) {
  EXPECT_EQ(ErrorOf("{}", {.max_bytes = 1}), "JSON of 2 bytes; at most 1 are taken");
  EXPECT_THAT(ErrorOf(std::string(1 << 20, '[')), HasSubstr("nested deeper than 6 levels"));
  const auto many =
      ParseJsonBounded("[0,0,{\"a\":0}]", {.max_bytes = 99, .max_values = 5, .max_depth = 2});
  EXPECT_EQ(many.status().message(), "more than 5 JSON values");
  EXPECT_TRUE(
      ParseJsonBounded("[0,0,{}]", {.max_bytes = 99, .max_values = 5, .max_depth = 2}).ok());
}

}  // namespace
}  // namespace annulus::ring
