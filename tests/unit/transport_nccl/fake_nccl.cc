// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "absl/strings/str_cat.h"
#include "server/transport/nccl/profiler.h"
#include "tests/unit/transport_nccl/fake_model.h"

namespace annulus::transport::nccl {

class FakeNccl final : public NcclApi {
 public:
  FakeNccl() : gpu_(FakeGpu::Get()), version_(gpu_.version_), can_revoke_(gpu_.can_revoke_) {}

  int version() const override { return version_; }
  bool can_revoke() const override { return can_revoke_; }

  Result GetUniqueId(UniqueId* id) override {
    if (gpu_.Strike(FakeCall::kGetUniqueId)) return Result::kSystemError;
    std::lock_guard lock(gpu_.mutex_);
    const uint64_t number = gpu_.next_id_++;
    std::memcpy(id->data(), &number, sizeof(number));
    gpu_.worlds_.emplace(number, std::make_unique<FakeGpu::World>());
    return Result::kSuccess;
  }

  Result Init(Comm* comm, int size, const UniqueId& id, int index,
              const CommSettings& settings) override {
    if (gpu_.Strike(FakeCall::kInit)) return Result::kUnhandledCudaError;
    std::lock_guard lock(gpu_.mutex_);
    uint64_t number = 0;
    std::memcpy(&number, id.data(), sizeof(number));
    const auto world = gpu_.worlds_.find(number);
    if (world == gpu_.worlds_.end()) return Result::kInvalidArgument;
    if (settings.name.empty()) gpu_.Violate("a communicator without a name");
    auto made = std::make_unique<FakeGpu::FakeComm>();
    made->world = world->second.get();
    made->index = index;
    made->busy = std::uniform_int_distribution(1, 3)(gpu_.random_);
    made->world->size = size;
    ++made->world->joined;
    if (gpu_.profiled_) {
      int mask = 0;
      NcclProfiler()->init(&made->profiler, number, &mask, settings.name.c_str(), 1, size, index,
                           nullptr);
    }
    *comm = made.get();
    gpu_.comms_.emplace(made.get(), std::move(made));
    return Result::kInProgress;
  }

  Result AsyncError(Comm comm, Result* error) override {
    const bool fails = gpu_.Strike(FakeCall::kAsyncError);
    std::lock_guard lock(gpu_.mutex_);
    FakeGpu::FakeComm* const found = Find(comm, "ncclCommGetAsyncError");
    if (found == nullptr) return Result::kInvalidArgument;
    if (fails) found->broken = Result::kRemoteError;
    if (found->world->joined == found->world->size && found->busy > 0) --found->busy;
    const bool busy = found->world->joined < found->world->size || found->busy > 0;
    found->up |= !busy;
    *error = found->broken != Result::kSuccess ? found->broken
             : busy                            ? Result::kInProgress
                                               : Result::kSuccess;
    return Result::kSuccess;
  }

  Result GroupStart() override {
    if (gpu_.Strike(FakeCall::kGroupStart)) return Result::kInternalError;
    group().clear();
    return Result::kSuccess;
  }

  Result Send(const void* data, size_t bytes, int peer, Comm comm, Stream stream) override {
    if (gpu_.Strike(FakeCall::kSend)) return Result::kInternalError;
    return Add(true, const_cast<void*>(data), bytes, peer, comm, stream);
  }

  Result Recv(void* data, size_t bytes, int peer, Comm comm, Stream stream) override {
    if (gpu_.Strike(FakeCall::kRecv)) return Result::kInternalError;
    return Add(false, data, bytes, peer, comm, stream);
  }

  Result GroupEnd() override {
    if (gpu_.Strike(FakeCall::kGroupEnd)) return Result::kSystemError;
    std::lock_guard lock(gpu_.mutex_);
    if (group().empty()) return Result::kSuccess;
    const Pending& first = group().front();
    FakeGpu::FakeComm* const comm = Find(first.transfer->comm, "ncclGroupEnd");
    if (comm == nullptr) return Result::kInvalidArgument;
    if (group().size() > 2048) gpu_.Violate("more than 2048 calls in a group");
    FakeGpu::Item item;
    item.comm = comm;
    for (const Pending& each : group()) {
      item.transfers.push_back(each.transfer);
      ProfilerEvent event{.type = kProfileP2p};
      NcclProfiler()->start_event(comm->profiler, &each.transfer->event, &event);
      NcclProfiler()->stop_event(each.transfer->event);  // enqueued
    }
    const auto stream = gpu_.streams_.find(first.stream);
    if (comm->revoked || stream == gpu_.streams_.end()) return Result::kInvalidUsage;
    stream->second->items.push_back(std::move(item));
    comm->busy = std::uniform_int_distribution(0, 2)(gpu_.random_);
    group().clear();
    gpu_.changed_.notify_all();
    return comm->busy > 0 ? Result::kInProgress : Result::kSuccess;
  }

  Result Register(Comm comm, void* data, size_t, void** registration) override {
    if (gpu_.Strike(FakeCall::kRegister)) return Result::kInvalidUsage;
    std::lock_guard lock(gpu_.mutex_);
    if (Idle(comm, "ncclCommRegister") == nullptr) return Result::kInvalidArgument;
    *registration = new std::pair<Comm, void*>(comm, data);
    gpu_.registrations_.insert(*registration);
    return Result::kSuccess;
  }

  Result Deregister(Comm comm, void* registration) override {
    if (gpu_.Strike(FakeCall::kDeregister)) return Result::kInvalidUsage;
    std::lock_guard lock(gpu_.mutex_);
    if (Find(comm, "ncclCommDeregister") == nullptr) return Result::kInvalidArgument;
    if (gpu_.registrations_.erase(registration) == 0) gpu_.Violate("deregistered twice");
    delete static_cast<std::pair<Comm, void*>*>(registration);
    return Result::kSuccess;
  }

  Result Revoke(Comm comm) override {
    if (gpu_.Strike(FakeCall::kRevoke)) return Result::kInternalError;
    std::lock_guard lock(gpu_.mutex_);
    FakeGpu::FakeComm* const found = Find(comm, "ncclCommRevoke");
    if (found == nullptr) return Result::kInvalidArgument;
    if (found->revoked || !found->up) gpu_.Violate("revoked twice, or before it was up");
    found->revoked = true;
    gpu_.Drop(found);
    return Result::kSuccess;
  }

  Result Abort(Comm comm) override {
    const bool fails = gpu_.Strike(FakeCall::kAbort);
    std::lock_guard lock(gpu_.mutex_);
    FakeGpu::FakeComm* const found = Find(comm, "ncclCommAbort");
    if (found == nullptr) return Result::kInvalidArgument;
    gpu_.Drop(found);
    FreeRegistrations(comm);
    NcclProfiler()->finalize(found->profiler);
    gpu_.comms_.erase(comm);
    return fails ? Result::kSystemError : Result::kSuccess;
  }

  std::string Words(Result result, Comm) override {
    return absl::StrCat("result ", static_cast<int>(result), " of the model");
  }

 private:
  struct Pending {
    FakeGpu::TransferPtr transfer;
    Stream stream;
  };

  static std::vector<Pending>& group() {
    static thread_local std::vector<Pending> calls;
    return calls;
  }

  FakeGpu::FakeComm* Find(Comm comm, const char* call) {
    const auto found = gpu_.comms_.find(comm);
    if (found == gpu_.comms_.end()) {
      gpu_.Violate(std::string(call) + " on a communicator that is gone");
      return nullptr;
    }
    return found->second.get();
  }

  FakeGpu::FakeComm* Idle(Comm comm, const char* call) {
    FakeGpu::FakeComm* const found = Find(comm, call);
    if (found != nullptr && (found->busy > 0 || !found->up)) {
      gpu_.Violate(std::string(call) + " on a communicator that is in progress");
    }
    return found;
  }

  Result Add(bool is_send, void* data, size_t bytes, int peer, Comm comm, Stream stream) {
    std::lock_guard lock(gpu_.mutex_);
    FakeGpu::FakeComm* const found = Idle(comm, is_send ? "ncclSend" : "ncclRecv");
    if (found == nullptr) return Result::kInvalidArgument;
    if (peer < 0 || peer >= found->world->size || bytes == 0) gpu_.Violate("a call of no sense");
    auto transfer = std::make_shared<FakeGpu::Transfer>();
    transfer->comm = found;
    transfer->is_send = is_send;
    transfer->peer = peer;
    transfer->data = static_cast<char*>(data);
    transfer->bytes = bytes;
    group().push_back({std::move(transfer), stream});
    return Result::kSuccess;
  }

  // As NCCL does: what is still registered goes with the communicator.
  void FreeRegistrations(Comm comm) {
    for (auto at = gpu_.registrations_.begin(); at != gpu_.registrations_.end();) {
      auto* const registration = static_cast<std::pair<Comm, void*>*>(*at);
      if (registration->first != comm) {
        ++at;
        continue;
      }
      delete registration;
      at = gpu_.registrations_.erase(at);
    }
  }

  FakeGpu& gpu_;
  const int version_;
  const bool can_revoke_;
};

absl::StatusOr<std::shared_ptr<NcclApi>> OpenNccl() {
  std::string missing;
  {
    std::lock_guard lock(FakeGpu::Get().mutex_);
    missing = FakeGpu::Get().missing_;
  }
  if (!missing.empty()) return absl::NotFoundError(missing);
  return std::make_shared<FakeNccl>();
}

}  // namespace annulus::transport::nccl
