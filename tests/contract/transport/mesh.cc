// SPDX-License-Identifier: Apache-2.0
#include "tests/contract/transport/mesh.h"

#include <dirent.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <thread>

#include "gtest/gtest.h"

namespace annulus::transport {

int64_t Now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

int64_t Soon() { return Now() + int64_t{60} * 1'000'000'000; }

OpenRank OpenOne(const Kind& kind, const RankOptions& options) {
  std::string host = kind.one_host ? "host" : "host-" + std::to_string(options.rank);
  if (!options.host.empty()) host = options.host;
  annulusTransportOptions plain{};
  plain.struct_size = sizeof(plain);
  plain.group = options.group.c_str();
  plain.epoch = options.epoch;
  plain.rank = options.rank;
  plain.size = options.size;
  plain.host_id = host.c_str();
  plain.bind_address = "127.0.0.1";
  plain.peer_timeout_seconds = kPeerTimeoutSeconds;
  plain.window_size = options.window;
  OpenRank opened;
  const annulusTransportStatus status =
      kind.table()->open(&plain, &opened.transport, &opened.handle);
  EXPECT_EQ(status, ANNULUS_TRANSPORT_OK);
  return opened;
}

Mesh::Mesh(const Kind& kind, const Peering& peering) : table_(kind.table()), memory_(kind.memory) {
  std::vector<annulusTransportHandle> handles;
  for (int32_t rank = 0; rank < peering.size; ++rank) {
    const OpenRank opened = OpenOne(
        kind,
        {.rank = rank, .size = peering.size, .window = peering.window, .host = peering.host(rank)});
    transports_.push_back(opened.transport);
    handles.push_back(opened.handle);
  }
  std::vector<std::thread> threads;
  for (int32_t rank = 0; rank < peering.size; ++rank) {
    threads.emplace_back([&, rank] {
      std::vector<annulusTransportHandle> known(handles.size());
      for (int32_t peer = 0; peer < peering.size; ++peer) {
        const auto index = static_cast<size_t>(peer);
        if (peer == rank || peering.are_peers(rank, peer)) known[index] = handles[index];
      }
      EXPECT_EQ(table_->connect(at(rank), known.data(), Soon()), ANNULUS_TRANSPORT_OK)
          << "rank " << rank << ": " << LastError(rank);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

Mesh::~Mesh() {
  std::vector<std::thread> threads;
  for (int32_t rank = 0; rank < size(); ++rank) threads.emplace_back([this, rank] { Close(rank); });
  for (std::thread& thread : threads) thread.join();
  if (memory_ != nullptr) {
    EXPECT_EQ(memory_->Violations(), "");
  }
}

void Mesh::Close(int32_t rank) {
  annulusTransport*& transport = transports_[static_cast<size_t>(rank)];
  if (transport != nullptr) table_->close(transport);
  transport = nullptr;
}

// A few segments an allocation, from its end to its start and apart from each other: neither order
// nor place is what a transport could hope for.
Mesh::Staged Mesh::Stage(const std::vector<annulusSegment>& segments, bool upload) const {
  constexpr size_t kSegmentsPerAllocation = 100;
  constexpr size_t kGapBytes = 16;
  Staged staged{.host = segments, .device = segments};
  for (size_t first = 0; first < segments.size(); first += kSegmentsPerAllocation) {
    const size_t last = std::min(first + kSegmentsPerAllocation, segments.size());
    size_t bytes = 1;
    for (size_t i = first; i < last; ++i) bytes += segments[i].bytes + kGapBytes;
    auto* at = static_cast<uint8_t*>(memory_->Allocate(bytes)) + bytes;
    staged.allocations.push_back(at - bytes);
    for (size_t i = first; i < last; ++i) {
      at -= segments[i].bytes + kGapBytes;
      staged.device[i].data = at;
      if (upload && segments[i].bytes > 0) memory_->Upload(at, segments[i].data, segments[i].bytes);
    }
  }
  return staged;
}

annulusRequest* Mesh::Post(int32_t rank, bool is_send, int32_t peer, uint64_t tag,
                           const std::vector<annulusSegment>& segments, int64_t deadline_ns) const {
  Staged staged;
  if (memory_ != nullptr) staged = Stage(segments, is_send);
  const std::vector<annulusSegment>& posted = memory_ != nullptr ? staged.device : segments;
  annulusRequest* request = nullptr;
  EXPECT_EQ((is_send ? table_->isend : table_->irecv)(at(rank), peer, tag, posted.data(),
                                                      posted.size(), deadline_ns, &request),
            ANNULUS_TRANSPORT_OK);
  if (memory_ == nullptr) return request;
  if (is_send) staged.host.clear();
  std::lock_guard lock(mutex_);
  staged_[request] = std::move(staged);
  return request;
}

annulusRequest* Mesh::Send(int32_t from, int32_t to, uint64_t tag,
                           const std::vector<annulusSegment>& segments, int64_t deadline_ns) const {
  return Post(from, true, to, tag, segments, deadline_ns);
}

annulusRequest* Mesh::Receive(int32_t at_rank, int32_t from, uint64_t tag,
                              const std::vector<annulusSegment>& segments,
                              int64_t deadline_ns) const {
  return Post(at_rank, false, from, tag, segments, deadline_ns);
}

annulusCompletion Mesh::Finish(annulusRequest* request) const {
  annulusCompletion completion{};
  EXPECT_EQ(table_->wait(&request, 1, &completion), ANNULUS_TRANSPORT_OK);
  Staged staged;
  if (memory_ != nullptr) {
    std::lock_guard lock(mutex_);
    staged = std::move(staged_[request]);
    staged_.erase(request);
  }
  table_->release(request);
  for (size_t i = 0; i < staged.host.size() && completion.status == ANNULUS_TRANSPORT_OK; ++i) {
    if (staged.host[i].bytes == 0) continue;
    memory_->Download(staged.host[i].data, staged.device[i].data, staged.host[i].bytes);
  }
  for (void* allocation : staged.allocations) memory_->Free(allocation);
  return completion;
}

bool Mesh::Done(annulusRequest* request) const {
  int32_t done = 0;
  EXPECT_EQ(table_->test(request, &done, nullptr), ANNULUS_TRANSPORT_OK);
  return done != 0;
}

std::string Mesh::LastError(int32_t rank, int32_t* peer) const {
  std::array<char, 1024> text{};
  int32_t suspect = -1;
  table_->last_error(at(rank), text.data(), text.size(), &suspect);
  if (peer != nullptr) *peer = suspect;
  return text.data();
}

std::vector<annulusSegment> Whole(std::vector<uint8_t>& bytes) {
  return {{bytes.data(), bytes.size()}};
}

std::vector<uint8_t> Pattern(uint64_t seed, size_t bytes) {
  std::vector<uint8_t> pattern(bytes);
  uint64_t state = seed * 0x9E3779B97F4A7C15ull + 1;
  for (size_t i = 0; i < bytes; i += sizeof(state)) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    std::memcpy(pattern.data() + i, &state, std::min(sizeof(state), bytes - i));
  }
  return pattern;
}

size_t CountDescriptors() {
  size_t count = 0;
  DIR* directory = ::opendir("/proc/self/fd");
  while (::readdir(directory) != nullptr) ++count;
  ::closedir(directory);
  return count;
}

}  // namespace annulus::transport
