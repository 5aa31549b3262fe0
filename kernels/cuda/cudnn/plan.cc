// SPDX-License-Identifier: Apache-2.0
// The seam over the library: graphs become plans, plans are run.
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cudnn/attention_graph.h"
#include "kernels/cuda/cudnn/cudnn_api.h"
#include "kernels/cuda/cudnn/library.h"
#include "kernels/tensor_view.h"
#include "server/base/status_macros.h"

namespace annulus::kernels::cuda {
namespace {

constexpr int kEnginesMax = 8;  // of cuDNN's proposals, best first, that are tried
constexpr size_t kPieceBytes = 256;

size_t Aligned(size_t bytes) { return (bytes + kPieceBytes - 1) / kPieceBytes * kPieceBytes; }

std::string Describe(const AttentionShape& shape) {
  return absl::StrCat(shape.pass == AttentionPass::kForward ? "forward" : "backward", ", ",
                      shape.causal ? "causal" : "full", ", ", DtypeName(shape.dtype), ", batch ",
                      shape.batch, ", ", shape.q_rows, " x ", shape.kv_rows, " rows, ",
                      shape.query_heads, "/", shape.kv_heads, " heads of ", shape.head_dim);
}

// What plans are made for.
struct Target {
  CudnnLibrary library;
  cudnnHandle_t handle = nullptr;  // null: the device is only described
  std::unique_ptr<Descriptor> device;

  ~Target() {
    device.reset();
    if (handle != nullptr) library.Destroy(handle);
  }
};

class LibraryPlan final : public AttentionPlan {
 public:
  LibraryPlan(const Target& target, const AttentionShape& shape, Descriptor plan,
              size_t library_bytes)
      : target_(target), shape_(shape), plan_(std::move(plan)), library_bytes_(library_bytes) {
    const size_t rows = static_cast<size_t>(shape.batch * shape.query_heads * shape.q_rows);
    if (shape.pass == AttentionPass::kBackward) {
      delta_bytes_ = Aligned(rows * sizeof(float));
      dq_sum_bytes_ = Aligned(rows * static_cast<size_t>(shape.head_dim) * sizeof(float));
    }
  }

  size_t workspace_bytes() const override {
    return delta_bytes_ + dq_sum_bytes_ + Aligned(library_bytes_);
  }

  absl::Status Execute(const AttentionBuffers& buffers, Driver::Stream stream) override {
    const CudnnLibrary& library = target_.library;
    if (target_.handle == nullptr) return absl::InternalError("a plan for a device not there");
    float scale = buffers.softmax_scale;
    float masked = -std::numeric_limits<float>::infinity();
    float one = 1.0f;
    char* const workspace = static_cast<char*>(buffers.workspace);
    std::vector<int64_t> ids;
    std::vector<const void*> pointers;
    const auto add = [&](GraphTensor id, const void* pointer) {
      ids.push_back(static_cast<int64_t>(id));
      pointers.push_back(pointer);
    };
    add(GraphTensor::kQ, buffers.q);
    add(GraphTensor::kK, buffers.k);
    add(GraphTensor::kV, buffers.v);
    add(GraphTensor::kO, buffers.o);
    add(GraphTensor::kStats, buffers.stats);
    add(GraphTensor::kScale, &scale);
    if (shape_.causal) add(GraphTensor::kMasked, &masked);
    if (shape_.pass == AttentionPass::kBackward) {
      add(GraphTensor::kDo, buffers.d_o);
      add(GraphTensor::kDq, buffers.dq);
      add(GraphTensor::kDk, buffers.dk);
      add(GraphTensor::kDv, buffers.dv);
      add(GraphTensor::kDelta, workspace);
      add(GraphTensor::kDqSum, workspace + delta_bytes_);
      add(GraphTensor::kOne, &one);
    }
    Descriptor pack(library, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    pack.Set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, ids);
    pack.Set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, pointers);
    pack.Set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR,
             workspace + delta_bytes_ + dq_sum_bytes_);
    pack.Finalize("variant pack");
    ANNULUS_RETURN_IF_ERROR(pack.status());
    ANNULUS_RETURN_IF_ERROR(library.ToStatus(
        library.SetStream(target_.handle, static_cast<cudaStream_t>(stream)), "cudnnSetStream"));
    return library.ToStatus(library.BackendExecute(target_.handle, plan_.raw(), pack.raw()),
                            absl::StrCat("cudnnBackendExecute, ", Describe(shape_)));
  }

 private:
  const Target& target_;
  const AttentionShape shape_;
  const Descriptor plan_;
  const size_t library_bytes_;
  size_t delta_bytes_ = 0;
  size_t dq_sum_bytes_ = 0;
};

class LibraryApi final : public CudnnApi {
 public:
  explicit LibraryApi(std::unique_ptr<Target> target) : target_(std::move(target)) {}

  std::string version() const override { return VersionText(target_->library.GetVersion()); }

  absl::StatusOr<std::unique_ptr<AttentionPlan>> Build(const AttentionShape& shape) override {
    GraphBuilder builder(library());
    BuildAttentionGraph(shape, &builder);
    ANNULUS_RETURN_IF_ERROR(Explained(builder.status(), shape));
    std::vector<cudnnBackendDescriptor_t> operations;
    for (const Descriptor& operation : builder.operations()) operations.push_back(operation.raw());
    Descriptor graph(library(), CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    graph.Set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, operations);
    graph.Finalize("operation graph");
    ANNULUS_RETURN_IF_ERROR(Explained(graph.status(), shape));
    ANNULUS_ASSIGN_OR_RETURN(const std::vector<Descriptor> engines, Engines(graph, shape));
    absl::Status last = absl::InvalidArgumentError("no engine");
    for (const Descriptor& engine : engines) {
      Descriptor plan(library(), CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
      plan.Set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR,
               target_->device->raw());
      plan.Set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR,
               engine.raw());
      plan.Finalize("execution plan");
      last = plan.status();
      if (!last.ok()) continue;
      int64_t bytes = 0;
      ANNULUS_RETURN_IF_ERROR(library().ToStatus(
          library().BackendGetAttribute(plan.raw(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                        CUDNN_TYPE_INT64, 1, nullptr, &bytes),
          "workspace size"));
      return std::make_unique<LibraryPlan>(*target_, shape, std::move(plan),
                                           static_cast<size_t>(bytes));
    }
    return Explained(last, shape);
  }

 private:
  const CudnnLibrary& library() const { return target_->library; }

  absl::Status Explained(const absl::Status& status, const AttentionShape& shape) const {
    if (status.ok()) return status;
    return absl::Status(status.code(), absl::StrCat("cuDNN ", version(), " has no kernel for ",
                                                    Describe(shape), ": ", status.message()));
  }

  // What cuDNN proposes for the graph, best first.
  absl::StatusOr<std::vector<Descriptor>> Engines(const Descriptor& graph,
                                                  const AttentionShape& shape) {
    Descriptor heuristics(library(), CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    heuristics.Set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                   graph.raw());
    heuristics.Set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, CUDNN_HEUR_MODE_A);
    heuristics.Set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                   target_->device->raw());
    heuristics.Finalize("heuristics");
    ANNULUS_RETURN_IF_ERROR(Explained(heuristics.status(), shape));
    std::vector<Descriptor> engines;
    std::vector<cudnnBackendDescriptor_t> raw;
    for (int i = 0; i < kEnginesMax; ++i) {
      engines.emplace_back(library(), CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
      ANNULUS_RETURN_IF_ERROR(engines.back().status());
      raw.push_back(engines.back().raw());
    }
    int64_t count = 0;
    ANNULUS_RETURN_IF_ERROR(library().ToStatus(
        library().BackendGetAttribute(heuristics.raw(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                      CUDNN_TYPE_BACKEND_DESCRIPTOR, kEnginesMax, &count,
                                      raw.data()),
        "engines"));
    while (static_cast<int64_t>(engines.size()) > count) engines.pop_back();
    return engines;
  }

  const std::unique_ptr<Target> target_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CudnnApi>> OpenCudnn() {
  auto target = std::make_unique<Target>();
  ANNULUS_ASSIGN_OR_RETURN(target->library, LoadCudnn());
  ANNULUS_RETURN_IF_ERROR(
      target->library.ToStatus(target->library.Create(&target->handle), "cudnnCreate"));
  target->device =
      std::make_unique<Descriptor>(target->library, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  target->device->Set(CUDNN_ATTR_DEVICEPROP_HANDLE, CUDNN_TYPE_HANDLE, target->handle);
  target->device->Finalize("device");
  ANNULUS_RETURN_IF_ERROR(target->device->status());
  return std::make_unique<LibraryApi>(std::move(target));
}

absl::StatusOr<std::unique_ptr<CudnnApi>> OpenCudnnFor(const std::string& device_json) {
  auto target = std::make_unique<Target>();
  ANNULUS_ASSIGN_OR_RETURN(target->library, LoadCudnn());
  target->device =
      std::make_unique<Descriptor>(target->library, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  target->device->Set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                      std::vector<char>(device_json.begin(), device_json.end()));
  target->device->Finalize("device");
  ANNULUS_RETURN_IF_ERROR(target->device->status());
  return std::make_unique<LibraryApi>(std::move(target));
}

}  // namespace annulus::kernels::cuda
