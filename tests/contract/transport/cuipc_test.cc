// SPDX-License-Identifier: Apache-2.0
// What is cuipc's own: device memory and its mappings, faults of the copy engine, ranks that do not
// belong together.
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/transport/cuipc/cuipc_plugin.h"
#include "server/transport/host/host_plugin.h"
#include "tests/contract/transport/fake_gpu.h"
#include "tests/contract/transport/mesh.h"

namespace annulus::transport {
namespace {

using cuipc::FakeGpu;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kMillisecond = 1'000'000;

Kind Cuipc() {
  return {.name = "Cuipc", .table = [] { return cuipc::CuipcPlugin(); }, .memory = &FakeGpu::The()};
}

// Moves `bytes` bytes from rank 0 to rank 1 and gives both statuses, the receiver's first.
std::pair<annulusTransportStatus, annulusTransportStatus> Move(const Mesh& mesh, uint64_t tag,
                                                               size_t bytes) {
  std::vector<uint8_t> sent = Pattern(tag, bytes);
  std::vector<uint8_t> got(bytes);
  annulusRequest* receive = mesh.Receive(1, 0, tag, Whole(got));
  annulusRequest* send = mesh.Send(0, 1, tag, Whole(sent));
  const annulusTransportStatus received = mesh.Finish(receive).status;
  EXPECT_TRUE(received != ANNULUS_TRANSPORT_OK || sent == got);
  return {received, mesh.Finish(send).status};
}

constexpr std::pair kBothOk(ANNULUS_TRANSPORT_OK, ANNULUS_TRANSPORT_OK);
constexpr std::pair kBothFailed(ANNULUS_TRANSPORT_RESOURCE, ANNULUS_TRANSPORT_RESOURCE);

TEST(CuipcTest, NamesThePath) {
  Mesh mesh(Cuipc(), 2);
  EXPECT_STREQ(mesh.table().path(mesh.at(0), 1), "cuipc");
  EXPECT_STREQ(mesh.table().path(mesh.at(0), 0), "self");
  EXPECT_STREQ(mesh.table().path(mesh.at(0), 2), "none");
}

TEST(CuipcTest, MemoryThatStaysIsMappedOnce) {
  FakeGpu& gpu = FakeGpu::The();
  const int before = gpu.Count().imports_ever;
  {
    Mesh mesh({.name = "Cuipc", .table = [] { return cuipc::CuipcPlugin(); }}, 2);
    void* from = gpu.Allocate(1000);
    void* to = gpu.Allocate(1000);
    for (uint64_t tag = 0; tag < 20; ++tag) {
      std::vector<uint8_t> sent = Pattern(tag, 1000);
      std::vector<uint8_t> got(1000);
      gpu.Upload(from, sent.data(), sent.size());
      annulusRequest* receive = mesh.Receive(1, 0, tag, {{to, 1000}});
      EXPECT_EQ(mesh.Finish(mesh.Send(0, 1, tag, {{from, 1000}})).status, ANNULUS_TRANSPORT_OK);
      EXPECT_EQ(mesh.Finish(receive).status, ANNULUS_TRANSPORT_OK);
      gpu.Download(got.data(), to, got.size());
      EXPECT_TRUE(sent == got);
    }
    EXPECT_EQ(gpu.Count().imports_ever, before + 1);
    EXPECT_EQ(mesh.table().deregister_memory(mesh.at(1), to), ANNULUS_TRANSPORT_OK);
    EXPECT_EQ(gpu.Count().mappings, 0) << "the memory could not be freed safely";
    gpu.Free(to);
    gpu.Free(from);
  }
  EXPECT_EQ(gpu.Violations(), "");
}

TEST(CuipcTest, MemoryAtTheSameAddressAgainIsNotTheOldOne) {
  Mesh mesh(Cuipc(), 2);  // it allocates and frees for each operation, at the same addresses
  const int before = FakeGpu::The().Count().imports_ever;
  for (uint64_t tag = 0; tag < 20; ++tag) EXPECT_EQ(Move(mesh, tag, 1000 + tag), kBothOk);
  EXPECT_EQ(FakeGpu::The().Count().imports_ever, before + 20);
  EXPECT_LE(FakeGpu::The().Count().mappings, 2) << "memory that is gone was kept mapped";
}

TEST(CuipcTest, ClosingLeavesNothing) {
  {
    Mesh mesh(Cuipc(), 3);
    EXPECT_EQ(Move(mesh, 1, 100'000), kBothOk);
    mesh.Close(1);
    EXPECT_EQ(FakeGpu::The().Count().mappings, 0) << "the peer's memory is still mapped";
  }
  EXPECT_EQ(FakeGpu::The().Count().streams, 0);
  EXPECT_EQ(FakeGpu::The().Count().events, 0);
}

TEST(CuipcTest, AFailedEnqueueFailsBothSidesAloneWithTheReason) {
  Mesh mesh(Cuipc(), 2);
  FakeGpu::The().FailEnqueue(1);
  EXPECT_EQ(Move(mesh, 1, 300'000), kBothFailed);
  EXPECT_THAT(mesh.LastError(0), AllOf(HasSubstr("peer 1"), HasSubstr("was made to fail")));
  EXPECT_THAT(mesh.LastError(1), AllOf(HasSubstr("peer 0"), HasSubstr("was made to fail")));
  EXPECT_EQ(Move(mesh, 2, 300'000), kBothOk);
}

TEST(CuipcTest, AFailedCopyOrImportFailsBothSides) {
  Mesh mesh(Cuipc(), 2);
  FakeGpu::The().FailReached(1);
  EXPECT_EQ(Move(mesh, 1, 1000), kBothFailed);
  FakeGpu::The().FailImport(1);
  EXPECT_EQ(Move(mesh, 2, 1000), kBothFailed);
  EXPECT_EQ(Move(mesh, 3, 1000), kBothOk);
}

TEST(CuipcTest, ALateReceiveIsNotOverBeforeTheCopiesAre) {
  Mesh mesh(Cuipc(), 2);
  std::vector<uint8_t> sent = Pattern(1, 1'000'000);
  std::vector<uint8_t> got(sent.size());
  const int64_t before = FakeGpu::The().Count().copies_ever;
  FakeGpu::The().Hang(true);
  const int64_t deadline = Now() + 100 * kMillisecond;
  annulusRequest* receive = mesh.Receive(1, 0, 1, Whole(got), deadline);
  annulusRequest* send = mesh.Send(0, 1, 1, Whole(sent), deadline + 1000 * kMillisecond);
  while (FakeGpu::The().Count().copies_ever == before && Now() < deadline) {
  }
  while (Now() < deadline) {
  }
  FakeGpu::The().Hang(false);
  // Its memory is freed at once: a copy after that is a violation, which the mesh looks for.
  const annulusTransportStatus status = mesh.Finish(receive).status;
  EXPECT_TRUE(status == ANNULUS_TRANSPORT_DEADLINE || status == ANNULUS_TRANSPORT_OK) << status;
  mesh.Finish(send);
}

TEST(CuipcTest, CopiesThatDoNotEndHoldNobodyForEver) {
  FakeGpu& gpu = FakeGpu::The();
  Kind kind = Cuipc();
  kind.memory = nullptr;
  void* from = gpu.Allocate(1000);
  void* to = gpu.Allocate(1000);
  {
    Mesh mesh(kind, 2);
    const int64_t before = gpu.Count().copies_ever;
    gpu.Hang(true);
    annulusRequest* receive = mesh.Receive(1, 0, 1, {{to, 1000}});
    annulusRequest* send = mesh.Send(0, 1, 1, {{from, 1000}});
    while (gpu.Count().copies_ever == before) {
    }
    mesh.table().abort(mesh.at(1), "no patience");
    EXPECT_EQ(mesh.Finish(receive).status, ANNULUS_TRANSPORT_ABORTED);
    EXPECT_THAT(mesh.LastError(1), AllOf(HasSubstr("no patience"), HasSubstr("must not be used")));
    mesh.table().abort(mesh.at(0), "nor here");
    EXPECT_EQ(mesh.Finish(send).status, ANNULUS_TRANSPORT_ABORTED);
    EXPECT_THAT(mesh.LastError(0), AllOf(HasSubstr("no patience"), HasSubstr("may still run")));
  }
  gpu.Hang(false);  // its stream and its mapping are kept for as long as there is a process
  while (gpu.Count().copies_pending > 0) {
  }
  gpu.Free(from);
  gpu.Free(to);
  EXPECT_EQ(gpu.Violations(), "");
  gpu.ForgetLeaks();
}

TEST(CuipcTest, HostAndDeviceMemoryDoNotMix) {
  Mesh mesh(Cuipc(), 2);
  uint8_t byte = 0;
  void* device = FakeGpu::The().Allocate(10);
  const annulusSegment segments[] = {{&byte, 1}, {device, 1}};
  annulusRequest* request = nullptr;
  EXPECT_EQ(mesh.table().isend(mesh.at(0), 1, 1, segments, 2, Soon(), &request),
            ANNULUS_TRANSPORT_INVALID_ARGUMENT);
  EXPECT_THAT(mesh.LastError(0), HasSubstr("host and device memory"));
  const annulusSegment beyond{device, 11};
  EXPECT_EQ(mesh.table().irecv(mesh.at(0), 1, 1, &beyond, 1, Soon(), &request),
            ANNULUS_TRANSPORT_INVALID_ARGUMENT);
  FakeGpu::The().Free(device);
}

TEST(CuipcTest, RanksOfSeveralHostsAreRefusedByName) {
  Kind kind = Cuipc();
  kind.one_host = false;
  const OpenRank ranks[] = {OpenOne(kind, {.rank = 0, .size = 2}),
                            OpenOne(kind, {.rank = 1, .size = 2})};
  const annulusTransportHandle handles[] = {ranks[0].handle, ranks[1].handle};
  for (const OpenRank& rank : ranks) {
    EXPECT_EQ(kind.table()->connect(rank.transport, handles, Soon()), ANNULUS_TRANSPORT_REFUSED);
    char text[512] = "";
    kind.table()->last_error(rank.transport, text, sizeof(text), nullptr);
    EXPECT_THAT(text, AllOf(HasSubstr("ranks 0"), HasSubstr("ranks 1"), HasSubstr("nccl")));
    kind.table()->close(rank.transport);
  }
}

TEST(CuipcTest, APeerWithThePlainHostTransportIsNamed) {
  for (const int32_t plain : {0, 1}) {
    const annulusTransportV1* tables[] = {cuipc::CuipcPlugin(), cuipc::CuipcPlugin()};
    tables[plain] = HostPlugin();
    OpenRank ranks[2];
    annulusTransportHandle handles[2];
    for (int32_t rank = 0; rank < 2; ++rank) {
      const Kind kind = {.name = "", .table = [&] { return tables[rank]; }};
      ranks[rank] = OpenOne(kind, {.rank = rank, .size = 2});
      handles[rank] = ranks[rank].handle;
    }
    std::thread other([&] { tables[plain]->connect(ranks[plain].transport, handles, Soon()); });
    const int32_t own = 1 - plain;
    EXPECT_NE(tables[own]->connect(ranks[own].transport, handles, Now() + 300 * kMillisecond),
              ANNULUS_TRANSPORT_OK);
    other.join();
    char text[512] = "";
    tables[own]->last_error(ranks[own].transport, text, sizeof(text), nullptr);
    EXPECT_THAT(text, HasSubstr("do all ranks use this transport?"));
    for (int32_t rank = 0; rank < 2; ++rank) tables[rank]->close(ranks[rank].transport);
  }
}

TEST(CuipcTest, OpenSaysWhatIsWrong) {
  for (const int32_t ordinal : {-1, 7}) {
    annulusTransportOptions options{};
    options.struct_size = sizeof(options);
    options.group = "g";
    options.size = 1;
    options.host_id = "host";
    options.device_ordinal = ordinal;
    annulusTransport* transport = nullptr;
    annulusTransportHandle handle{};
    EXPECT_EQ(cuipc::CuipcPlugin()->open(&options, &transport, &handle),
              ANNULUS_TRANSPORT_INVALID_ARGUMENT);
    EXPECT_THAT(cuipc::CuipcPlugin()->open_error(), HasSubstr("device"));
  }
}

}  // namespace
}  // namespace annulus::transport
