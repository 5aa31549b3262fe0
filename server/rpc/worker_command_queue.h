// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <variant>

#include "annulus/v1/coordinator.pb.h"
#include "server/metrics/metric_sink.h"
#include "server/worker/engine.h"

namespace annulus::rpc {

// Carries out the coordinator's commands that may take long (Prepare, Connect, Release), in their
// order, on a thread of its own, so that a Fault is heard meanwhile.
//
//   WorkerCommandQueue commands(engine, sink, [&](uint64_t stream, v1::WorkerMessage m) { ... });
//   commands.Push(stream, command.prepare());
//   commands.Forget(fault.group(), fault.epoch());  // a dead epoch is not prepared after all
//   engine->FaultGroup(...);                        // and what blocks on it ends
//
// Thread safe. Answers come from the queue's thread, tagged with the stream that brought the
// command.
class WorkerCommandQueue {
 public:
  using Command = std::variant<v1::PrepareGroup, v1::ConnectGroup, v1::ReleaseGroup>;
  using Answer = std::function<void(uint64_t stream, v1::WorkerMessage message)>;

  // More commands than this in the queue mean that something is wrong.
  static constexpr size_t kMaxWaiting = 1024;

  // `engine` and `sink` (may be null) outlive the queue.
  WorkerCommandQueue(worker::Engine* engine, metrics::MetricSink* sink, Answer answer);
  // Drops what waits and ends once the running command has.
  ~WorkerCommandQueue();
  WorkerCommandQueue(const WorkerCommandQueue&) = delete;
  WorkerCommandQueue& operator=(const WorkerCommandQueue&) = delete;

  // False when kMaxWaiting commands wait.
  bool Push(uint64_t stream, Command command);
  // Drops the waiting Prepare and Connect of this group up to this epoch.
  void Forget(const std::string& group, uint64_t epoch);
  // Drops everything that waits.
  void Clear();

 private:
  struct Entry {
    uint64_t stream;
    Command command;
  };

  void Run();
  void Execute(const Entry& entry);
  v1::GroupPrepared Prepare(const v1::PrepareGroup& prepare);
  v1::GroupConnected Connect(const v1::ConnectGroup& connect);

  worker::Engine* const engine_;
  metrics::MetricSink* const sink_;
  const Answer answer_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Entry> waiting_;  // guarded by mutex_
  bool stopping_ = false;      // guarded by mutex_
  // Of the thread alone: what was prepared last, by group.
  std::map<std::string, worker::GroupAssignment> prepared_;
  std::thread thread_;
};

}  // namespace annulus::rpc
