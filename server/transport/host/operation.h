// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "server/transport/host/segment_cursor.h"
#include "server/transport/transport_plugin.h"

namespace annulus::transport {

// One posted send or receive. The progress thread owns everything but `done` until it is complete;
// after that nobody writes.
struct Operation {
  int32_t peer = -1;
  uint64_t tag = 0;
  bool is_send = false;
  std::vector<annulusSegment> segments;
  uint64_t total = 0;
  int64_t deadline_ns = 0;

  SegmentCursor cursor;
  uint64_t moved = 0;
  bool matched = false;  // a send whose receive is announced
  int64_t start_ns = 0;  // 0: nothing has moved yet

  std::atomic<uint32_t> done{0};  // released after `completion` is written
  annulusCompletion completion{};

  void Finish(annulusTransportStatus status, int64_t now_ns) {
    completion = {status, peer, start_ns == 0 ? now_ns : start_ns, now_ns, moved};
    done.store(1, std::memory_order_release);
    done.notify_all();
  }
};

using OperationPtr = std::shared_ptr<Operation>;

}  // namespace annulus::transport
