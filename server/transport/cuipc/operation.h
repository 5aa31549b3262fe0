// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "server/transport/cuipc/pieces.h"
#include "server/transport/cuipc/records.h"
#include "server/transport/host/clock.h"

namespace annulus::transport::cuipc {

// One posted send or receive. The progress thread owns everything but `done` once it is posted.
struct Operation {
  enum class Stage {
    kHostMemory,    // the host transport moves the bytes
    kSharing,       // receive: the peer has to hear of the memory, then of the offer
    kOffered,       // receive: the sender's answer is awaited
    kQuieting,      // receive: failed, but the sender has taken leave to write
    kAwaitsOffer,   // send
    kAwaitsPieces,  // send: the offer has more pieces than its record
    kCopying,       // send: enqueued
    kAnswering,     // send: the receiver is being told
    kOver,          // completed; requests underneath may still have to be returned
  };

  bool is_send = false;
  int32_t peer = -1;
  uint64_t tag = 0;
  int64_t deadline_ns = 0;
  Placement placement;

  Stage stage = Stage::kHostMemory;
  annulusRequest* data = nullptr;   // of kHostMemory
  annulusRequest* offer = nullptr;  // requests of the host transport, both sides
  annulusRequest* pieces = nullptr;
  annulusRequest* answer = nullptr;
  Record offer_record{};
  Record answer_record{};
  std::vector<uint8_t> piece_bytes;

  SlotTicket ticket;
  Offer offered;           // send: what the receiver said
  void* copied = nullptr;  // send: event behind the copies
  int64_t give_up_ns = 0;  // 0: nothing is wrong yet
  Answer ending;           // how it ends, as far as it is known
  uint64_t moved_bytes = 0;

  std::atomic<uint32_t> done{0};  // released after `completion` is written
  annulusCompletion completion{};
};

using OperationPtr = std::shared_ptr<Operation>;

}  // namespace annulus::transport::cuipc
