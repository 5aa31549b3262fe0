// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/transport/transport_plugin.h"

namespace annulus::transport::nccl {

int64_t InMs(int64_t milliseconds);  // a deadline so far from now

// All ranks of a group over the model, in this process.
class Ranks {
 public:
  Ranks(int32_t size, int32_t window, uint64_t epoch = 1);
  ~Ranks() { CloseAll(); }
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  int32_t size() const { return static_cast<int32_t>(transports_.size()); }
  annulusTransport* at(int32_t rank) const { return transports_[static_cast<size_t>(rank)]; }
  const annulusTransportV1& table() const { return *table_; }
  const std::vector<annulusTransportHandle>& handles() const { return handles_; }

  // All ranks at once, each in a thread of its own; what each returned.
  std::vector<annulusTransportStatus> Connect(int64_t deadline_ns) const;
  bool ConnectsAll() const;

  annulusRequest* Send(int32_t from, int32_t to, uint64_t tag, std::vector<uint8_t>& bytes,
                       int64_t deadline_ns) const;
  annulusRequest* Receive(int32_t at, int32_t from, uint64_t tag, std::vector<uint8_t>& bytes,
                          int64_t deadline_ns) const;
  annulusCompletion Finish(annulusRequest* request) const;
  std::string LastError(int32_t rank, int32_t* suspect = nullptr) const;
  void Close(int32_t rank);
  void CloseAll();  // at once

 private:
  const annulusTransportV1* const table_;
  std::vector<annulusTransport*> transports_;
  std::vector<annulusTransportHandle> handles_;
};

}  // namespace annulus::transport::nccl
