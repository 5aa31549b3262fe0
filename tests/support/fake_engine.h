// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/worker/engine.h"

namespace annulus::testing_support {

// A worker engine that records what it is asked and computes nothing: for tests of what stands in
// front of the engine. Sessions, regions and tensors are kept as plain bookkeeping; `attend`,
// `connect` are what the test says.
class FakeEngine : public worker::Engine {
 public:
  using Lock = std::unique_lock<std::mutex>;

  // Answers of the calls a test wants to steer. Set before the engine is used by other threads.
  std::function<absl::StatusOr<worker::AttendAnswer>(const worker::AttendCall&)> on_attend;
  std::function<absl::Status(const std::string& group, uint64_t epoch)> on_connect;
  std::function<absl::StatusOr<worker::RankHandles>(const worker::GroupAssignment&)> on_prepare;
  std::vector<worker::Progress> running;

  void SetPlanSource(PlanSource source) override {
    const Lock lock(mutex_);
    plan_source_ = std::move(source);
  }
  void SetFaultSink(FaultSink sink) override {
    const Lock lock(mutex_);
    fault_sink_ = std::move(sink);
  }
  void SetObserver(worker::EngineObserver*) override {}

  void SetTerm(uint64_t term) override { Record(absl::StrCat("term ", term)); }
  absl::StatusOr<worker::RankHandles> PrepareGroup(
      const worker::GroupAssignment& assignment) override {
    Record(absl::StrCat("prepare ", assignment.group, "@", assignment.epoch, " rank ",
                        assignment.rank, "/", assignment.size));
    if (on_prepare) return on_prepare(assignment);
    worker::RankHandles handles;
    handles.inner.bytes[0] = static_cast<uint8_t>(assignment.rank + 1);
    return handles;
  }
  absl::Status ConnectGroup(const std::string& group, uint64_t epoch,
                            const std::vector<worker::RankHandles>& handles) override {
    Record(absl::StrCat("connect ", group, "@", epoch, " of ", handles.size()));
    return on_connect ? on_connect(group, epoch) : absl::OkStatus();
  }
  void FaultGroup(const worker::FaultVerdict& verdict) override {
    Record(absl::StrCat("fault ", verdict.group, "@", verdict.epoch, " ", verdict.reason));
  }
  void FaultAllGroups(const std::string& reason) override {
    Record(absl::StrCat("fault all: ", reason));
  }
  void ReleaseGroup(const std::string& group, uint64_t epoch) override {
    Record(absl::StrCat("release ", group, "@", epoch));
  }

  std::string OpenSession(const std::string& client) override {
    const Lock lock(mutex_);
    const std::string id = absl::StrFormat("%032x", ++session_count_);
    sessions_[id].client = client;
    changed_.notify_all();
    return id;
  }
  void CloseSession(const std::string& session_id) override {
    const Lock lock(mutex_);
    sessions_.erase(session_id);
    changed_.notify_all();
  }
  absl::Status AddRegion(const std::string& session_id, uint64_t region_id, uint64_t, int fd,
                         uint64_t) override {
    close(fd);
    const Lock lock(mutex_);
    const auto session = sessions_.find(session_id);
    if (session == sessions_.end()) return NoSession(session_id);
    if (!session->second.regions.insert(region_id).second) {
      return absl::AlreadyExistsError("region exists");
    }
    return absl::OkStatus();
  }
  absl::Status AddDeviceRegion(const std::string&, uint64_t, uint64_t,
                               const worker::DeviceLease&) override {
    return absl::UnimplementedError("no device");
  }
  absl::Status RemoveRegion(const std::string& session_id, uint64_t region_id) override {
    const Lock lock(mutex_);
    const auto session = sessions_.find(session_id);
    if (session == sessions_.end()) return NoSession(session_id);
    const bool known = session->second.regions.erase(region_id) != 0;
    changed_.notify_all();
    return known ? absl::OkStatus() : absl::NotFoundError("no such region");
  }

  absl::Status CreateTensor(const std::string& session_id, const std::string& tensor_id,
                            uint64_t bytes) override {
    const Lock lock(mutex_);
    const auto session = sessions_.find(session_id);
    if (session == sessions_.end()) return NoSession(session_id);
    if (bytes > kTensorLimit) return absl::ResourceExhaustedError("memory limit");
    Tensor& tensor = session->second.tensors[tensor_id];
    if (!tensor.data) tensor.data = std::make_shared<std::vector<uint8_t>>(bytes);
    return absl::OkStatus();
  }
  absl::StatusOr<uint64_t> WriteTensor(const std::string& session_id, const std::string& tensor_id,
                                       uint64_t offset, const void* data, size_t bytes) override {
    const Lock lock(mutex_);
    Tensor* tensor = Find(session_id, tensor_id);
    if (tensor == nullptr) return absl::NotFoundError("no such tensor");
    if (offset != tensor->committed || bytes > tensor->data->size() - offset) {
      return absl::OutOfRangeError(absl::StrCat("committed ", tensor->committed, " bytes of ",
                                                tensor->data->size(), ", got offset ", offset));
    }
    std::memcpy(tensor->data->data() + offset, data, bytes);
    return tensor->committed += bytes;
  }
  absl::StatusOr<TensorBytes> ReadTensor(const std::string& session_id,
                                         const std::string& tensor_id) override {
    const Lock lock(mutex_);
    Tensor* tensor = Find(session_id, tensor_id);
    if (tensor == nullptr) return absl::NotFoundError("no such tensor");
    return TensorBytes{tensor->data->data(), tensor->data->size(), tensor->committed, tensor->data};
  }
  absl::Status DeleteTensor(const std::string& session_id, const std::string& tensor_id) override {
    const Lock lock(mutex_);
    const auto session = sessions_.find(session_id);
    if (session == sessions_.end()) return NoSession(session_id);
    return session->second.tensors.erase(tensor_id) != 0 ? absl::OkStatus()
                                                         : absl::NotFoundError("no such tensor");
  }
  absl::Status ReleaseRetained(const std::string& session_id,
                               const std::string& request_id) override {
    Record(absl::StrCat("release retained ", session_id, " ", request_id));
    return absl::OkStatus();
  }

  absl::StatusOr<worker::AttendAnswer> Attend(const worker::AttendCall& call) override {
    Record(absl::StrCat("attend ", call.fence.request_id));
    return on_attend ? on_attend(call) : worker::AttendAnswer{};
  }
  std::vector<worker::Progress> RunningRequests() const override { return running; }
  uint64_t used_bytes() const override { return 4096; }
  worker::MemoryUse memory_use() const override { return {.scratch = used_bytes()}; }
  std::string device_description() const override { return "fake"; }
  std::string device_bus_id() const override { return ""; }

  // What the test asks.
  FaultSink fault_sink() {
    const Lock lock(mutex_);
    return fault_sink_;
  }
  PlanSource plan_source() {
    const Lock lock(mutex_);
    return plan_source_;
  }
  size_t sessions() {
    const Lock lock(mutex_);
    return sessions_.size();
  }
  size_t regions() {
    const Lock lock(mutex_);
    size_t count = 0;
    for (const auto& [id, session] : sessions_) count += session.regions.size();
    return count;
  }
  std::vector<std::string> events() {
    const Lock lock(mutex_);
    return events_;
  }
  // Waits, up to ten seconds, until `done` holds; looks again whenever something was asked.
  bool Await(const std::function<bool()>& done) {
    Lock lock(mutex_);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (true) {
      lock.unlock();
      if (done()) return true;
      lock.lock();
      if (std::chrono::steady_clock::now() >= deadline) return false;
      changed_.wait_for(lock, std::chrono::milliseconds(20));
    }
  }
  bool AwaitEvent(const std::string& event) {
    return Await([&] {
      const auto seen = events();
      return std::find(seen.begin(), seen.end(), event) != seen.end();
    });
  }

 private:
  static constexpr uint64_t kTensorLimit = uint64_t{64} << 20;
  struct Tensor {
    std::shared_ptr<std::vector<uint8_t>> data;
    uint64_t committed = 0;
  };
  struct Session {
    std::string client;
    std::set<uint64_t> regions;
    std::map<std::string, Tensor> tensors;
  };

  static absl::Status NoSession(const std::string& id) {
    return absl::NotFoundError(absl::StrCat("no session ", id));
  }
  void Record(std::string event) {
    const Lock lock(mutex_);
    events_.push_back(std::move(event));
    changed_.notify_all();
  }
  Tensor* Find(const std::string& session_id, const std::string& tensor_id) {
    const auto session = sessions_.find(session_id);
    if (session == sessions_.end()) return nullptr;
    const auto tensor = session->second.tensors.find(tensor_id);
    return tensor == session->second.tensors.end() ? nullptr : &tensor->second;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  PlanSource plan_source_;
  FaultSink fault_sink_;
  int session_count_ = 0;
  std::map<std::string, Session> sessions_;
  std::vector<std::string> events_;
};

}  // namespace annulus::testing_support
