// SPDX-License-Identifier: Apache-2.0
// Emulated links: what the stamps must say, whatever the machine does. All bounds are from below: a
// slow machine only makes transfers longer.
#include "server/transport/pacing/pacing.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/transport/host/host_plugin.h"
#include "server/transport/pacing/null_transport.h"
#include "tests/contract/transport/mesh.h"

namespace annulus::transport {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMillisecond = 1'000'000;
constexpr size_t kBytes = 200'000;
constexpr int64_t kInnerNs = 10 * kMillisecond;  // of kBytes at 20 MB/s
constexpr int64_t kOuterNs = 20 * kMillisecond;  // of kBytes at 10 MB/s
constexpr int64_t kLatencyNs = 3 * kMillisecond;

Kind Paced() {
  return {.name = "Paced", .table = [] {
            PacingModel model;
            model.inner = {.bytes_per_second = 20e6, .latency_seconds = 0};
            model.outer = {.bytes_per_second = 10e6, .latency_seconds = 3e-3};
            model.ranks_per_node = 2;
            return PacingTransport(HostPlugin(), model);
          }};
}

struct Transfer {
  std::vector<uint8_t> sent;
  std::vector<uint8_t> got;
  annulusRequest* send = nullptr;
  annulusRequest* receive = nullptr;
  annulusCompletion sent_end{};
  annulusCompletion got_end{};
};

// Posts all transfers at once, then waits for all.
std::vector<Transfer> Exchange(const Mesh& mesh,
                               const std::vector<std::pair<int32_t, int32_t>>& routes) {
  std::vector<Transfer> transfers(routes.size());
  for (size_t i = 0; i < routes.size(); ++i) {
    transfers[i].sent = Pattern(i, kBytes);
    transfers[i].got.resize(kBytes);
    transfers[i].receive =
        mesh.Receive(routes[i].second, routes[i].first, i, Whole(transfers[i].got));
    transfers[i].send = mesh.Send(routes[i].first, routes[i].second, i, Whole(transfers[i].sent));
  }
  for (Transfer& transfer : transfers) {
    transfer.sent_end = mesh.Finish(transfer.send);
    transfer.got_end = mesh.Finish(transfer.receive);
    EXPECT_EQ(transfer.sent_end.status, ANNULUS_TRANSPORT_OK);
    EXPECT_EQ(transfer.got_end.status, ANNULUS_TRANSPORT_OK);
    EXPECT_TRUE(transfer.sent == transfer.got);
  }
  return transfers;
}

// Exactly one of the two was first, and the other began only when the wire was free again.
void ExpectOneAfterTheOther(const Transfer& a, const Transfer& b, int64_t wire_ns) {
  const int64_t apart = b.got_end.start_ns - a.got_end.start_ns;
  EXPECT_GE(apart < 0 ? -apart : apart, wire_ns);
}

TEST(PacingTest, ATransferTakesItsTimeOnTheWire) {
  Mesh mesh(Paced(), 4);
  const std::vector<Transfer> inner = Exchange(mesh, {{0, 1}});
  EXPECT_GE(inner[0].got_end.end_ns - inner[0].got_end.start_ns, kInnerNs);
  EXPECT_GE(inner[0].sent_end.end_ns - inner[0].sent_end.start_ns, kInnerNs);
  const std::vector<Transfer> outer = Exchange(mesh, {{1, 2}});
  EXPECT_GE(outer[0].got_end.end_ns - outer[0].got_end.start_ns, kOuterNs + kLatencyNs);
}

TEST(PacingTest, BothSidesNameTheSameStart) {
  Mesh mesh(Paced(), 4);
  for (const Transfer& transfer : Exchange(mesh, {{0, 1}, {0, 1}, {1, 0}, {2, 1}, {1, 2}})) {
    EXPECT_EQ(transfer.sent_end.start_ns, transfer.got_end.start_ns);
  }
}

TEST(PacingTest, CompletionIsNotReportedBeforeTheEmulatedEnd) {
  Mesh mesh(Paced(), 2);
  const int64_t before = Now();
  const std::vector<Transfer> transfers = Exchange(mesh, {{0, 1}});
  EXPECT_GE(Now() - before, kInnerNs);
  EXPECT_LE(transfers[0].got_end.end_ns, Now());
}

TEST(PacingTest, AWireOutCarriesOneTransferAtATime) {
  Mesh mesh(Paced(), 6);
  const std::vector<Transfer> transfers = Exchange(mesh, {{0, 2}, {0, 4}});
  ExpectOneAfterTheOther(transfers[0], transfers[1], kOuterNs);
}

TEST(PacingTest, AWireInCarriesOneTransferAtATime) {
  Mesh mesh(Paced(), 6);
  const std::vector<Transfer> transfers = Exchange(mesh, {{2, 0}, {4, 0}});
  ExpectOneAfterTheOther(transfers[0], transfers[1], kOuterNs);
}

TEST(PacingTest, ATransferBeyondItsDeadlineFailsAtIt) {
  Mesh mesh(Paced(), 2);
  std::vector<uint8_t> sent = Pattern(1, size_t{20} << 20);  // a second on the wire
  std::vector<uint8_t> got(sent.size());
  annulusRequest* receive = mesh.Receive(1, 0, 1, Whole(got), Now() + 300 * kMillisecond);
  annulusRequest* send = mesh.Send(0, 1, 1, Whole(sent), Now() + 300 * kMillisecond);
  EXPECT_EQ(mesh.Finish(receive).status, ANNULUS_TRANSPORT_DEADLINE);
  EXPECT_EQ(mesh.Finish(send).status, ANNULUS_TRANSPORT_DEADLINE);
}

TEST(PacingTest, AbortDoesNotWaitForTheWire) {
  Mesh mesh(Paced(), 2);
  std::vector<uint8_t> sent = Pattern(1, size_t{200} << 20);  // ten seconds on the wire
  std::vector<uint8_t> got(sent.size());
  const int64_t before = Now();
  annulusRequest* receive = mesh.Receive(1, 0, 1, Whole(got));
  annulusRequest* send = mesh.Send(0, 1, 1, Whole(sent));
  mesh.table().abort(mesh.at(0), "no patience");
  mesh.table().abort(mesh.at(1), "no patience");
  EXPECT_EQ(mesh.Finish(receive).status, ANNULUS_TRANSPORT_ABORTED);
  EXPECT_EQ(mesh.Finish(send).status, ANNULUS_TRANSPORT_ABORTED);
  EXPECT_LT(Now() - before, 9'000 * kMillisecond);
}

TEST(PacingTest, TakesTagsOfEveryKind) {
  Mesh mesh(Paced(), 2);
  std::vector<uint8_t> sent = Pattern(1, 100);
  for (const uint64_t tag : {uint64_t{0}, ~uint64_t{0}, uint64_t{1} << 63, uint64_t{1} << 62}) {
    std::vector<uint8_t> got(100);
    std::vector<uint8_t> back(100);
    annulusRequest* requests[] = {
        mesh.Receive(1, 0, tag, Whole(got)), mesh.Receive(0, 1, tag, Whole(back)),
        mesh.Send(0, 1, tag, Whole(sent)), mesh.Send(1, 0, tag, Whole(sent))};
    for (annulusRequest* request : requests)
      EXPECT_EQ(mesh.Finish(request).status, ANNULUS_TRANSPORT_OK);
    EXPECT_TRUE(sent == got && sent == back) << tag;
  }
}

TEST(NullTransportTest, CompletesAtOnceAndMovesNothing) {
  Mesh mesh({.name = "Null", .table = [] { return NullTransport(); }}, 2);
  std::vector<uint8_t> sent = Pattern(1, 1000);
  std::vector<uint8_t> got(1000, 0xEE);
  annulusRequest* receive = mesh.Receive(1, 0, 1, Whole(got));
  EXPECT_TRUE(mesh.Done(receive));
  const annulusCompletion end = mesh.Finish(receive);
  EXPECT_EQ(end.status, ANNULUS_TRANSPORT_OK);
  EXPECT_EQ(end.bytes, 1000u);
  EXPECT_EQ(end.start_ns, end.end_ns);
  EXPECT_TRUE(got == std::vector<uint8_t>(1000, 0xEE));
  mesh.table().abort(mesh.at(0), "over");
  EXPECT_EQ(mesh.Finish(mesh.Send(0, 1, 2, Whole(sent))).status, ANNULUS_TRANSPORT_ABORTED);
  EXPECT_THAT(mesh.LastError(0), HasSubstr("over"));
}

}  // namespace
}  // namespace annulus::transport
