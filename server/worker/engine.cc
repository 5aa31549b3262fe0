// SPDX-License-Identifier: Apache-2.0
#include "server/worker/engine.h"

#include <atomic>
#include <mutex>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "server/base/fault_info.h"
#include "server/base/status_macros.h"
#include "server/worker/answer_cache.h"
#include "server/worker/attend_request.h"
#include "server/worker/device.h"
#include "server/worker/fault_text.h"
#include "server/worker/group_table.h"
#include "server/worker/memory_pool.h"
#include "server/worker/names.h"
#include "server/worker/plan_cache.h"
#include "server/worker/running_requests.h"
#include "server/worker/session_store.h"

namespace annulus::worker {
namespace {

absl::Status Fenced(const char* reason, const std::string& message) {
  return WithFaultInfo(absl::FailedPreconditionError(message), {reason, {}});
}

// Whether the transports can move what this device's workers have to send.
absl::Status CheckTransports(const std::vector<const annulusTransportV1*>& transports,
                             const Device& device) {
  for (const annulusTransportV1* transport : transports) {
    const bool moves_host = (transport->caps & ANNULUS_TRANSPORT_CAP_HOST_MEMORY) != 0;
    const bool moves_device = (transport->caps & ANNULUS_TRANSPORT_CAP_DEVICE_MEMORY) != 0;
    if (moves_host || (moves_device && !device.host_memory())) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        "transport \"", transport->name, "\" does not move the host's memory, which \"",
        device.description(), "\" works on"));
  }
  return absl::OkStatus();
}

bool HasReason(const absl::Status& status, const char* reason) {
  const auto info = GetFaultInfo(status);
  return info && info->reason == reason;
}

class EngineImpl final : public Engine {
 public:
  EngineImpl(const EngineOptions& options, std::shared_ptr<Device> device)
      : options_(options),
        device_(std::move(device)),
        pool_(std::make_shared<MemoryPool>(device_, options.memory_limit_bytes)),
        groups_(options_, device_->host_memory() ? -1 : device_->ordinal(), pool_->wire_memory()),
        running_(options.max_concurrent_requests) {}

  void SetPlanSource(PlanSource source) override { plans_.SetSource(std::move(source)); }
  void SetFaultSink(FaultSink sink) override {
    std::lock_guard lock(mutex_);
    fault_sink_ = std::move(sink);
  }
  void SetObserver(EngineObserver* observer) override { observer_ = observer; }

  void SetTerm(uint64_t term) override {
    uint64_t known = term_.load();
    while (known < term && !term_.compare_exchange_weak(known, term)) {
    }
  }
  absl::StatusOr<RankHandles> PrepareGroup(const GroupAssignment& assignment) override {
    auto handle = groups_.Prepare(assignment);
    if (!handle.ok()) {
      CountIfStale(handle.status());
      return handle;
    }
    answers_.DropBefore(assignment.group, assignment.epoch);
    sessions_.DropRetainedBefore(assignment.group, assignment.epoch);
    return handle;
  }
  absl::Status ConnectGroup(const std::string& group, uint64_t epoch,
                            const std::vector<RankHandles>& handles) override {
    absl::Status connected = groups_.Connect(group, epoch, handles);
    CountIfStale(connected);
    return connected;
  }
  void FaultGroup(const FaultVerdict& verdict) override { groups_.Fault(verdict); }
  void FaultAllGroups(const std::string& reason) override { groups_.FaultAll(reason); }
  void ReleaseGroup(const std::string& group, uint64_t epoch) override {
    groups_.Release(group, epoch);
  }

  std::string OpenSession(const std::string& /*client*/) override { return sessions_.Open(); }
  void CloseSession(const std::string& session_id) override { sessions_.Close(session_id); }
  absl::Status AddRegion(const std::string& session_id, uint64_t region_id, uint64_t generation,
                         int fd, uint64_t bytes) override {
    ANNULUS_ASSIGN_OR_RETURN(auto region, Region::Map(fd, bytes, generation, device_));
    ANNULUS_ASSIGN_OR_RETURN(auto session, sessions_.Find(session_id));
    return session->AddRegion(region_id, std::move(region));
  }
  absl::Status AddDeviceRegion(const std::string& session_id, uint64_t region_id,
                               uint64_t generation, const DeviceLease& lease) override {
    ANNULUS_ASSIGN_OR_RETURN(auto session, sessions_.Find(session_id));
    ANNULUS_ASSIGN_OR_RETURN(auto region, Region::Import(lease, generation, device_));
    return session->AddRegion(region_id, std::move(region));
  }
  absl::Status RemoveRegion(const std::string& session_id, uint64_t region_id) override {
    ANNULUS_ASSIGN_OR_RETURN(auto session, sessions_.Find(session_id));
    return session->RemoveRegion(region_id);
  }
  absl::Status CreateTensor(const std::string& session_id, const std::string& tensor_id,
                            uint64_t bytes) override {
    ANNULUS_RETURN_IF_ERROR(CheckName("tensor id", tensor_id));
    ANNULUS_ASSIGN_OR_RETURN(auto session, sessions_.Find(session_id));
    return session->CreateTensor(pool_.get(), tensor_id, bytes);
  }
  absl::StatusOr<uint64_t> WriteTensor(const std::string& session_id, const std::string& tensor_id,
                                       uint64_t offset, const void* data, size_t bytes) override {
    ANNULUS_ASSIGN_OR_RETURN(auto session, sessions_.Find(session_id));
    ANNULUS_ASSIGN_OR_RETURN(auto tensor, session->FindTensor(tensor_id));
    return tensor->Write(offset, data, bytes);
  }
  absl::StatusOr<TensorBytes> ReadTensor(const std::string& session_id,
                                         const std::string& tensor_id) override {
    ANNULUS_ASSIGN_OR_RETURN(auto session, sessions_.Find(session_id));
    ANNULUS_ASSIGN_OR_RETURN(auto tensor, session->FindTensor(tensor_id));
    TensorBytes bytes;
    bytes.data = tensor->data();
    bytes.bytes = tensor->bytes();
    bytes.committed_bytes = tensor->committed_bytes();
    bytes.keep_alive = std::move(tensor);
    return bytes;
  }
  absl::Status DeleteTensor(const std::string& session_id, const std::string& tensor_id) override {
    ANNULUS_ASSIGN_OR_RETURN(auto session, sessions_.Find(session_id));
    return session->DeleteTensor(tensor_id);
  }
  absl::Status ReleaseRetained(const std::string& session_id,
                               const std::string& request_id) override {
    ANNULUS_ASSIGN_OR_RETURN(auto session, sessions_.Find(session_id));
    session->DropRetained(request_id);
    return absl::OkStatus();
  }

  absl::StatusOr<AttendAnswer> Attend(const AttendCall& call) override;

  std::vector<Progress> RunningRequests() const override { return running_.List(); }
  uint64_t used_bytes() const override { return pool_->ledger().used_bytes(); }
  MemoryUse memory_use() const override {
    MemoryUse use = sessions_.Use();
    // The ledger counts what is allocated here, so not the regions.
    const uint64_t held = use.uploaded + use.retained;
    const uint64_t used = used_bytes();
    use.scratch = used > held ? used - held : 0;
    return use;
  }
  std::string device_description() const override { return device_->description(); }
  std::string device_bus_id() const override { return device_->bus_id(); }

 private:
  absl::Status CheckFence(const Fence& fence) const;
  absl::StatusOr<std::shared_ptr<Group>> EnterGroup(const AttendCall& call) const;
  absl::StatusOr<AttendAnswer> RunFirst(const AttendCall& call, std::shared_ptr<Group> group,
                                        metrics::Timeline* timeline, bool* began);
  void CountIfStale(const absl::Status& status) {
    EngineObserver* observer = observer_;
    if (observer != nullptr &&
        (HasReason(status, "STALE_EPOCH") || HasReason(status, "STALE_TERM"))) {
      observer->OnStaleEpoch();
    }
  }
  FaultSink fault_sink() const {
    std::lock_guard lock(mutex_);
    return fault_sink_;
  }

  const EngineOptions options_;
  const std::shared_ptr<Device> device_;
  const std::shared_ptr<MemoryPool> pool_;
  PlanCache plans_;
  SessionStore sessions_;
  AnswerCache answers_;
  GroupTable groups_;
  class RunningRequests running_;  // before groups_ in destruction: its watchdog holds groups
  std::atomic<uint64_t> term_{0};
  std::atomic<EngineObserver*> observer_{nullptr};
  mutable std::mutex mutex_;
  FaultSink fault_sink_;  // guarded by mutex_
};

absl::Status EngineImpl::CheckFence(const Fence& fence) const {
  ANNULUS_RETURN_IF_ERROR(CheckName("request id", fence.request_id));
  if (fence.incarnation != options_.incarnation) {
    return Fenced("WRONG_INCARNATION",
                  absl::StrCat("the request is for incarnation ", fence.incarnation,
                               " of this worker, which is ", options_.incarnation));
  }
  if (const uint64_t term = term_.load(); fence.term < term) {
    return Fenced("STALE_TERM", absl::StrCat("the request is of coordinator term ", fence.term,
                                             ", this worker knows term ", term));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Group>> EngineImpl::EnterGroup(const AttendCall& call) const {
  ANNULUS_RETURN_IF_ERROR(CheckFence(call.fence));
  return groups_.Find(call.fence.group, call.fence.epoch);
}

absl::StatusOr<AttendAnswer> EngineImpl::Attend(const AttendCall& call) {
  absl::StatusOr<AttendAnswer> result;
  metrics::Timeline timeline;
  auto group = EnterGroup(call);
  if (!group.ok()) {
    CountIfStale(group.status());
    result = group.status();
  } else if (auto earlier =
                 answers_.Begin(call.fence, call.content_hash, call.deadline_ns, call.cancelled)) {
    result = *std::move(earlier);
  } else {
    const bool alone = (*group)->assignment().size == 1;
    bool began = false;
    result = RunFirst(call, *std::move(group), &timeline, &began);
    answers_.Finish(call.fence, result, result.ok() || (began && !alone));
  }
  if (EngineObserver* observer = observer_) {
    observer->OnRequest(call, result.status(), result.ok() ? *result : AttendAnswer{}, timeline);
  }
  return result;
}

absl::StatusOr<AttendAnswer> EngineImpl::RunFirst(const AttendCall& call,
                                                  std::shared_ptr<Group> group,
                                                  metrics::Timeline* timeline, bool* began) {
  if (group->state() != Group::State::kReady) {
    if (const auto verdict = group->verdict()) {
      return VerdictStatus(*verdict,
                           {.rank = group->assignment().rank, .request_id = call.fence.request_id});
    }
    const bool over = group->state() == Group::State::kOver;
    return WithFaultInfo(absl::UnavailableError(absl::StrCat(
                             "group ", call.fence.group, " at epoch ", call.fence.epoch,
                             over ? " is over" : " is not connected")),
                         {over ? "EPOCH_OVER" : "GROUP_NOT_READY", {}});
  }
  ANNULUS_ASSIGN_OR_RETURN(auto session, sessions_.Find(call.session_id));
  auto control = std::make_shared<RunControl>(call.deadline_ns, call.cancelled);
  ANNULUS_ASSIGN_OR_RETURN(auto place, running_.Enter({call.fence, 0, group, control}));
  const AttendServices services{&options_, device_, pool_, &plans_, fault_sink(), observer_};
  AttendRequest request(call, services, std::move(group), std::move(session), std::move(control));
  ANNULUS_RETURN_IF_ERROR(request.Prepare());
  place.SetSteps(request.steps());
  auto answer = request.Run();
  *began = request.began();
  *timeline = request.timeline();
  return answer;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options) {
  if (options.device.threads < 1 || options.max_concurrent_requests < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("compute threads (", options.device.threads, ") and max_concurrent_requests (",
                     options.max_concurrent_requests, ") must be at least 1"));
  }
  ANNULUS_ASSIGN_OR_RETURN(auto device, Device::Open(options.compute, options.device));
  ANNULUS_RETURN_IF_ERROR(CheckTransports(options.transports, *device));
  return std::make_unique<EngineImpl>(options, std::move(device));
}

}  // namespace annulus::worker
