// SPDX-License-Identifier: Apache-2.0
// The wrapper that the worker uses, over the real host transport.
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/fault_info.h"
#include "server/transport/host/host_plugin.h"
#include "server/transport/transport.h"
#include "tests/contract/transport/mesh.h"

namespace annulus::transport {
namespace {

using ::testing::HasSubstr;

class WrapperTest : public ::testing::Test {
 protected:
  WrapperTest() {
    std::vector<annulusTransportHandle> handles;
    for (auto& transport : ranks_) {
      const auto rank = static_cast<int32_t>(&transport - ranks_);
      auto opened = Transport::Open(
          HostPlugin(),
          {.group = "wrapper", .epoch = 3, .rank = rank, .size = 2, .host_id = "host"});
      EXPECT_TRUE(opened.ok()) << opened.status();
      transport = std::move(opened).value();
      handles.push_back(transport->handle());
    }
    std::thread other([&] { EXPECT_TRUE(ranks_[1]->Connect(handles, Soon()).ok()); });
    EXPECT_TRUE(ranks_[0]->Connect(handles, Soon()).ok());
    other.join();
  }

  std::unique_ptr<Transport> ranks_[2];
};

TEST_F(WrapperTest, MovesBytes) {
  std::vector<uint8_t> sent = Pattern(1, 100'000);
  std::vector<uint8_t> got(sent.size());
  std::vector<Request> requests;
  auto receive = ranks_[1]->IRecv(0, 1, Whole(got), Soon());
  ASSERT_TRUE(receive.ok()) << receive.status();
  auto send = ranks_[0]->ISend(1, 1, Whole(sent), Soon());
  ASSERT_TRUE(send.ok()) << send.status();
  requests.push_back(std::move(*receive));
  requests.push_back(std::move(*send));
  for (const Completion& end : ranks_[1]->Wait(requests)) {
    EXPECT_TRUE(end.status.ok()) << end.status;
    EXPECT_EQ(end.bytes, sent.size());
  }
  EXPECT_TRUE(requests[0].Done());
  EXPECT_TRUE(sent == got);
  EXPECT_EQ(ranks_[0]->stats().sent_bytes, sent.size());
  EXPECT_EQ(ranks_[0]->path(1), "shm");
  EXPECT_EQ(ranks_[0]->last_error().peer, -1);
}

TEST_F(WrapperTest, StatusesNameTheirPeerAndReason) {
  std::vector<uint8_t> got(10);
  auto late = ranks_[1]->IRecv(0, 1, Whole(got), Now());
  ASSERT_TRUE(late.ok());
  absl::Status status = ranks_[1]->Wait(absl::MakeSpan(&*late, 1)).front().status;
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(status.message(), HasSubstr("peer 0"));

  EXPECT_EQ(ranks_[0]->ISend(7, 1, Whole(got), Soon()).status().code(),
            absl::StatusCode::kInvalidArgument);

  auto waiting = ranks_[0]->IRecv(1, 2, Whole(got), Soon());
  ASSERT_TRUE(waiting.ok());
  ranks_[1]->Abort("step 4 failed");
  status = ranks_[0]->Wait(absl::MakeSpan(&*waiting, 1)).front().status;
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(status.message(), HasSubstr("step 4 failed"));
  const auto info = GetFaultInfo(status);
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(info->reason, "TRANSPORT_ABORTED");
  EXPECT_EQ(info->metadata.at("peer"), "1");
}

TEST(WrapperOpenTest, ByLevelRefusesAPluginThatDoesNotKnowHandlesOfZeros) {
  annulusTransportV1 old = *HostPlugin();
  old.name = "old";
  old.abi_minor = 1;
  const auto opened =
      Transport::OpenByLevel({HostPlugin(), &old}, {ANNULUS_LEVEL_INNER, ANNULUS_LEVEL_OUTER},
                             {.group = "g", .rank = 0, .size = 2});
  EXPECT_EQ(opened.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(opened.status().message(), HasSubstr("transport old has ABI minor 1"));
}

TEST(WrapperOpenTest, ByLevelRefusesTransportsWithNoMemoryInCommon) {
  annulusTransportV1 device = *HostPlugin();
  device.name = "of-devices";
  device.caps = ANNULUS_TRANSPORT_CAP_DEVICE_MEMORY;
  const auto opened =
      Transport::OpenByLevel({&device, HostPlugin()}, {ANNULUS_LEVEL_INNER, ANNULUS_LEVEL_OUTER},
                             {.group = "g", .rank = 0, .size = 2, .host_id = "host"});
  EXPECT_EQ(opened.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(opened.status().message(), HasSubstr("of-devices and host cannot serve one group"));
}

TEST(WrapperOpenTest, NamesThePluginOfEachPeer) {
  const TransportOptions options = {.group = "g", .rank = 0, .size = 3, .host_id = "host"};
  annulusTransportV1 inner = *HostPlugin();
  inner.name = "inside";
  const auto two = Transport::OpenByLevel(
      {&inner, HostPlugin()}, {ANNULUS_LEVEL_INNER, ANNULUS_LEVEL_OUTER, ANNULUS_LEVEL_INNER},
      options);
  ASSERT_TRUE(two.ok()) << two.status();
  EXPECT_EQ((*two)->NameTo(1), "host");
  EXPECT_EQ((*two)->NameTo(2), "inside");
  const auto one = Transport::Open(&inner, options);
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_EQ((*one)->NameTo(1), "inside");
}

TEST(WrapperOpenTest, SaysWhatCannotBeOpened) {
  const auto opened =
      Transport::Open(HostPlugin(), {.group = "g", .rank = 2, .size = 2, .host_id = "host"});
  EXPECT_EQ(opened.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(opened.status().message(), HasSubstr("rank 2 of 2"));
}

}  // namespace
}  // namespace annulus::transport
