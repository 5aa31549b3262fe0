// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <set>

#include "server/transport/transport.h"
#include "server/worker/device.h"

namespace annulus::worker {

// Where `transport` reads and writes what it moves; null: nothing is moved.
Memory WireOf(const Device& device, const transport::Transport* transport);

// Introduces the slabs that transfers read and write to the transports of the groups: each slab is
// registered once with each transport that moves memory of its kind, when the later of the two is
// made, and deregistered before it is freed. What is registered when a transport closes is the
// transport's to let go.
//
// A transport that will not register a slab, or not let go of one, is aborted and asked no more: a
// peer whose slabs are registered may wait for ever for one that are not, and memory that comes
// back at an address must not be taken for what was there before. Thread safe. Both calls about
// slabs and AddTransport block for as long as the transports do, a second or so at most.
class WireMemory {
 public:
  explicit WireMemory(std::shared_ptr<Device> device) : device_(std::move(device)) {}

  void AddSlab(void* data, size_t bytes, Memory memory);
  void RemoveSlab(void* data);
  // The transport stays until RemoveTransport.
  void AddTransport(transport::Transport* transport);
  void RemoveTransport(transport::Transport* transport);

 private:
  struct Slab {
    size_t bytes = 0;
    Memory memory = Memory::kDevice;
  };

  const std::shared_ptr<Device> device_;
  std::mutex mutex_;
  std::map<void*, Slab> slabs_;                 // guarded by mutex_
  std::set<transport::Transport*> transports_;  // guarded by mutex_
};

}  // namespace annulus::worker
