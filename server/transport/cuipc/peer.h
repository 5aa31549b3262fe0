// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "server/transport/cuipc/copy_device.h"
#include "server/transport/cuipc/pieces.h"
#include "server/transport/cuipc/side_channel.h"

namespace annulus::transport::cuipc {

// What this rank keeps of another: the side channel, which of our allocations the peer may name,
// which of its own are mapped here, and the stream of the copies to it. Belongs to the progress
// thread.
//
// A mapping can never be a stale one: an allocation is known by its id, which CUDA gives once, and
// not by its address. Memory that was freed is forgotten when the next allocation is exported, or
// at once by Forget.
class Peer {
 public:
  Peer(CopyDevice* device, std::unique_ptr<SideChannel> side);
  // Releases the stream and all mappings, unless copies never ended.
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  SideChannel& side() { return *side_; }
  SlotTable& slots() { return *side_->slots(); }
  bool ended() const { return ended_; }

  // The receiving side. Exports what the peer does not know yet.
  absl::Status Share(const std::vector<Allocation>& memory);
  // Sends what waits. True when the peer knows all that was shared.
  bool Flush();
  // The peer may map this allocation no longer.
  void Forget(uint64_t id);
  // Whether the peer has confirmed that, or is gone.
  bool Forgotten(uint64_t id) const { return ended_ || unconfirmed_.count(id) == 0; }

  // The sending side. Hears what the peer says; maps and unmaps.
  absl::Status Hear();
  // Addresses of the allocations that pieces lie in. INVALID_ARGUMENT: one that the peer did not
  // share, or a piece beyond its end.
  absl::StatusOr<std::vector<uint64_t>> Resolve(const std::vector<Piece>& pieces);

  // Copies to the peer are counted from their start to their end; while there are any, nothing is
  // unmapped.
  absl::StatusOr<CopyDevice::Stream> StreamFor();
  void BeginCopying() { ++copying_; }
  void EndCopying();
  int copying() const { return copying_; }

 private:
  struct Import {
    SharedMemory memory;
    void* mapped = nullptr;  // null until it is first written to
  };

  void Queue(NewsType type, SharedMemory memory);
  void Unmap();

  CopyDevice* const device_;
  std::unique_ptr<SideChannel> side_;
  bool ended_ = false;

  std::map<uint64_t, Allocation> told_;  // by id
  std::set<uint64_t> unconfirmed_;       // forgotten here, perhaps not yet there
  std::deque<std::pair<NewsType, SharedMemory>> outbox_;

  std::map<uint64_t, Import> imports_;  // by id
  std::vector<uint64_t> to_unmap_;
  CopyDevice::Stream stream_ = nullptr;
  int copying_ = 0;
};

}  // namespace annulus::transport::cuipc
