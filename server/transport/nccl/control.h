// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/transport/nccl/fault.h"
#include "server/transport/nccl/message.h"
#include "server/transport/transport_plugin.h"

namespace annulus::transport::nccl {

// Messages between ranks over a transport that moves host memory: the host transport. Who may
// belong, whether peers live, abort that reaches every rank, and who is to blame come from it.
//
// A message travels as frames of one size, each a transfer whose tag is its number; the receiver
// has one receive posted for each peer that it listens to, until the last word has come. Messages
// between two ranks keep their order.
//
// Connect blocks and belongs to the caller of connect; Abort and the constructor's `notify` come
// from any thread; the rest belongs to one thread.
class Control {
 public:
  struct Received {
    int32_t from = 0;
    Message message;
  };

  // Takes over `transport`, opened from `table`. `notify(context)` is called whenever Poll may
  // find something new.
  Control(const annulusTransportV1* table, annulusTransport* transport, void (*notify)(void*),
          void* context);
  ~Control();
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  annulusTransportStatus Connect(const annulusTransportHandle* handles, int64_t deadline_ns);
  // Ends every rank of the group, telling them the fault.
  void Abort(const Fault& fault);
  // The first failure seen, with what the rank that aborted wanted to say.
  Fault LastFault(annulusTransportStatus status) const;
  void Stats(annulusTransportStats* stats) const;

  // After Connect. Listens to `peer`, until its last word.
  void Listen(int32_t peer);
  void Send(int32_t peer, const Message& message);
  // What has come since; nothing more once there is a fault.
  std::vector<Received> Poll();
  const std::optional<Fault>& fault() const { return fault_; }
  // Everything that was sent has been taken by its receivers.
  bool Flushed() const;

 private:
  struct Frame;
  struct Edge;

  Edge* EdgeTo(int32_t peer);
  void Receive(Edge* edge);
  void Push(Edge* edge);
  bool TakeFrame(Edge* edge, std::vector<Received>* received);
  bool Completed(annulusRequest** request);

  const annulusTransportV1* const table_;
  annulusTransport* const transport_;
  std::map<int32_t, std::unique_ptr<Edge>> edges_;
  std::optional<Fault> fault_;
};

}  // namespace annulus::transport::nccl
