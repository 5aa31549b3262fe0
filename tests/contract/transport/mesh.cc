// SPDX-License-Identifier: Apache-2.0
#include "tests/contract/transport/mesh.h"

#include <dirent.h>
#include <time.h>

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
  const std::string host = kind.one_host ? "host" : "host-" + std::to_string(options.rank);
  annulusTransportOptions plain{};
  plain.struct_size = sizeof(plain);
  plain.group = options.group.c_str();
  plain.epoch = options.epoch;
  plain.rank = options.rank;
  plain.size = options.size;
  plain.host_id = host.c_str();
  plain.bind_address = "127.0.0.1";
  plain.peer_timeout_seconds = kPeerTimeoutSeconds;
  OpenRank opened;
  const annulusTransportStatus status =
      kind.table()->open(&plain, &opened.transport, &opened.handle);
  EXPECT_EQ(status, ANNULUS_TRANSPORT_OK);
  return opened;
}

Mesh::Mesh(const Kind& kind, int32_t size) : table_(kind.table()) {
  std::vector<annulusTransportHandle> handles;
  for (int32_t rank = 0; rank < size; ++rank) {
    const OpenRank opened = OpenOne(kind, {.rank = rank, .size = size});
    transports_.push_back(opened.transport);
    handles.push_back(opened.handle);
  }
  std::vector<std::thread> threads;
  for (int32_t rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      EXPECT_EQ(table_->connect(at(rank), handles.data(), Soon()), ANNULUS_TRANSPORT_OK)
          << "rank " << rank << ": " << LastError(rank);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

Mesh::~Mesh() {
  std::vector<std::thread> threads;
  for (int32_t rank = 0; rank < size(); ++rank) threads.emplace_back([this, rank] { Close(rank); });
  for (std::thread& thread : threads) thread.join();
}

void Mesh::Close(int32_t rank) {
  annulusTransport*& transport = transports_[static_cast<size_t>(rank)];
  if (transport != nullptr) table_->close(transport);
  transport = nullptr;
}

annulusRequest* Mesh::Send(int32_t from, int32_t to, uint64_t tag,
                           const std::vector<annulusSegment>& segments, int64_t deadline_ns) const {
  annulusRequest* request = nullptr;
  EXPECT_EQ(
      table_->isend(at(from), to, tag, segments.data(), segments.size(), deadline_ns, &request),
      ANNULUS_TRANSPORT_OK);
  return request;
}

annulusRequest* Mesh::Receive(int32_t at_rank, int32_t from, uint64_t tag,
                              const std::vector<annulusSegment>& segments,
                              int64_t deadline_ns) const {
  annulusRequest* request = nullptr;
  EXPECT_EQ(table_->irecv(at(at_rank), from, tag, segments.data(), segments.size(), deadline_ns,
                          &request),
            ANNULUS_TRANSPORT_OK);
  return request;
}

annulusCompletion Mesh::Finish(annulusRequest* request) const {
  annulusCompletion completion{};
  EXPECT_EQ(table_->wait(&request, 1, &completion), ANNULUS_TRANSPORT_OK);
  table_->release(request);
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
