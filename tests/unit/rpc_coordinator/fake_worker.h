// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "annulus/v1/coordinator.grpc.pb.h"

namespace annulus::rpc {

inline constexpr auto kTestDeadline = std::chrono::seconds(20);

// Speaks the worker's side of WorkerSession: says hello, beats, and, unless told not to, answers
// every prepare and connect.
class FakeWorker {
 public:
  FakeWorker(const std::shared_ptr<grpc::Channel>& channel, const v1::WorkerHello& hello)
      : stub_(v1::Coordinator::NewStub(channel)), stream_(stub_->WorkerSession(&context_)) {
    v1::WorkerMessage message;
    *message.mutable_hello() = hello;
    Write(message);
    reader_ = std::thread([this] { Read(); });
    beater_ = std::thread([this] { Beat(); });
  }

  ~FakeWorker() {
    Kill();
    reader_.join();
    ending_ = true;
    beater_.join();
  }

  static v1::WorkerHello Hello(const std::string& name, uint64_t incarnation = 1) {
    v1::WorkerHello hello;
    hello.set_name(name);
    hello.set_incarnation(incarnation);
    hello.set_address(name + ":1");
    hello.set_node("node");
    return hello;
  }

  // The process dies: its stream breaks.
  void Kill() { context_.TryCancel(); }
  // The process stops: the stream stands and nothing is heard any more.
  void Silence() { silent_ = true; }
  void AnswerNothing() { answers_ = false; }

  bool Write(const v1::WorkerMessage& message) {
    const std::lock_guard lock(write_mutex_);
    return stream_->Write(message);
  }

  // Waits until a command that `wanted` accepts has come; false after kTestDeadline or when the
  // stream has ended without one.
  bool Await(const std::function<bool(const v1::WorkerCommand&)>& wanted,
             v1::WorkerCommand* found = nullptr) {
    std::unique_lock lock(mutex_);
    const auto come = [&] {
      for (const v1::WorkerCommand& command : commands_) {
        if (!wanted(command)) continue;
        if (found != nullptr) *found = command;
        return true;
      }
      return false;
    };
    changed_.wait_for(lock, kTestDeadline, [&] { return come() || ended_; });
    return come();
  }

  // How the stream ended; DEADLINE_EXCEEDED if it has not.
  grpc::Status AwaitEnd() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, kTestDeadline, [&] { return ended_; })) {
      return grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "the stream has not ended");
    }
    return status_;
  }

 private:
  void Read() {
    v1::WorkerCommand command;
    while (stream_->Read(&command)) {
      if (answers_ && !silent_) Answer(command);
      const std::lock_guard lock(mutex_);
      commands_.push_back(command);
      changed_.notify_all();
    }
    const grpc::Status status = stream_->Finish();
    const std::lock_guard lock(mutex_);
    status_ = status;
    ended_ = true;
    changed_.notify_all();
  }

  void Answer(const v1::WorkerCommand& command) {
    v1::WorkerMessage message;
    if (command.has_prepare()) {
      message.mutable_prepared()->set_group(command.prepare().group());
      message.mutable_prepared()->set_epoch(command.prepare().epoch());
      message.mutable_prepared()->set_transport_handle("handle");
    } else if (command.has_connect()) {
      message.mutable_connected()->set_group(command.connect().group());
      message.mutable_connected()->set_epoch(command.connect().epoch());
    } else {
      return;
    }
    Write(message);
  }

  void Beat() {
    v1::WorkerMessage message;
    message.mutable_heartbeat()->set_used_bytes(5);
    while (!ending_) {
      if (!silent_ && !Write(message)) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

  const std::unique_ptr<v1::Coordinator::Stub> stub_;
  grpc::ClientContext context_;
  const std::unique_ptr<grpc::ClientReaderWriter<v1::WorkerMessage, v1::WorkerCommand>> stream_;
  std::atomic<bool> silent_{false};
  std::atomic<bool> answers_{true};
  std::atomic<bool> ending_{false};
  std::mutex write_mutex_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<v1::WorkerCommand> commands_;
  grpc::Status status_;
  bool ended_ = false;
  std::thread reader_;
  std::thread beater_;
};

}  // namespace annulus::rpc
