// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/worker_command_queue.h"

#include <algorithm>
#include <utility>

#include "server/base/rpc_settings.h"
#include "server/base/status_macros.h"
#include "server/rpc/worker_group_convert.h"

namespace annulus::rpc {
namespace {

// For an `error` field: never empty, and bounded as any error text.
std::string ErrorText(const absl::Status& status) {
  return status.ToString().substr(0, kMaxErrorMessageBytes);
}

// Whether `entry` works towards an epoch of `group` that is over.
bool BelongsTo(const WorkerCommandQueue::Command& command, const std::string& group,
               uint64_t epoch) {
  if (const auto* prepare = std::get_if<v1::PrepareGroup>(&command)) {
    return prepare->group() == group && prepare->epoch() <= epoch;
  }
  if (const auto* connect = std::get_if<v1::ConnectGroup>(&command)) {
    return connect->group() == group && connect->epoch() <= epoch;
  }
  return false;
}

}  // namespace

WorkerCommandQueue::WorkerCommandQueue(worker::Engine* engine, metrics::MetricSink* sink,
                                       Answer answer)
    : engine_(engine), sink_(sink), answer_(std::move(answer)), thread_([this] { Run(); }) {}

WorkerCommandQueue::~WorkerCommandQueue() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    waiting_.clear();
  }
  changed_.notify_all();
  thread_.join();
}

bool WorkerCommandQueue::Push(uint64_t stream, Command command) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (waiting_.size() >= kMaxWaiting) return false;
    waiting_.push_back({stream, std::move(command)});
  }
  changed_.notify_all();
  return true;
}

void WorkerCommandQueue::Forget(const std::string& group, uint64_t epoch) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::erase_if(waiting_,
                [&](const Entry& entry) { return BelongsTo(entry.command, group, epoch); });
}

void WorkerCommandQueue::Clear() {
  const std::lock_guard<std::mutex> lock(mutex_);
  waiting_.clear();
}

void WorkerCommandQueue::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
    if (stopping_) return;
    const Entry entry = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    Execute(entry);
    lock.lock();
  }
}

void WorkerCommandQueue::Execute(const Entry& entry) {
  v1::WorkerMessage message;
  if (const auto* prepare = std::get_if<v1::PrepareGroup>(&entry.command)) {
    *message.mutable_prepared() = Prepare(*prepare);
    answer_(entry.stream, std::move(message));
  } else if (const auto* connect = std::get_if<v1::ConnectGroup>(&entry.command)) {
    *message.mutable_connected() = Connect(*connect);
    answer_(entry.stream, std::move(message));
  } else if (const auto* release = std::get_if<v1::ReleaseGroup>(&entry.command)) {
    engine_->ReleaseGroup(release->group(), release->epoch());
    prepared_.erase(release->group());
  }
}

v1::GroupPrepared WorkerCommandQueue::Prepare(const v1::PrepareGroup& prepare) {
  v1::GroupPrepared out;
  out.set_group(prepare.group());
  out.set_epoch(prepare.epoch());
  const auto act = [&]() -> absl::Status {
    ANNULUS_ASSIGN_OR_RETURN(worker::GroupAssignment assignment, AssignmentFromProto(prepare));
    ANNULUS_ASSIGN_OR_RETURN(const worker::RankHandles handles, engine_->PrepareGroup(assignment));
    out.set_transport_handle(HandleToBytes(handles.inner));
    if (handles.outer) out.set_outer_transport_handle(HandleToBytes(*handles.outer));
    prepared_[prepare.group()] = std::move(assignment);
    return absl::OkStatus();
  };
  const absl::Status status = act();
  if (!status.ok()) out.set_error(ErrorText(status));
  return out;
}

v1::GroupConnected WorkerCommandQueue::Connect(const v1::ConnectGroup& connect) {
  v1::GroupConnected out;
  out.set_group(connect.group());
  out.set_epoch(connect.epoch());
  const auto act = [&]() -> absl::Status {
    ANNULUS_ASSIGN_OR_RETURN(const auto handles, HandlesFromProto(connect));
    return engine_->ConnectGroup(connect.group(), connect.epoch(), handles);
  };
  const absl::Status status = act();
  if (!status.ok()) {
    out.set_error(ErrorText(status));
    return out;
  }
  const auto joined = prepared_.find(connect.group());
  if (sink_ != nullptr && joined != prepared_.end()) {
    sink_->Set(metrics::MetricId::kRingSize, {}, joined->second.size);
    sink_->Set(metrics::MetricId::kWindowSize, {}, joined->second.window_size);
    sink_->Set(metrics::MetricId::kRingEpoch, {}, static_cast<double>(connect.epoch()));
  }
  return out;
}

}  // namespace annulus::rpc
