// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/reference/reference.h"
#include "server/ring/plan.h"
#include "server/worker/engine.h"

// Rings of real engines in one process, by default on the CPU device and the host transport; memfd
// regions; a thread per rank.
namespace annulus::worker::testing {

// A sealed memfd that the test maps, too.
class SharedMemory {
 public:
  explicit SharedMemory(uint64_t bytes, bool sealed = true);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  uint8_t* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }
  int DupFd() const;
  // Next free offset, 64-byte aligned.
  uint64_t Allocate(uint64_t bytes);

 private:
  int fd_ = -1;
  uint8_t* data_ = nullptr;
  uint64_t bytes_ = 0;
  uint64_t used_ = 0;
};

// The CPU kernels.
const annulusComputeV1* HostDevice();

// N engines in one group, connected, each with a session.
class TestRing {
 public:
  struct Options {
    int size = 1;
    uint64_t epoch = 1;
    uint64_t memory_limit_bytes = 0;
    int max_concurrent_requests = 8;
    double hop_timeout_seconds = 30;
    double verdict_timeout_seconds = 0.2;
    annulusLinkModel inner_link{};
    annulusLinkModel outer_link{};
    int ranks_per_node = 0;
    bool transfers_off = false;
    const annulusComputeV1* compute = HostDevice();
    int devices = 4;  // that ranks take in turn, where they are apart
    std::vector<const annulusTransportV1*> transports;  // none: the host's
    std::string inner_transport;
    std::string outer_transport;
  };
  explicit TestRing(const Options& options);
  ~TestRing();

  int size() const { return options_.size; }
  // Whether the devices have memory of their own.
  bool apart() const { return options_.compute != HostDevice(); }
  Engine& engine(int rank) { return *engines_[static_cast<size_t>(rank)]; }
  const std::string& session(int rank) const { return sessions_[static_cast<size_t>(rank)]; }
  // Moves every engine to a new epoch of the group.
  void Form(uint64_t epoch);
  uint64_t epoch() const { return epoch_; }
  // The rank's process is gone.
  void KillEngine(int rank) { engines_[static_cast<size_t>(rank)].reset(); }
  // Makes `plan` known to the engines; returns its digest.
  std::string AddPlan(const ring::Plan& plan);
  int plan_fetches() const;
  void AddRegion(uint64_t region_id, const SharedMemory& memory);
  std::vector<FaultObservation> observations() const;

  Fence FenceOf(const std::string& request_id) const;
  // One call per rank, each on a thread; the answers in rank order.
  std::vector<absl::StatusOr<AttendAnswer>> Attend(const std::vector<AttendCall>& calls);

 private:
  const Options options_;
  uint64_t epoch_ = 0;
  mutable std::mutex mutex_;
  std::map<std::string, std::string> plans_;    // guarded by mutex_
  int plan_fetches_ = 0;                        // guarded by mutex_
  std::vector<FaultObservation> observations_;  // guarded by mutex_
  std::vector<std::unique_ptr<Engine>> engines_;
  std::vector<std::string> sessions_;
};

struct Problem {
  int64_t batch = 1;
  int64_t query_length = 64;
  int64_t kv_length = 64;
  int query_heads = 2;
  int kv_heads = 1;
  int head_dim = 16;
  annulusDtype dtype = ANNULUS_F32;
  annulusDtype output_dtype = ANNULUS_F32;
  ring::Mask mask;
  ring::Layout layout = ring::Layout::kZigzag;
  int size = 1;
  int window = 0;
  bool in_place = true;  // whole sequences shared by all ranks; else each rank's rows alone
  uint32_t seed = 1;
};

ring::Spec SpecOf(const Problem& problem, ring::Direction direction, bool keep_resident);

// The tensors of a problem in shared memory, drawn from N(0, 1), with what each rank is given.
class Tensors {
 public:
  Tensors(const Problem& problem, const ring::Plan& plan);

  const SharedMemory& memory() const { return *memory_; }
  // Calls of every rank; region id 1 of generation 1 must be memory().
  std::vector<AttendCall> Forward(const TestRing& ring, const std::string& digest,
                                  const std::string& request_id) const;
  std::vector<AttendCall> Backward(const TestRing& ring, const std::string& digest,
                                   const std::string& request_id) const;
  // What stands in an output now, as floats over the whole sequence: "o", "lse", "dq", "dk", "dv".
  std::vector<float> Read(const std::string& name) const;
  void FillOutputs(uint8_t byte);

  // Errors against the float64 reference.
  double ForwardError() const;
  double LseError() const;
  double GradientError() const;  // the largest of dq, dk, dv
  // Of dq, dk, dv taken as one vector: where a row sees few keys dq and dk are differences that
  // cancel, and an error relative to them alone says nothing.
  double JointGradientError() const;

 private:
  struct Tensor {
    int64_t length = 0;
    int heads = 0;
    int head_dim = 0;  // 0: LSE
    annulusDtype dtype = ANNULUS_F32;
    bool of_queries = true;
    std::vector<uint64_t> offsets;  // by rank; in place: one
  };
  void Add(const std::string& name, bool of_queries, int heads, int head_dim, annulusDtype dtype);
  void Fill(const std::string& name);
  const ring::TokenRanges& TokensOf(const Tensor& tensor, int rank) const;
  TensorRef Ref(const std::string& name, int rank) const;
  AttendCall Call(const TestRing& ring, const std::string& digest, const std::string& request_id,
                  int rank) const;
  kernels::ReferenceGradients WantedGradients() const;
  kernels::ReferenceInputs Reference(std::map<std::string, std::vector<float>>* floats) const;
  void ForEachRow(const Tensor& tensor,
                  const std::function<void(int64_t whole_row, uint8_t* data)>& visit) const;

  const Problem problem_;
  const ring::Plan plan_;
  ring::TokenRanges whole_q_, whole_kv_;
  std::unique_ptr<SharedMemory> memory_;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace annulus::worker::testing
