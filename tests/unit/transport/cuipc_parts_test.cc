// SPDX-License-Identifier: Apache-2.0
// The parts of cuipc that need no second rank: records, pieces, leave to write.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <random>
#include <set>
#include <thread>

#include "server/transport/cuipc/pieces.h"
#include "server/transport/cuipc/records.h"
#include "server/transport/cuipc/slot_table.h"

namespace annulus::transport::cuipc {
namespace {

Piece DrawPiece(std::mt19937& random) { return {random() % 5, random(), random() % 1000 + 1}; }

TEST(RecordsTest, OffersComeBackAsTheyWent) {
  std::mt19937 random(1);
  for (size_t count = 0; count <= 20; ++count) {
    Offer offer{{static_cast<uint32_t>(random() % kSlots), random()}, random(), count, {}};
    std::vector<Piece> pieces;
    for (size_t i = 0; i < count; ++i) pieces.push_back(DrawPiece(random));
    if (count <= kInlinePieces) offer.pieces = pieces;
    EXPECT_EQ(DecodeOffer(EncodeOffer(offer)), offer);
    EXPECT_EQ(DecodePieces(EncodePieces(pieces)), pieces);
  }
}

TEST(RecordsTest, AnswersComeBackAsTheyWentWithTheirTextCut) {
  Answer answer{ANNULUS_TRANSPORT_RESOURCE, 12, 34, 56, "no memory"};
  EXPECT_EQ(DecodeAnswer(EncodeAnswer(answer)), answer);
  answer.text.assign(1000, 'x');
  EXPECT_EQ(DecodeAnswer(EncodeAnswer(answer))->text, std::string(kTextBytes, 'x'));
}

TEST(RecordsTest, NoiseIsNeitherOfferNorAnswer) {
  std::mt19937 random(2);
  for (int i = 0; i < 2000; ++i) {
    Record record;
    for (uint8_t& byte : record) byte = static_cast<uint8_t>(random());
    EXPECT_FALSE(DecodeOffer(record).has_value());
    EXPECT_FALSE(DecodeAnswer(record).has_value());
  }
  Record offer = EncodeOffer({{kSlots - 1, 1}, 10, 1, {{1, 0, 10}}});
  offer[5] = 0xFF;  // a slot beyond the table
  EXPECT_FALSE(DecodeOffer(offer).has_value());
  Record answer = EncodeAnswer({});
  answer[34] = 1;  // a text longer than the record
  EXPECT_FALSE(DecodeAnswer(answer).has_value());
}

// Allocations side by side, each `bytes` long, from address 1000 on; host memory below.
class Row final : public CopyDevice {
 public:
  explicit Row(size_t bytes) : bytes_(bytes) {}
  absl::StatusOr<Allocation> Find(const void* pointer) override {
    const auto address = reinterpret_cast<uint64_t>(pointer);
    if (address < 1000) return Allocation{};
    const uint64_t index = (address - 1000) / bytes_;
    if (index >= 10) return absl::InvalidArgumentError("beyond the row");
    return Allocation{true, index + 1, 1000 + index * bytes_, bytes_};
  }
  absl::StatusOr<SharedMemory> Export(const Allocation&) override { return Unused(); }
  absl::StatusOr<void*> Import(const SharedMemory&, bool) override { return Unused(); }
  void Release(void*) override {}
  absl::StatusOr<Stream> CreateStream() override { return Unused(); }
  void DestroyStream(Stream) override {}
  absl::StatusOr<Event> CreateEvent() override { return Unused(); }
  void DestroyEvent(Event) override {}
  absl::Status Enqueue(absl::Span<const Copy>, Stream) override { return Unused(); }
  absl::Status Record(Event, Stream) override { return Unused(); }
  absl::StatusOr<bool> Reached(Event) override { return Unused(); }

 private:
  static absl::Status Unused() { return absl::UnimplementedError("not asked for here"); }
  const size_t bytes_;
};

annulusSegment At(uint64_t address, size_t bytes) {
  return {reinterpret_cast<void*>(address), bytes};
}

TEST(PiecesTest, SegmentsAreJoinedAndCutAtAllocations) {
  Row row(100);
  const annulusSegment segments[] = {At(1010, 20), At(1030, 5), At(0, 0), At(1090, 120),
                                     At(1000, 1)};
  const auto placed = Place(&row, segments, 5);
  ASSERT_TRUE(placed.ok()) << placed.status();
  EXPECT_EQ(placed->total, 146u);
  EXPECT_TRUE(placed->on_device);
  EXPECT_THAT(placed->pieces,
              ::testing::ElementsAre(Piece{1, 10, 25}, Piece{1, 90, 10}, Piece{2, 0, 100},
                                     Piece{3, 0, 10}, Piece{1, 0, 1}));
  EXPECT_EQ(placed->memory.size(), 3u);
}

TEST(PiecesTest, RefusesWhatCannotBe) {
  Row row(100);
  const annulusSegment null = At(0, 1);
  const annulusSegment beyond = At(1990, 11);
  const annulusSegment mixed[] = {At(1000, 1), At(10, 1)};
  EXPECT_FALSE(Place(&row, &null, 1).ok());
  EXPECT_FALSE(Place(&row, nullptr, 1).ok());
  EXPECT_FALSE(Place(&row, &beyond, 1).ok());
  EXPECT_FALSE(Place(&row, mixed, 2).ok());
  EXPECT_FALSE(Place(&row, mixed + 1, 1)->on_device);
  EXPECT_TRUE(Place(&row, nullptr, 0)->on_device);
}

// Against the slow twin: byte by byte.
TEST(PiecesTest, CopiesMoveByteNToByteN) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    std::vector<Piece> lists[2];
    std::vector<uint64_t> bases[2];
    std::vector<uint64_t> bytes[2];  // the address of each byte
    uint64_t left[2] = {random() % 500, 0};
    left[1] = left[0];
    for (const int side : {0, 1}) {
      while (left[side] > 0) {
        Piece piece = DrawPiece(random);
        piece.bytes = std::min<uint64_t>(left[side], piece.bytes % 90 + 1);
        left[side] -= piece.bytes;
        lists[side].push_back(piece);
        bases[side].push_back(random());
        for (uint64_t i = 0; i < piece.bytes; ++i)
          bytes[side].push_back(bases[side].back() + piece.offset + i);
      }
    }
    size_t at = 0;
    for (const Copy& copy : CutCopies(lists[0], bases[0], lists[1], bases[1])) {
      ASSERT_GT(copy.bytes, 0u);
      for (size_t i = 0; i < copy.bytes; ++i, ++at) {
        ASSERT_EQ(reinterpret_cast<uint64_t>(copy.from) + i, bytes[0][at]);
        ASSERT_EQ(reinterpret_cast<uint64_t>(copy.to) + i, bytes[1][at]);
      }
    }
    EXPECT_EQ(at, bytes[0].size());
  }
}

class SlotTableTest : public ::testing::Test {
 protected:
  SlotTableTest() {
    UniqueFd fd;
    receiver_ = SlotTable::Create(&fd);
    sender_ = SlotTable::Adopt(fd);
  }
  std::unique_ptr<SlotTable> receiver_;
  std::unique_ptr<SlotTable> sender_;
};

TEST_F(SlotTableTest, OneOfTheTwoGetsTheSlot) {
  const SlotTicket taken = *receiver_->Offer();
  EXPECT_TRUE(sender_->Take(taken));
  EXPECT_FALSE(sender_->Take(taken));
  EXPECT_FALSE(receiver_->Withdraw(taken));
  EXPECT_FALSE(receiver_->Finished(taken));
  sender_->Finish(taken);
  EXPECT_TRUE(receiver_->Finished(taken));
  const SlotTicket withdrawn = *receiver_->Offer();
  EXPECT_TRUE(receiver_->Withdraw(withdrawn));
  EXPECT_FALSE(sender_->Take(withdrawn));
}

TEST_F(SlotTableTest, ALateTakeMissesTheNextOffer) {
  const SlotTicket old = *receiver_->Offer();
  EXPECT_TRUE(receiver_->Withdraw(old));
  receiver_->Return(old);
  const SlotTicket next = *receiver_->Offer();
  EXPECT_EQ(next.slot, old.slot);
  EXPECT_FALSE(sender_->Take(old));
  EXPECT_TRUE(sender_->Take(next));
  EXPECT_FALSE(sender_->Take({kSlots, 1}));
}

TEST_F(SlotTableTest, SlotsEndAndComeAgain) {
  std::set<uint32_t> slots;
  std::vector<SlotTicket> tickets;
  while (const auto ticket = receiver_->Offer()) {
    slots.insert(ticket->slot);
    tickets.push_back(*ticket);
  }
  EXPECT_EQ(slots.size(), kSlots);
  receiver_->Return(tickets.back());
  EXPECT_TRUE(receiver_->Offer().has_value());
}

TEST_F(SlotTableTest, BothSidesAtOnceAgree) {
  for (int round = 0; round < 2000; ++round) {
    const SlotTicket ticket = *receiver_->Offer();
    bool taken = false;
    std::thread sender([&] { taken = sender_->Take(ticket); });
    const bool withdrawn = receiver_->Withdraw(ticket);
    sender.join();
    ASSERT_NE(taken, withdrawn);
    receiver_->Return(ticket);
  }
}

TEST(SlotTableAdoptTest, TakesNothingElse) {
  EXPECT_EQ(SlotTable::Adopt(UniqueFd()), nullptr);
  const UniqueFd plain(::memfd_create("plain", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(plain.get(), 2 * kSlots * 8), 0);
  EXPECT_EQ(SlotTable::Adopt(plain), nullptr) << "it could be cut off under the mapping";
}

}  // namespace
}  // namespace annulus::transport::cuipc
