// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/worker/test_ring.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_plugin.h"
#include "kernels/reference/error_metrics.h"
#include "kernels/tensor_view.h"
#include "server/ring/plan_json.h"
#include "server/transport/host/host_plugin.h"
#include "server/worker/clock.h"

namespace annulus::worker::testing {
namespace {

void Must(const absl::Status& status, const char* what) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s: %s\n", what, status.ToString().c_str());
  std::abort();
}

template <typename T>
T Must(absl::StatusOr<T> value, const char* what) {
  Must(value.status(), what);
  return *std::move(value);
}

void Parallel(int count, const std::function<void(int)>& work) {
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

SharedMemory::SharedMemory(uint64_t bytes, bool sealed) : bytes_(bytes) {
  fd_ = memfd_create("annulus-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd_ < 0 || ftruncate(fd_, static_cast<off_t>(bytes)) != 0) std::abort();
  if (sealed && fcntl(fd_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) std::abort();
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (data == MAP_FAILED) std::abort();
  data_ = static_cast<uint8_t*>(data);
}

SharedMemory::~SharedMemory() {
  munmap(data_, bytes_);
  close(fd_);
}

int SharedMemory::DupFd() const { return fcntl(fd_, F_DUPFD_CLOEXEC, 0); }

uint64_t SharedMemory::Allocate(uint64_t bytes) {
  const uint64_t offset = used_;
  used_ += (bytes + 63) / 64 * 64;
  if (used_ > bytes_) std::abort();
  return offset;
}

const annulusComputeV1* HostDevice() { return kernels::CpuPlugin(); }

TestRing::TestRing(const Options& options) : options_(options) {
  for (int rank = 0; rank < options.size; ++rank) {
    EngineOptions engine;
    engine.name = absl::StrCat("w", rank);
    engine.incarnation = 100;
    engine.host_id = "test-host";
    engine.memory_limit_bytes = options.memory_limit_bytes;
    engine.max_concurrent_requests = options.max_concurrent_requests;
    engine.hop_timeout_seconds = options.hop_timeout_seconds;
    engine.verdict_timeout_seconds = options.verdict_timeout_seconds;
    engine.compute = options.compute;
    engine.transports = options.transports;
    if (engine.transports.empty()) engine.transports = {transport::HostPlugin()};
    if (apart()) engine.device.ordinal = rank % options.devices;
    engines_.push_back(Must(Engine::Create(engine), "Engine::Create"));
    engines_.back()->SetPlanSource(
        [this](const std::string& digest) -> absl::StatusOr<std::string> {
          std::lock_guard lock(mutex_);
          ++plan_fetches_;
          const auto it = plans_.find(digest);
          if (it == plans_.end()) return absl::NotFoundError(absl::StrCat("no plan ", digest));
          return it->second;
        });
    engines_.back()->SetFaultSink([this](const FaultObservation& seen) {
      std::lock_guard lock(mutex_);
      observations_.push_back(seen);
    });
    sessions_.push_back(engines_.back()->OpenSession("test"));
  }
  Form(options.epoch);
}

TestRing::~TestRing() {
  Parallel(size(), [this](int rank) { engines_[rank].reset(); });
}

void TestRing::Form(uint64_t epoch) {
  epoch_ = epoch;
  std::vector<RankHandles> handles;
  for (int rank = 0; rank < size(); ++rank) {
    GroupAssignment group;
    group.group = "g";
    group.epoch = epoch;
    group.rank = rank;
    group.size = size();
    group.inner_link = options_.inner_link;
    group.outer_link = options_.outer_link;
    group.ranks_per_node = options_.ranks_per_node;
    group.transfers_off = options_.transfers_off;
    group.inner_transport = options_.inner_transport;
    group.outer_transport = options_.outer_transport;
    for (int peer = 0; peer < size(); ++peer) group.workers.push_back(absl::StrCat("w", peer));
    handles.push_back(Must(engine(rank).PrepareGroup(group), "PrepareGroup"));
  }
  Parallel(size(),
           [&](int rank) { Must(engine(rank).ConnectGroup("g", epoch, handles), "ConnectGroup"); });
}

std::string TestRing::AddPlan(const ring::Plan& plan) {
  std::lock_guard lock(mutex_);
  plans_[plan.digest] = ring::PlanToJson(plan);
  return plan.digest;
}

int TestRing::plan_fetches() const {
  std::lock_guard lock(mutex_);
  return plan_fetches_;
}

void TestRing::AddRegion(uint64_t region_id, const SharedMemory& memory) {
  for (int rank = 0; rank < size(); ++rank) {
    engine(rank).RemoveRegion(session(rank), region_id).IgnoreError();
    Must(engine(rank).AddRegion(session(rank), region_id, 1, memory.DupFd(), memory.bytes()),
         "AddRegion");
  }
}

std::vector<FaultObservation> TestRing::observations() const {
  std::lock_guard lock(mutex_);
  return observations_;
}

Fence TestRing::FenceOf(const std::string& request_id) const {
  Fence fence;
  fence.group = "g";
  fence.epoch = epoch_;
  fence.incarnation = 100;
  fence.request_id = request_id;
  return fence;
}

std::vector<absl::StatusOr<AttendAnswer>> TestRing::Attend(const std::vector<AttendCall>& calls) {
  std::vector<absl::StatusOr<AttendAnswer>> answers(calls.size());
  Parallel(static_cast<int>(calls.size()), [&](int rank) {
    answers[static_cast<size_t>(rank)] = engine(rank).Attend(calls[static_cast<size_t>(rank)]);
  });
  return answers;
}

ring::Spec SpecOf(const Problem& problem, ring::Direction direction, bool keep_resident) {
  ring::Spec spec;
  spec.direction = direction;
  spec.query_length = problem.query_length;
  spec.kv_length = problem.kv_length;
  spec.context_parallel_size = problem.size;
  spec.window_size = problem.window;
  spec.mask = problem.mask;
  spec.layout = problem.layout;
  spec.keep_resident = keep_resident;
  return spec;
}

Tensors::Tensors(const Problem& problem, const ring::Plan& plan) : problem_(problem), plan_(plan) {
  whole_q_ = {{0, problem.query_length, 1}};
  whole_kv_ = {{0, problem.kv_length, 1}};
  memory_ = std::make_unique<SharedMemory>(uint64_t{16} << 20);
  const Problem& p = problem_;
  Add("q", true, p.query_heads, p.head_dim, p.dtype);
  Add("k", false, p.kv_heads, p.head_dim, p.dtype);
  Add("v", false, p.kv_heads, p.head_dim, p.dtype);
  Add("do", true, p.query_heads, p.head_dim, p.dtype);
  Add("o", true, p.query_heads, p.head_dim, p.output_dtype);
  Add("lse", true, p.query_heads, 0, ANNULUS_F32);
  Add("dq", true, p.query_heads, p.head_dim, p.output_dtype);
  Add("dk", false, p.kv_heads, p.head_dim, p.output_dtype);
  Add("dv", false, p.kv_heads, p.head_dim, p.output_dtype);
  for (const char* name : {"q", "k", "v", "do"}) Fill(name);
  FillOutputs(0xff);  // NaN in every type: whatever is left unwritten shows
}

void Tensors::Add(const std::string& name, bool of_queries, int heads, int head_dim,
                  annulusDtype dtype) {
  Tensor tensor{of_queries ? problem_.query_length : problem_.kv_length,
                heads,
                head_dim,
                dtype,
                of_queries,
                {}};
  const int blocks = problem_.in_place ? 1 : problem_.size;
  for (int block = 0; block < blocks; ++block) {
    const int64_t rows = ring::TokenCount(TokensOf(tensor, block));
    const int64_t elements = problem_.batch * rows * heads * std::max(head_dim, 1);
    tensor.offsets.push_back(
        memory_->Allocate(static_cast<uint64_t>(elements) * kernels::DtypeBytes(dtype)));
  }
  tensors_[name] = tensor;
}

const ring::TokenRanges& Tensors::TokensOf(const Tensor& tensor, int rank) const {
  if (problem_.in_place) return tensor.of_queries ? whole_q_ : whole_kv_;
  const ring::RankShard& shard = plan_.ranks[static_cast<size_t>(rank)];
  return tensor.of_queries ? shard.q : shard.kv;
}

void Tensors::ForEachRow(const Tensor& tensor,
                         const std::function<void(int64_t whole_row, uint8_t* data)>& visit) const {
  const size_t row_bytes = static_cast<size_t>(tensor.heads * std::max(tensor.head_dim, 1)) *
                           kernels::DtypeBytes(tensor.dtype);
  for (size_t block = 0; block < tensor.offsets.size(); ++block) {
    uint8_t* data = memory_->data() + tensor.offsets[block];
    for (int64_t b = 0; b < problem_.batch; ++b) {
      for (const ring::TokenRange& range : TokensOf(tensor, static_cast<int>(block))) {
        for (int64_t token = range.begin; token < range.end; token += range.stride) {
          visit(b * tensor.length + token, data);
          data += row_bytes;
        }
      }
    }
  }
}

void Tensors::Fill(const std::string& name) {
  const Tensor& tensor = tensors_.at(name);
  const int64_t row = tensor.heads * tensor.head_dim;
  std::mt19937 random(problem_.seed * 97 + static_cast<uint32_t>(name[0]) * 7 +
                      static_cast<uint32_t>(name.size()));
  std::normal_distribution<float> normal;
  std::vector<float> whole(static_cast<size_t>(problem_.batch * tensor.length * row));
  for (float& value : whole) value = normal(random);
  ForEachRow(tensor, [&](int64_t whole_row, uint8_t* data) {
    kernels::StoreFromFloat(whole.data() + whole_row * row, row, tensor.dtype, data);
  });
}

void Tensors::FillOutputs(uint8_t byte) {
  for (const char* name : {"o", "lse", "dq", "dk", "dv"}) {
    const Tensor& tensor = tensors_.at(name);
    const size_t row_bytes = static_cast<size_t>(tensor.heads * std::max(tensor.head_dim, 1)) *
                             kernels::DtypeBytes(tensor.dtype);
    ForEachRow(tensor, [&](int64_t, uint8_t* data) { std::memset(data, byte, row_bytes); });
  }
}

std::vector<float> Tensors::Read(const std::string& name) const {
  const Tensor& tensor = tensors_.at(name);
  const int64_t row = tensor.heads * std::max(tensor.head_dim, 1);
  std::vector<float> whole(static_cast<size_t>(problem_.batch * tensor.length * row));
  ForEachRow(tensor, [&](int64_t whole_row, uint8_t* data) {
    kernels::LoadAsFloat(data, tensor.dtype, row, whole.data() + whole_row * row);
  });
  return whole;
}

TensorRef Tensors::Ref(const std::string& name, int rank) const {
  const Tensor& tensor = tensors_.at(name);
  TensorRef ref;
  ref.region = RegionRef{1, 1, tensor.offsets[problem_.in_place ? 0 : static_cast<size_t>(rank)]};
  ref.dtype = tensor.dtype;
  ref.batch = problem_.batch;
  ref.heads = tensor.heads;
  ref.head_dim = tensor.head_dim;
  ref.tokens = TokensOf(tensor, rank);
  ref.rows = ring::TokenCount(ref.tokens);
  return ref;
}

AttendCall Tensors::Call(const TestRing& ring, const std::string& digest,
                         const std::string& request_id, int rank) const {
  AttendCall call;
  call.fence = ring.FenceOf(request_id);
  call.session_id = ring.session(rank);
  call.plan_digest = digest;
  call.batch = problem_.batch;
  call.query_heads = problem_.query_heads;
  call.kv_heads = problem_.kv_heads;
  call.head_dim = problem_.head_dim;
  call.dtype = problem_.dtype;
  call.deadline_ns = NowNs() + 60'000'000'000;
  call.q = Ref("q", rank);
  call.k = Ref("k", rank);
  call.v = Ref("v", rank);
  call.o = Ref("o", rank);
  call.lse = Ref("lse", rank);
  return call;
}

std::vector<AttendCall> Tensors::Forward(const TestRing& ring, const std::string& digest,
                                         const std::string& request_id) const {
  std::vector<AttendCall> calls;
  for (int rank = 0; rank < problem_.size; ++rank) {
    calls.push_back(Call(ring, digest, request_id, rank));
  }
  return calls;
}

std::vector<AttendCall> Tensors::Backward(const TestRing& ring, const std::string& digest,
                                          const std::string& request_id) const {
  std::vector<AttendCall> calls = Forward(ring, digest, request_id);
  for (int rank = 0; rank < problem_.size; ++rank) {
    AttendCall& call = calls[static_cast<size_t>(rank)];
    call.d_o = Ref("do", rank);
    call.dq = Ref("dq", rank);
    call.dk = Ref("dk", rank);
    call.dv = Ref("dv", rank);
  }
  return calls;
}

kernels::ReferenceInputs Tensors::Reference(
    std::map<std::string, std::vector<float>>* floats) const {
  const auto place = [&](const std::string& name) {
    const Tensor& tensor = tensors_.at(name);
    std::vector<float>& values = (*floats)[name];
    values = Read(name);
    return kernels::ContiguousTensor(values.data(), ANNULUS_F32, problem_.batch, tensor.length,
                                     tensor.heads, tensor.head_dim);
  };
  kernels::ReferenceInputs inputs;
  inputs.q = place("q");
  inputs.k = place("k");
  inputs.v = place("v");
  inputs.mask = {
      problem_.mask.kind == ring::MaskKind::kCausal ? ANNULUS_MASK_CAUSAL : ANNULUS_MASK_FULL,
      problem_.kv_length - problem_.query_length, problem_.mask.window_left};
  inputs.softmax_scale = 1.0 / std::sqrt(static_cast<double>(problem_.head_dim));
  return inputs;
}

double Tensors::ForwardError() const {
  std::map<std::string, std::vector<float>> floats;
  const auto want =
      kernels::AttendReference(Reference(&floats), kernels::AllRows(problem_.query_length));
  return kernels::RelativeRmse(Read("o"), want.o);
}

double Tensors::LseError() const {
  std::map<std::string, std::vector<float>> floats;
  const auto want =
      kernels::AttendReference(Reference(&floats), kernels::AllRows(problem_.query_length));
  return kernels::MaxAbsError(Read("lse"), want.lse);
}

kernels::ReferenceGradients Tensors::WantedGradients() const {
  std::map<std::string, std::vector<float>> floats;
  const kernels::ReferenceInputs inputs = Reference(&floats);
  floats["do"] = Read("do");
  const annulusTensor d_o =
      kernels::ContiguousTensor(floats["do"].data(), ANNULUS_F32, problem_.batch,
                                problem_.query_length, problem_.query_heads, problem_.head_dim);
  return kernels::AttendBackwardReference(inputs, d_o, kernels::AllRows(problem_.query_length),
                                          kernels::AllRows(problem_.kv_length));
}

double Tensors::GradientError() const {
  const kernels::ReferenceGradients want = WantedGradients();
  return std::max({kernels::RelativeRmse(Read("dq"), want.dq),
                   kernels::RelativeRmse(Read("dk"), want.dk),
                   kernels::RelativeRmse(Read("dv"), want.dv)});
}

double Tensors::JointGradientError() const {
  kernels::ReferenceGradients want = WantedGradients();
  std::vector<float> got = Read("dq");
  for (const char* name : {"dk", "dv"}) {
    const std::vector<float> more = Read(name);
    got.insert(got.end(), more.begin(), more.end());
  }
  want.dq.insert(want.dq.end(), want.dk.begin(), want.dk.end());
  want.dq.insert(want.dq.end(), want.dv.begin(), want.dv.end());
  return kernels::RelativeRmse(got, want.dq);
}

}  // namespace annulus::worker::testing
