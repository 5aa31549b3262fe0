// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/transport_nccl/ranks.h"

#include <algorithm>
#include <array>
#include <thread>

#include "gtest/gtest.h"
#include "server/transport/host/clock.h"
#include "server/transport/nccl/nccl_plugin.h"

namespace annulus::transport::nccl {

int64_t InMs(int64_t milliseconds) { return NowNs() + milliseconds * 1'000'000; }

Ranks::Ranks(int32_t size, int32_t window, uint64_t epoch) : table_(NcclPlugin()) {
  for (int32_t rank = 0; rank < size; ++rank) {
    annulusTransportOptions options{};
    options.struct_size = sizeof(options);
    options.group = "model";
    options.epoch = epoch;
    options.rank = rank;
    options.size = size;
    options.host_id = "host";
    options.bind_address = "127.0.0.1";
    options.peer_timeout_seconds = 5;
    options.window_size = window;
    annulusTransport* transport = nullptr;
    annulusTransportHandle handle{};
    EXPECT_EQ(table_->open(&options, &transport, &handle), ANNULUS_TRANSPORT_OK);
    transports_.push_back(transport);
    handles_.push_back(handle);
  }
}

std::vector<annulusTransportStatus> Ranks::Connect(int64_t deadline_ns) const {
  std::vector<annulusTransportStatus> statuses(transports_.size());
  std::vector<std::thread> threads;
  for (int32_t rank = 0; rank < size(); ++rank) {
    threads.emplace_back([this, rank, deadline_ns, &statuses] {
      statuses[static_cast<size_t>(rank)] = table_->connect(at(rank), handles_.data(), deadline_ns);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return statuses;
}

bool Ranks::ConnectsAll() const {
  const std::vector<annulusTransportStatus> statuses = Connect(InMs(60'000));
  return std::all_of(statuses.begin(), statuses.end(),
                     [](annulusTransportStatus each) { return each == ANNULUS_TRANSPORT_OK; });
}

annulusRequest* Ranks::Send(int32_t from, int32_t to, uint64_t tag, std::vector<uint8_t>& bytes,
                            int64_t deadline_ns) const {
  const annulusSegment segment{bytes.data(), bytes.size()};
  annulusRequest* request = nullptr;
  EXPECT_EQ(table_->isend(at(from), to, tag, &segment, 1, deadline_ns, &request),
            ANNULUS_TRANSPORT_OK);
  return request;
}

annulusRequest* Ranks::Receive(int32_t to, int32_t from, uint64_t tag, std::vector<uint8_t>& bytes,
                               int64_t deadline_ns) const {
  const annulusSegment segment{bytes.data(), bytes.size()};
  annulusRequest* request = nullptr;
  EXPECT_EQ(table_->irecv(at(to), from, tag, &segment, 1, deadline_ns, &request),
            ANNULUS_TRANSPORT_OK);
  return request;
}

annulusCompletion Ranks::Finish(annulusRequest* request) const {
  annulusCompletion end{};
  EXPECT_EQ(table_->wait(&request, 1, &end), ANNULUS_TRANSPORT_OK);
  table_->release(request);
  return end;
}

std::string Ranks::LastError(int32_t rank, int32_t* suspect) const {
  std::array<char, 1024> text{};
  int32_t peer = -1;
  table_->last_error(at(rank), text.data(), text.size(), &peer);
  if (suspect != nullptr) *suspect = peer;
  return text.data();
}

void Ranks::Close(int32_t rank) {
  annulusTransport*& transport = transports_[static_cast<size_t>(rank)];
  if (transport != nullptr) table_->close(transport);
  transport = nullptr;
}

void Ranks::CloseAll() {
  std::vector<std::thread> threads;
  for (int32_t rank = 0; rank < size(); ++rank) threads.emplace_back([this, rank] { Close(rank); });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace annulus::transport::nccl
