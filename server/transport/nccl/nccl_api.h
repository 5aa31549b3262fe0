// SPDX-License-Identifier: Apache-2.0
#pragma once

// Everything that the transport asks of NCCL, so that the rest of it runs without. There are two of
// it: library_nccl.cc over a libnccl opened at run time, and a model in the tests. Which one is
// there is decided by what is linked.
//
// Names and meaning are NCCL's (user guide of 2.28). All communicators are non-blocking: a call may
// return kInProgress, and until AsyncError says otherwise nothing else may be asked of that
// communicator but Abort. Calls may nevertheless block, or never return: they are made on threads
// that nobody waits for without a limit.

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace annulus::transport::nccl {

// ncclResult_t.
enum class Result {
  kSuccess = 0,
  kUnhandledCudaError = 1,
  kSystemError = 2,
  kInternalError = 3,
  kInvalidArgument = 4,
  kInvalidUsage = 5,
  kRemoteError = 6,
  kInProgress = 7,
};

using UniqueId = std::array<char, 128>;  // a bearer secret: whoever has it may join. Never logged
using Comm = void*;
using Stream = void*;

// What ncclConfig_t is given; the rest of it stays undefined. README.md says why each.
struct CommSettings {
  std::string name;
  int max_ctas = 0;
  int channels_per_network_peer = 0;  // 0: NCCL's own choice
};

class NcclApi {
 public:
  virtual ~NcclApi() = default;

  virtual int version() const = 0;      // 22809 is 2.28.9
  virtual bool can_revoke() const = 0;  // since 2.28.7

  virtual Result GetUniqueId(UniqueId* id) = 0;
  virtual Result Init(Comm* comm, int size, const UniqueId& id, int index,
                      const CommSettings& settings) = 0;
  virtual Result AsyncError(Comm comm, Result* error) = 0;
  virtual Result GroupStart() = 0;
  virtual Result GroupEnd() = 0;
  virtual Result Send(const void* data, size_t bytes, int peer, Comm comm, Stream stream) = 0;
  virtual Result Recv(void* data, size_t bytes, int peer, Comm comm, Stream stream) = 0;
  virtual Result Register(Comm comm, void* data, size_t bytes, void** registration) = 0;
  virtual Result Deregister(Comm comm, void* registration) = 0;
  // Stops what runs; the memory of the communicator stays, so that no peer meets freed memory.
  virtual Result Revoke(Comm comm) = 0;
  // Stops what runs and frees everything. From any thread, also while Init has not come to an end.
  virtual Result Abort(Comm comm) = 0;
  // In words, with NCCL's last error where there is one.
  virtual std::string Words(Result result, Comm comm) = 0;
};

inline constexpr int kVersionMin = 22800;

// "2.28.9".
std::string VersionWords(int version);

// NOT_FOUND: no library. FAILED_PRECONDITION: older than kVersionMin, with both versions.
absl::StatusOr<std::shared_ptr<NcclApi>> OpenNccl();

}  // namespace annulus::transport::nccl
