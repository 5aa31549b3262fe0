// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "server/transport/transport_plugin.h"
#include "tests/contract/transport/memory.h"

namespace annulus::transport {

// A transport under test: a table and how its ranks are placed.
struct Kind {
  std::string name;
  std::function<const annulusTransportV1*()> table;
  bool one_host = true;  // otherwise every rank names a host of its own
  // Where segments lie; null: where the test has them. A Mesh has the memory of an operation from
  // its posting to its end, and no longer.
  DeviceMemory* memory = nullptr;
  // The others go on after a rank has closed. A communicator of GPUs cannot lose a member.
  bool outlives_a_rank = true;
};

inline constexpr double kPeerTimeoutSeconds = 1.0;

int64_t Now();
// A deadline that no healthy operation comes near.
int64_t Soon();

struct OpenRank {
  annulusTransport* transport = nullptr;
  annulusTransportHandle handle{};
};

struct RankOptions {
  std::string group = "contract";
  uint64_t epoch = 7;
  int32_t rank = 0;
  int32_t size = 2;
  int32_t window = 0;
  std::string host;  // "": where the kind has it
};

// Opens one rank; the transport is null on failure.
OpenRank OpenOne(const Kind& kind, const RankOptions& options);

// Which ranks of a group are peers.
struct Peering {
  int32_t size = 2;
  int32_t window = 0;
  // Symmetric. The handles of all others are zeros.
  std::function<bool(int32_t, int32_t)> are_peers = [](int32_t, int32_t) { return true; };
  // Of a rank; "": where the kind has it.
  std::function<std::string(int32_t)> host = [](int32_t) { return ""; };
};

// All ranks of a group inside this process, connected.
class Mesh {
 public:
  Mesh(const Kind& kind, int32_t size) : Mesh(kind, Peering{.size = size}) {}
  Mesh(const Kind& kind, const Peering& peering);
  Mesh(const Mesh&) = delete;
  Mesh& operator=(const Mesh&) = delete;
  ~Mesh();

  const annulusTransportV1& table() const { return *table_; }
  annulusTransport* at(int32_t rank) const { return transports_[static_cast<size_t>(rank)]; }
  int32_t size() const { return static_cast<int32_t>(transports_.size()); }
  void Close(int32_t rank);

  annulusRequest* Send(int32_t from, int32_t to, uint64_t tag,
                       const std::vector<annulusSegment>& segments,
                       int64_t deadline_ns = Soon()) const;
  annulusRequest* Receive(int32_t at, int32_t from, uint64_t tag,
                          const std::vector<annulusSegment>& segments,
                          int64_t deadline_ns = Soon()) const;
  // Waits for one operation and releases it.
  annulusCompletion Finish(annulusRequest* request) const;
  bool Done(annulusRequest* request) const;
  std::string LastError(int32_t rank, int32_t* peer = nullptr) const;

 private:
  // The segments of an operation in device memory.
  struct Staged {
    std::vector<annulusSegment> host;
    std::vector<annulusSegment> device;
    std::vector<void*> allocations;
  };
  Staged Stage(const std::vector<annulusSegment>& segments, bool upload) const;
  annulusRequest* Post(int32_t rank, bool is_send, int32_t peer, uint64_t tag,
                       const std::vector<annulusSegment>& segments, int64_t deadline_ns) const;

  const annulusTransportV1* table_;
  DeviceMemory* const memory_;
  std::vector<annulusTransport*> transports_;
  mutable std::mutex mutex_;
  mutable std::map<annulusRequest*, Staged> staged_;
};

// The whole of `bytes` as one segment.
std::vector<annulusSegment> Whole(std::vector<uint8_t>& bytes);

// Bytes that depend on the seed, so that mixed-up messages are told apart.
std::vector<uint8_t> Pattern(uint64_t seed, size_t bytes);

// Open descriptors of this process.
size_t CountDescriptors();

}  // namespace annulus::transport
