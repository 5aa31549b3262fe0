// SPDX-License-Identifier: Apache-2.0
// NCCL, opened at run time: the plugin links none, so it loads everywhere and says what is missing.
// nccl.h is used for its types alone. Calls newer than 2.28.0 are optional.
#include <dlfcn.h>
#include <nccl.h>

#include <cstdlib>
#include <cstring>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "server/transport/nccl/nccl_api.h"

namespace annulus::transport::nccl {
namespace {

static_assert(sizeof(ncclUniqueId) == sizeof(UniqueId));
static_assert(static_cast<int>(Result::kInProgress) == static_cast<int>(ncclInProgress));
static_assert(static_cast<int>(Result::kRemoteError) == static_cast<int>(ncclRemoteError));

constexpr const char* kLibrary = "libnccl.so.2";
constexpr const char* kLibraryVariable = "ANNULUS_NCCL_LIBRARY";

Result ToResult(ncclResult_t result) { return static_cast<Result>(result); }
ncclComm_t ToComm(Comm comm) { return static_cast<ncclComm_t>(comm); }

class LibraryNccl final : public NcclApi {
 public:
  explicit LibraryNccl(void* library) : library_(library) {}

  absl::Status Resolve() {
    Take("ncclGetVersion", &get_version_);
    Take("ncclGetUniqueId", &get_unique_id_);
    Take("ncclCommInitRankConfig", &init_);
    Take("ncclCommGetAsyncError", &async_error_);
    Take("ncclGroupStart", &group_start_);
    Take("ncclGroupEnd", &group_end_);
    Take("ncclSend", &send_);
    Take("ncclRecv", &recv_);
    Take("ncclCommRegister", &register_);
    Take("ncclCommDeregister", &deregister_);
    Take("ncclCommAbort", &abort_);
    Take("ncclGetErrorString", &error_string_);
    Take("ncclGetLastError", &last_error_);
    const std::string missing = std::exchange(missing_, "");
    Take("ncclCommRevoke", &revoke_);  // since 2.28.7
    if (get_version_ == nullptr || get_version_(&version_) != ncclSuccess) {
      return absl::FailedPreconditionError("ncclGetVersion does not answer");
    }
    if (version_ < kVersionMin) {
      return absl::FailedPreconditionError(absl::StrCat("NCCL ", VersionWords(version_),
                                                        " was found, ", VersionWords(kVersionMin),
                                                        " or later is needed"));
    }
    if (!missing.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("NCCL ", VersionWords(version_), " has no ", missing));
    }
    return absl::OkStatus();
  }

  int version() const override { return version_; }
  bool can_revoke() const override { return revoke_ != nullptr; }

  Result GetUniqueId(UniqueId* id) override {
    ncclUniqueId minted;
    const Result result = ToResult(get_unique_id_(&minted));
    std::memcpy(id->data(), minted.internal, id->size());
    return result;
  }

  Result Init(Comm* comm, int size, const UniqueId& id, int index,
              const CommSettings& settings) override {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    config.cgaClusterSize = 0;
    config.maxCTAs = settings.max_ctas;
    config.splitShare = 0;
    config.commName = settings.name.c_str();  // copied
    if (settings.channels_per_network_peer > 0) {
      config.nChannelsPerNetPeer = settings.channels_per_network_peer;
    }
    ncclUniqueId common;
    std::memcpy(common.internal, id.data(), id.size());
    ncclComm_t made = nullptr;
    const Result result = ToResult(init_(&made, size, common, index, &config));
    *comm = made;
    return result;
  }

  Result AsyncError(Comm comm, Result* error) override {
    ncclResult_t found = ncclSuccess;
    const Result result = ToResult(async_error_(ToComm(comm), &found));
    *error = ToResult(found);
    return result;
  }

  Result GroupStart() override { return ToResult(group_start_()); }
  Result GroupEnd() override { return ToResult(group_end_()); }

  Result Send(const void* data, size_t bytes, int peer, Comm comm, Stream stream) override {
    return ToResult(
        send_(data, bytes, ncclInt8, peer, ToComm(comm), static_cast<cudaStream_t>(stream)));
  }
  Result Recv(void* data, size_t bytes, int peer, Comm comm, Stream stream) override {
    return ToResult(
        recv_(data, bytes, ncclInt8, peer, ToComm(comm), static_cast<cudaStream_t>(stream)));
  }

  Result Register(Comm comm, void* data, size_t bytes, void** registration) override {
    return ToResult(register_(ToComm(comm), data, bytes, registration));
  }
  Result Deregister(Comm comm, void* registration) override {
    return ToResult(deregister_(ToComm(comm), registration));
  }
  Result Revoke(Comm comm) override { return ToResult(revoke_(ToComm(comm), 0)); }
  Result Abort(Comm comm) override { return ToResult(abort_(ToComm(comm))); }

  std::string Words(Result result, Comm comm) override {
    const char* const last = last_error_(ToComm(comm));
    return absl::StrCat(
        error_string_(static_cast<ncclResult_t>(result)),
        last == nullptr || *last == '\0' ? "" : "; last error: ", last == nullptr ? "" : last);
  }

 private:
  template <typename Function>
  void Take(const char* name, Function* function) {
    *function = reinterpret_cast<Function>(::dlsym(library_, name));
    if (*function == nullptr && missing_.empty()) missing_ = name;
  }

  void* const library_;
  int version_ = 0;
  std::string missing_;
  decltype(&ncclGetVersion) get_version_ = nullptr;
  decltype(&ncclGetUniqueId) get_unique_id_ = nullptr;
  decltype(&ncclCommInitRankConfig) init_ = nullptr;
  decltype(&ncclCommGetAsyncError) async_error_ = nullptr;
  decltype(&ncclGroupStart) group_start_ = nullptr;
  decltype(&ncclGroupEnd) group_end_ = nullptr;
  decltype(&ncclSend) send_ = nullptr;
  decltype(&ncclRecv) recv_ = nullptr;
  decltype(&ncclCommRegister) register_ = nullptr;
  decltype(&ncclCommDeregister) deregister_ = nullptr;
  decltype(&ncclCommAbort) abort_ = nullptr;
  decltype(&ncclGetErrorString) error_string_ = nullptr;
  decltype(&ncclGetLastError) last_error_ = nullptr;
  ncclResult_t (*revoke_)(ncclComm_t, int) = nullptr;
};

}  // namespace

absl::StatusOr<std::shared_ptr<NcclApi>> OpenNccl() {
  static std::mutex mutex;
  static std::shared_ptr<NcclApi> opened;  // never closed: NCCL keeps threads
  std::lock_guard lock(mutex);
  if (opened != nullptr) return opened;
  const char* const named = std::getenv(kLibraryVariable);
  const char* const path = named != nullptr && *named != '\0' ? named : kLibrary;
  void* const library = ::dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("no NCCL: ", ::dlerror(), "; ", kLibraryVariable, " may name another"));
  }
  auto found = std::make_shared<LibraryNccl>(library);
  if (absl::Status status = found->Resolve(); !status.ok()) {
    ::dlclose(library);
    return status;
  }
  opened = std::move(found);
  return opened;
}

}  // namespace annulus::transport::nccl
