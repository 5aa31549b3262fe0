// SPDX-License-Identifier: Apache-2.0
// Random transfers over an emulated copy engine that is late: random segments on both sides, in
// random order, some impossible, some cut short, memory freed the moment an operation is over. No
// byte may move after that (the fake looks), none may be wrong, nothing may be left behind.
#include <algorithm>
#include <random>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/transport/cuipc/cuipc_plugin.h"
#include "tests/contract/transport/fake_gpu.h"
#include "tests/contract/transport/mesh.h"
#include "tests/support/under_sanitizer.h"

namespace annulus::transport {
namespace {

using cuipc::FakeGpu;
using ::testing::HasSubstr;

constexpr uint32_t kRounds = kUnderSanitizer ? 10 : 40;
constexpr int64_t kMillisecond = 1'000'000;

class Dice {
 public:
  explicit Dice(uint32_t seed) : random_(seed) {}
  size_t Draw(size_t most) { return std::uniform_int_distribution<size_t>(0, most)(random_); }
  bool OneIn(size_t n) { return Draw(n - 1) == 0; }
  template <typename List>
  void Shuffle(List* list) {
    std::shuffle(list->begin(), list->end(), random_);
  }

 private:
  std::mt19937 random_;
};

std::vector<annulusSegment> Cut(std::vector<uint8_t>& bytes, Dice& dice) {
  std::vector<size_t> at = {0, bytes.size()};
  for (size_t cuts = dice.OneIn(4) ? dice.Draw(300) : dice.Draw(4); cuts > 0; --cuts)
    at.push_back(dice.Draw(bytes.size()));
  std::sort(at.begin(), at.end());
  std::vector<annulusSegment> segments;
  for (size_t i = 1; i < at.size(); ++i)
    segments.push_back({bytes.data() + at[i - 1], at[i] - at[i - 1]});
  return segments;
}

struct Transfer {
  int32_t from = 0;
  int32_t to = 0;
  uint64_t tag = 0;
  int64_t timeout_ns = 0;  // of both sides; 0: none that matters
  std::vector<uint8_t> sent;
  std::vector<uint8_t> got;
  annulusCompletion send_end{};
  annulusCompletion receive_end{};

  bool fits() const { return sent.size() == got.size(); }
};

std::vector<Transfer> DrawTransfers(Dice& dice, int32_t size, bool late) {
  std::vector<Transfer> transfers(1 + dice.Draw(20));
  for (size_t i = 0; i < transfers.size(); ++i) {
    Transfer& transfer = transfers[i];
    transfer.from = static_cast<int32_t>(dice.Draw(static_cast<size_t>(size) - 1));
    transfer.to = (transfer.from + 1 + static_cast<int32_t>(dice.Draw(size_t(size) - 2))) % size;
    transfer.tag = i;
    transfer.sent = Pattern(i, dice.OneIn(6) ? 0 : dice.Draw(200'000));
    transfer.got.resize(transfer.sent.size() + (dice.OneIn(8) ? 1 : 0));
    if (late && dice.OneIn(3)) transfer.timeout_ns = int64_t(dice.Draw(3000)) * 1000 + 1;
  }
  return transfers;
}

// Posts both halves of all transfers in random order, calls `meanwhile`, and waits for all.
template <typename Function>
void RunAll(const Mesh& mesh, Dice& dice, std::vector<Transfer>* transfers, Function meanwhile) {
  std::vector<std::pair<size_t, bool>> posts;
  for (size_t i = 0; i < transfers->size(); ++i) {
    posts.emplace_back(i, false);
    posts.emplace_back(i, true);
  }
  dice.Shuffle(&posts);
  std::vector<std::pair<annulusRequest*, annulusCompletion*>> requests;
  for (const auto& [index, is_send] : posts) {
    Transfer& transfer = (*transfers)[index];
    const int64_t deadline = transfer.timeout_ns == 0 ? Soon() : Now() + transfer.timeout_ns;
    requests.emplace_back(is_send ? mesh.Send(transfer.from, transfer.to, transfer.tag,
                                              Cut(transfer.sent, dice), deadline)
                                  : mesh.Receive(transfer.to, transfer.from, transfer.tag,
                                                 Cut(transfer.got, dice), deadline),
                          is_send ? &transfer.send_end : &transfer.receive_end);
  }
  meanwhile();
  dice.Shuffle(&requests);
  for (const auto& [request, end] : requests) *end = mesh.Finish(request);
}

class CuipcProperty : public ::testing::Test {
 protected:
  CuipcProperty() : descriptors_(CountDescriptors()) {}
  void TearDown() override {
    FakeGpu::The().Delay(1, 0);
    const FakeGpu::Census left = FakeGpu::The().Count();
    EXPECT_EQ(left.streams, 0);
    EXPECT_EQ(left.events, 0);
    EXPECT_EQ(left.mappings, 0);
    EXPECT_EQ(CountDescriptors(), descriptors_);
  }

  const Kind kind_ = {
      .name = "Cuipc", .table = [] { return cuipc::CuipcPlugin(); }, .memory = &FakeGpu::The()};
  const size_t descriptors_;
};

TEST_F(CuipcProperty, EveryTransferThatFitsArrives) {
  for (uint32_t seed = 0; seed < kRounds; ++seed) {
    SCOPED_TRACE(seed);
    Dice dice(seed);
    FakeGpu::The().Delay(seed, 200);
    const auto size = static_cast<int32_t>(2 + dice.Draw(3));
    Mesh mesh(kind_, size);
    std::vector<Transfer> transfers = DrawTransfers(dice, size, false);
    RunAll(mesh, dice, &transfers, [] {});
    for (const Transfer& transfer : transfers) {
      const auto expected = transfer.fits() ? ANNULUS_TRANSPORT_OK : ANNULUS_TRANSPORT_MISMATCH;
      EXPECT_EQ(transfer.send_end.status, expected);
      EXPECT_EQ(transfer.receive_end.status, expected);
      if (!transfer.fits()) continue;
      EXPECT_TRUE(transfer.sent == transfer.got);
      EXPECT_EQ(transfer.send_end.start_ns, transfer.receive_end.start_ns);
    }
  }
}

TEST_F(CuipcProperty, LateTransfersFailAloneAndTouchNothingAfterwards) {
  for (uint32_t seed = 0; seed < kRounds; ++seed) {
    SCOPED_TRACE(seed);
    Dice dice(seed + 1000);
    FakeGpu::The().Delay(seed, 1000);
    Mesh mesh(kind_, 3);
    std::vector<Transfer> transfers = DrawTransfers(dice, 3, true);
    RunAll(mesh, dice, &transfers, [] {});
    for (const Transfer& transfer : transfers) {
      if (transfer.receive_end.status == ANNULUS_TRANSPORT_OK) {
        EXPECT_TRUE(transfer.sent == transfer.got);
      } else if (transfer.timeout_ns == 0) {
        EXPECT_FALSE(transfer.fits());
      }
      if (transfer.timeout_ns == 0 && transfer.fits()) {
        EXPECT_EQ(transfer.send_end.status, ANNULUS_TRANSPORT_OK);
      }
    }
  }
}

TEST_F(CuipcProperty, AbortAtAnyPointEndsEverythingAndTouchesNothingAfterwards) {
  for (uint32_t seed = 0; seed < kRounds; ++seed) {
    SCOPED_TRACE(seed);
    Dice dice(seed + 2000);
    FakeGpu::The().Delay(seed, 500);
    Mesh mesh(kind_, 3);
    std::vector<Transfer> transfers = DrawTransfers(dice, 3, false);
    const auto culprit = static_cast<int32_t>(dice.Draw(2));
    const int64_t wait_ns = int64_t(dice.Draw(3)) * kMillisecond / 2;
    RunAll(mesh, dice, &transfers, [&] {
      std::this_thread::sleep_for(std::chrono::nanoseconds(wait_ns));
      mesh.table().abort(mesh.at(culprit), "drawn");
    });
    for (const Transfer& transfer : transfers) {
      for (const annulusCompletion& end : {transfer.send_end, transfer.receive_end}) {
        EXPECT_TRUE(end.status == ANNULUS_TRANSPORT_OK || end.status == ANNULUS_TRANSPORT_ABORTED ||
                    (end.status == ANNULUS_TRANSPORT_MISMATCH && !transfer.fits()))
            << end.status;
      }
      if (transfer.receive_end.status == ANNULUS_TRANSPORT_OK) {
        EXPECT_TRUE(transfer.sent == transfer.got);
      }
    }
  }
}

TEST_F(CuipcProperty, ClosingAtAnyPointTouchesNothingAfterwards) {
  for (uint32_t seed = 0; seed < kRounds; ++seed) {
    SCOPED_TRACE(seed);
    Dice dice(seed + 3000);
    FakeGpu::The().Delay(seed, 500);
    Mesh mesh(kind_, 3);
    std::vector<Transfer> transfers = DrawTransfers(dice, 3, false);
    RunAll(mesh, dice, &transfers, [&] { mesh.Close(static_cast<int32_t>(dice.Draw(2))); });
    for (const Transfer& transfer : transfers) {
      if (transfer.receive_end.status == ANNULUS_TRANSPORT_OK) {
        EXPECT_TRUE(transfer.sent == transfer.got);
      }
    }
  }
}

}  // namespace
}  // namespace annulus::transport
