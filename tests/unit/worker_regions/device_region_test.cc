// SPDX-License-Identifier: Apache-2.0
// Device memory of a client, leased over the region socket and used in place by workers on devices
// apart from the host.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "server/base/region_protocol.h"
#include "server/ring/planner.h"
#include "server/worker/region_server.h"
#include "server/worker/unix_listener.h"
#include "tests/support/apart/apart_plugin.h"
#include "tests/unit/worker/test_ring.h"

namespace annulus::worker {
namespace {

using ::testing::HasSubstr;
using testing::Problem;
using testing::Tensors;
using testing::TestRing;
using testing_support::ApartPlugin;
using testing_support::CountApart;
using testing_support::ReadApart;
using testing_support::WriteApart;

constexpr uint64_t kBytes = uint64_t{16} << 20;

// A client's own memory on device 0, exported.
class ClientMemory {
 public:
  ClientMemory() {
    annulusComputeOptions options{};
    options.struct_size = sizeof(options);
    options.threads = 1;
    EXPECT_EQ(ApartPlugin()->open(&options, &device_), ANNULUS_COMPUTE_OK);
    EXPECT_EQ(ApartPlugin()->alloc(device_, kBytes, &data_), ANNULUS_COMPUTE_OK);
    annulusMemoryHandle handle{};
    handle.struct_size = sizeof(handle);
    EXPECT_EQ(ApartPlugin()->export_memory(device_, data_, &handle), ANNULUS_COMPUTE_OK);
    descriptor_ = UniqueFd(handle.descriptor);
    told_.kind = handle.kind;
    told_.allocation_bytes = handle.bytes;
    told_.offset = handle.offset;
    std::strcpy(told_.bus_id, "0000:00:00.0");
  }
  ~ClientMemory() {
    ApartPlugin()->free(device_, data_);
    ApartPlugin()->close(device_);
  }

  void* data() const { return data_; }
  int descriptor() const { return descriptor_.get(); }
  const RegionDeviceMemory& told() const { return told_; }

 private:
  annulusDevice* device_ = nullptr;
  void* data_ = nullptr;
  UniqueFd descriptor_;
  RegionDeviceMemory told_;
};

class DeviceRegionTest : public ::testing::Test {
 protected:
  void Start(const annulusComputeV1* compute) {
    TestRing::Options options;
    options.compute = compute;
    ring_ = std::make_unique<TestRing>(options);
    server_ = *RegionServer::Start({}, &ring_->engine(0));
    socket_ = UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string& path = server_->path();
    std::memcpy(address.sun_path + 1, path.data() + 1, path.size() - 1);
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
    ASSERT_EQ(connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), length), 0);
  }

  // Asks for region 1 of this memory.
  absl::Status Lease(const RegionDeviceMemory& memory, int descriptor, uint64_t bytes = kBytes) {
    RegionRequest request;
    request.op = 3;
    std::memcpy(request.session_id, ring_->session(0).data(), sizeof(request.session_id));
    request.region_id = 1;
    request.generation = 1;
    request.bytes = bytes;
    std::vector<uint8_t> message(sizeof(request) + sizeof(memory));
    std::memcpy(message.data(), &request, sizeof(request));
    std::memcpy(message.data() + sizeof(request), &memory, sizeof(memory));
    iovec part{message.data(), message.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    if (descriptor >= 0) {
      header.msg_control = control;
      header.msg_controllen = sizeof(control);
      cmsghdr* rights = CMSG_FIRSTHDR(&header);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(rights), &descriptor, sizeof(int));
    }
    EXPECT_EQ(sendmsg(socket_.get(), &header, MSG_NOSIGNAL), static_cast<ssize_t>(message.size()));
    RegionReply reply;
    EXPECT_EQ(recv(socket_.get(), &reply, sizeof(reply), MSG_WAITALL),
              static_cast<ssize_t>(sizeof(reply)));
    return absl::Status(static_cast<absl::StatusCode>(reply.code), reply.message);
  }

  std::unique_ptr<TestRing> ring_;
  std::unique_ptr<RegionServer> server_;
  UniqueFd socket_;
};

TEST_F(DeviceRegionTest, TensorsThereAreUsedInPlace) {
  Start(ApartPlugin());
  const Problem problem;
  const ring::Plan plan =
      *ring::MakePlan(testing::SpecOf(problem, ring::Direction::kForward, false));
  Tensors tensors(problem, plan);  // the same tensors in the host's memory, to draw and to check
  ClientMemory memory;
  WriteApart(memory.data(), tensors.memory().data(), kBytes);
  ASSERT_TRUE(Lease(memory.told(), memory.descriptor()).ok());
  EXPECT_EQ(CountApart().imported, 1);
  auto calls = tensors.Forward(*ring_, ring_->AddPlan(plan), "a");
  calls[0].record_timeline = true;
  const auto answers = ring_->Attend(calls);
  ASSERT_TRUE(answers[0].ok()) << answers[0].status();
  for (const metrics::Op& op : answers[0]->timeline.ops) {
    EXPECT_NE(op.kind, metrics::OpKind::kCopy) << op.label;
  }
  ReadApart(memory.data(), tensors.memory().data(), kBytes);
  EXPECT_LE(tensors.ForwardError(), 5e-6);
  EXPECT_LE(tensors.LseError(), 2e-5);
  socket_ = UniqueFd();
  server_.reset();  // its regions go with the connection
  EXPECT_EQ(CountApart().imported, 0);
}

TEST_F(DeviceRegionTest, WhatDoesNotLieInTheAllocationIsRefused) {
  Start(ApartPlugin());
  ClientMemory memory;
  RegionDeviceMemory told = memory.told();
  const auto expect_refused = [&](uint64_t bytes) {
    const absl::Status status = Lease(told, memory.descriptor(), bytes);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("do not lie in device memory"));
  };
  expect_refused(kBytes + 1);
  expect_refused(0);
  expect_refused(~uint64_t{0});
  told.offset = 64;
  expect_refused(kBytes - 63);
  EXPECT_TRUE(Lease(told, memory.descriptor(), kBytes - 64).ok());
}

TEST_F(DeviceRegionTest, MemoryOfAnotherDeviceIsRefusedByItsName) {
  Start(ApartPlugin());
  ClientMemory memory;
  RegionDeviceMemory told = memory.told();
  std::strcpy(told.bus_id, "0000:03:00.0");
  const absl::Status status = Lease(told, memory.descriptor());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("lies on device 0000:03:00.0, this worker's is ordinal 0, 0000:00:00.0"));
}

TEST_F(DeviceRegionTest, HandlesThatAreNoneAreRefused) {
  Start(ApartPlugin());
  ClientMemory memory;
  RegionDeviceMemory told = memory.told();
  EXPECT_THAT(std::string(Lease(told, -1).message()), HasSubstr("takes 1 file descriptors, got 0"));
  told.kind = 0;
  EXPECT_THAT(std::string(Lease(told, memory.descriptor()).message()),
              HasSubstr("takes 0 file descriptors, got 1"));
  EXPECT_THAT(std::string(Lease(told, -1).message()), HasSubstr("only descriptors are taken"));
  told.kind = 7;
  EXPECT_THAT(std::string(Lease(told, -1).message()), HasSubstr("expected 0 or 1"));
  EXPECT_TRUE(Lease(memory.told(), memory.descriptor()).ok()) << "the connection is as before";
}

TEST_F(DeviceRegionTest, AWorkerOnTheHostTakesNone) {
  Start(testing::HostDevice());
  ClientMemory memory;
  const absl::Status status = Lease(memory.told(), memory.descriptor());
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("takes no memory of other processes"));
}

}  // namespace
}  // namespace annulus::worker
