// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/support/server_callback.h>

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "annulus/v1/coordinator.pb.h"
#include "server/coordinator/action.h"
#include "server/coordinator/event.h"
#include "server/rpc/coordinator_loop.h"

namespace annulus::rpc {

// The coordinator's end of one WorkerSession: turns messages into events, one at a time, and sends
// commands in order. Owns itself until gRPC is done with it; whoever else needs it holds a share.
class CoordinatorStream final
    : public grpc::ServerBidiReactor<v1::WorkerMessage, v1::WorkerCommand>,
      public std::enable_shared_from_this<CoordinatorStream> {
 public:
  // Commands that wait while one is being written. More: the worker does not read, and goes.
  static constexpr size_t kQueueMax = 1024;

  // `loop` outlives the stream. `on_done` is called last, from any thread.
  CoordinatorStream(coordinator::SessionId id, CoordinatorLoop* loop,
                    std::function<void(coordinator::SessionId)> on_done);

  // Starts reading. Once, after the stream is owned by a shared_ptr.
  void Open();
  // Queues a Send action; dropped when the stream is ending. Thread safe, does not block.
  void Send(coordinator::Action action);
  // Ends the stream with this status after the write in flight; what waits is dropped. The first
  // status stands. Thread safe, does not block.
  void Close(const absl::Status& status);

  bool said_hello() const;
  coordinator::TimeMs opened_ms() const { return opened_ms_; }

 private:
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  void Take(const v1::WorkerMessage& message);
  void ReadNext();
  void Leave(const absl::Status& status);
  // Under mutex_. gRPC never calls back into the stream from within these.
  void Pump();
  void FinishWhenQuiet();

  const coordinator::SessionId id_;
  CoordinatorLoop* const loop_;
  const std::function<void(coordinator::SessionId)> on_done_;
  const coordinator::TimeMs opened_ms_;
  std::shared_ptr<CoordinatorStream> self_;
  v1::WorkerMessage incoming_;

  mutable std::mutex mutex_;
  std::deque<coordinator::Action> queue_;
  v1::WorkerCommand outgoing_;
  absl::Status status_;
  bool hello_ = false;
  bool writing_ = false;
  bool closing_ = false;
  bool finished_ = false;
};

}  // namespace annulus::rpc
