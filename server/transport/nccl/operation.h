// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "server/transport/transport_plugin.h"

namespace annulus::transport::nccl {

// One posted send or receive. The progress thread owns everything but `done` until it is complete;
// after that nobody writes.
struct Operation {
  int32_t peer = -1;        // rank
  int32_t peer_index = -1;  // member of the communicator
  uint64_t tag = 0;
  bool is_send = false;
  std::vector<annulusSegment> segments;
  uint64_t total = 0;
  int64_t deadline_ns = 0;

  uint64_t id = 0;           // of this rank and communicator, from 1
  bool withdrawing = false;  // its deadline has passed; the leader is asked to leave it out

  std::atomic<uint32_t> done{0};  // released after `completion` is written
  annulusCompletion completion{};
};

using OperationPtr = std::shared_ptr<Operation>;
// Operations that were posted together.
using Batch = std::vector<OperationPtr>;

}  // namespace annulus::transport::nccl
