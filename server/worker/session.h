// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/worker/engine.h"
#include "server/worker/held_tensor.h"
#include "server/worker/memory_pool.h"
#include "server/worker/region.h"
#include "server/worker/tensor_bounds.h"

namespace annulus::worker {

// KV that a forward kept for its backward: [K | V], each [batch, tokens, kv_heads, head_dim] dense.
struct RetainedKv {
  std::string group;
  uint64_t epoch = 0;
  int64_t batch = 0;
  int kv_heads = 0;
  int head_dim = 0;
  annulusDtype dtype = ANNULUS_F32;
  ring::TokenRanges tokens;
  Buffer buffer;
};

// A tensor of a call, found and checked: the dense reference, its first element, and what must live
// as long as it is used. `held` is null for memory in a region.
struct ResolvedTensor {
  TensorRef ref;
  uint8_t* data = nullptr;
  Memory memory = Memory::kHost;
  std::shared_ptr<const void> keep_alive;
  std::shared_ptr<HeldTensor> held;
};

// The memory of one client: leased regions, tensors held for it, KV kept between its calls. What a
// running request uses lives on until it ends, whatever is removed meanwhile. Thread safe.
class Session {
 public:
  static constexpr size_t kRegionsMax = 1024;
  static constexpr size_t kTensorsMax = 4096;
  static constexpr size_t kRetainedMax = 4096;

  // ALREADY_EXISTS for an id in use with the same or a higher generation.
  absl::Status AddRegion(uint64_t region_id, std::shared_ptr<const Region> region);
  absl::Status RemoveRegion(uint64_t region_id);  // NOT_FOUND

  // Repeating it with the same size is harmless; ALREADY_EXISTS with another.
  absl::Status CreateTensor(MemoryPool* pool, const std::string& tensor_id, uint64_t bytes);
  absl::StatusOr<std::shared_ptr<HeldTensor>> FindTensor(const std::string& tensor_id) const;
  absl::Status DeleteTensor(const std::string& tensor_id);  // NOT_FOUND

  enum class Use { kInput, kOutput };
  // INVALID_ARGUMENT as CheckTensorRef; NOT_FOUND (reason REGION_GONE or TENSOR_GONE) for memory
  // that is not here or of another generation; FAILED_PRECONDITION (UPLOAD_INCOMPLETE) for an input
  // whose bytes are not all uploaded.
  absl::StatusOr<ResolvedTensor> Resolve(const TensorRef& ref, const TensorShape& shape,
                                         Use use) const;

  absl::Status Retain(const std::string& request_id, std::shared_ptr<RetainedKv> kv);
  // Null if there is none.
  std::shared_ptr<RetainedKv> FindRetained(const std::string& request_id) const;
  void DropRetained(const std::string& request_id);
  // What was kept at an earlier epoch of a group can never be used again.
  void DropRetainedBefore(const std::string& group, uint64_t epoch);

  // Adds what this session holds; leaves `scratch` alone.
  void AddUse(MemoryUse* use) const;

 private:
  mutable std::mutex mutex_;
  std::map<uint64_t, std::shared_ptr<const Region>> regions_;    // guarded by mutex_
  std::map<std::string, std::shared_ptr<HeldTensor>> tensors_;   // guarded by mutex_
  std::map<std::string, std::shared_ptr<RetainedKv>> retained_;  // guarded by mutex_
};

}  // namespace annulus::worker
