// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "server/transport/host/unique_fd.h"

// Leave to write: for each receive, one word in memory shared by the two processes says whether the
// sender may still copy into the receiver's memory. It is what makes a failed receive safe to
// complete: taking leave back needs no message and no answer, so it works when the connection is
// gone or the peer is stopped.
//
//   receiver                              sender
//   Offer: OFFERED    -- the offer -->
//                                         Take: OFFERED -> TAKEN, then copies
//   Withdraw: OFFERED -> FREE             (Take fails: nothing is copied)
//   or: TAKEN, so waits for FINISHED      Finish: copies are over
//
// A word also holds a generation, so that a late Take finds another offer in the slot and fails.
namespace annulus::transport::cuipc {

inline constexpr uint32_t kSlots = 4096;  // receives of one rank from one peer at a time

// The receiver's leave to write, as the offer names it.
struct SlotTicket {
  uint32_t slot = 0;
  uint64_t generation = 0;

  bool operator==(const SlotTicket&) const = default;
};

// The words between two ranks. Thread safety: one thread of each side.
class SlotTable {
 public:
  // The creator maps fresh memory and gives its descriptor in `fd`; null when there is none.
  static std::unique_ptr<SlotTable> Create(UniqueFd* fd);
  // Null where `fd` is not what Create gave.
  static std::unique_ptr<SlotTable> Adopt(const UniqueFd& fd);
  ~SlotTable();
  SlotTable(const SlotTable&) = delete;
  SlotTable& operator=(const SlotTable&) = delete;

  // The receiver. Nothing when all slots are in use.
  std::optional<SlotTicket> Offer();
  // True: the sender will never write. False: it has begun, see Finished.
  bool Withdraw(const SlotTicket& ticket);
  bool Finished(const SlotTicket& ticket) const;
  // After Withdraw was true, Finished, or an answer of the sender: the slot may be offered again.
  void Return(const SlotTicket& ticket);

  // The sender. True: it has leave to write, and owes a Finish.
  bool Take(const SlotTicket& ticket);
  void Finish(const SlotTicket& ticket);

 private:
  using Word = std::atomic<uint64_t>;
  static_assert(Word::is_always_lock_free);

  SlotTable(void* base, bool creator);

  void* const base_;
  Word* const mine_;    // for what this side receives
  Word* const theirs_;  // for what this side sends
  std::vector<uint32_t> free_;
  uint64_t generation_ = 0;
};

}  // namespace annulus::transport::cuipc
