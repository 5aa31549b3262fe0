// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/worker_group_convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace annulus::rpc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

v1::PrepareGroup Prepare() {
  v1::PrepareGroup prepare;
  prepare.set_group("ring-0");
  prepare.set_epoch(8);
  prepare.set_rank(2);
  v1::GroupOptions* options = prepare.mutable_options();
  options->set_size(4);
  options->set_window_size(2);
  options->set_ranks_per_node(2);
  options->set_transfers_off(true);
  options->mutable_inner_link()->set_bytes_per_second(2e9);
  options->mutable_outer_link()->set_latency_seconds(20e-6);
  for (int rank = 0; rank < 4; ++rank) {
    v1::GroupMember* member = prepare.add_members();
    member->set_rank(rank);
    member->set_worker("w" + std::to_string(rank));
    member->set_node(rank < 2 ? "a" : "b");
    member->set_host_id("h" + std::to_string(rank));
  }
  return prepare;
}

TEST(WorkerGroupConvert, AssignmentIsPassedWhole) {
  const auto assignment = AssignmentFromProto(Prepare());
  ASSERT_TRUE(assignment.ok()) << assignment.status();
  EXPECT_EQ(assignment->group, "ring-0");
  EXPECT_EQ(assignment->epoch, 8u);
  EXPECT_EQ(assignment->rank, 2);
  EXPECT_EQ(assignment->size, 4);
  EXPECT_EQ(assignment->window_size, 2);
  EXPECT_EQ(assignment->ranks_per_node, 2);
  EXPECT_TRUE(assignment->transfers_off);
  EXPECT_EQ(assignment->inner_link.bytes_per_second, 2e9);
  EXPECT_EQ(assignment->outer_link.latency_seconds, 20e-6);
  EXPECT_THAT(assignment->workers, ElementsAre("w0", "w1", "w2", "w3"));
  EXPECT_THAT(assignment->nodes, ElementsAre("a", "a", "b", "b"));
  EXPECT_THAT(assignment->host_ids, ElementsAre("h0", "h1", "h2", "h3"));
}

TEST(WorkerGroupConvert, WindowOfZeroIsTheWholeGroup) {
  v1::PrepareGroup prepare = Prepare();
  prepare.mutable_options()->set_window_size(0);
  EXPECT_EQ(AssignmentFromProto(prepare)->window_size, 4);
}

TEST(WorkerGroupConvert, RefusesByFieldName) {
  using Prepared = v1::PrepareGroup;
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<std::pair<const char*, std::function<void(Prepared*)>>> cases = {
      {"group", [](Prepared* p) { p->set_group(""); }},
      {"size", [](Prepared* p) { p->mutable_options()->set_size(0); }},
      {"size", [](Prepared* p) { p->mutable_options()->set_size(4097); }},
      {"rank", [](Prepared* p) { p->set_rank(4); }},
      {"rank", [](Prepared* p) { p->set_rank(-1); }},
      {"window_size", [](Prepared* p) { p->mutable_options()->set_window_size(3); }},
      {"window_size", [](Prepared* p) { p->mutable_options()->set_window_size(8); }},
      {"ranks_per_node", [](Prepared* p) { p->mutable_options()->set_ranks_per_node(-1); }},
      {"members", [](Prepared* p) { p->mutable_members()->RemoveLast(); }},
      {"members", [](Prepared* p) { p->mutable_members(1)->set_rank(2); }},
      {"inner_link",
       [](Prepared* p) { p->mutable_options()->mutable_inner_link()->set_bytes_per_second(-1); }},
      {"outer_link",
       [](Prepared* p) { p->mutable_options()->mutable_outer_link()->set_latency_seconds(kNan); }},
  };
  for (const auto& [says, spoil] : cases) {
    Prepared prepare = Prepare();
    spoil(&prepare);
    const absl::Status status = AssignmentFromProto(prepare).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << says;
    EXPECT_THAT(std::string(status.message()), HasSubstr(says));
  }
}

TEST(WorkerGroupConvert, HandlesAreKeptByteForByte) {
  annulusTransportHandle handle;
  for (size_t i = 0; i < sizeof(handle.bytes); ++i) handle.bytes[i] = static_cast<uint8_t>(i * 7);
  v1::ConnectGroup connect;
  connect.add_transport_handles(HandleToBytes(handle));
  connect.add_transport_handles("ab");
  const auto handles = HandlesFromProto(connect);
  ASSERT_TRUE(handles.ok());
  ASSERT_EQ(handles->size(), 2u);
  EXPECT_EQ(HandleToBytes((*handles)[0].inner), HandleToBytes(handle));
  EXPECT_FALSE((*handles)[0].outer.has_value());
  EXPECT_EQ(HandleToBytes((*handles)[1].inner), "ab" + std::string(126, '\0'));

  connect.add_transport_handles(std::string(129, 'x'));
  EXPECT_EQ(HandlesFromProto(connect).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(WorkerGroupConvert, ATransportForEachLevelComesWithItsOwnHandles) {
  v1::ConnectGroup connect;
  for (const char* handle : {"near-0", "near-1"}) connect.add_transport_handles(handle);
  connect.add_outer_transport_handles("far-0");
  const absl::Status few = HandlesFromProto(connect).status();
  EXPECT_THAT(std::string(few.message()), HasSubstr("expected none or 2, one per rank, got 1"));
  connect.add_outer_transport_handles("far-1");
  const auto handles = HandlesFromProto(connect);
  ASSERT_TRUE(handles.ok()) << handles.status();
  EXPECT_EQ(HandleToBytes((*handles)[1].inner).substr(0, 6), "near-1");
  EXPECT_EQ(HandleToBytes(*(*handles)[1].outer).substr(0, 5), "far-1");
}

TEST(WorkerGroupConvert, VerdictIsPassedWhole) {
  v1::GroupFault fault;
  fault.set_group("g");
  fault.set_epoch(4);
  fault.set_culprit_rank(3);
  fault.set_culprit_worker("w3");
  fault.set_reason("WORKER_SILENT");
  fault.set_message("no heartbeat");
  fault.set_step(6);
  const worker::FaultVerdict verdict = VerdictFromProto(fault);
  EXPECT_EQ(verdict.group, "g");
  EXPECT_EQ(verdict.epoch, 4u);
  EXPECT_EQ(verdict.culprit_rank, 3);
  EXPECT_EQ(verdict.culprit_worker, "w3");
  EXPECT_EQ(verdict.reason, "WORKER_SILENT");
  EXPECT_EQ(verdict.message, "no heartbeat");
  EXPECT_EQ(verdict.step, 6);
}

}  // namespace
}  // namespace annulus::rpc
