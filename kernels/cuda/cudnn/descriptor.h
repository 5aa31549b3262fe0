// SPDX-License-Identifier: Apache-2.0
#pragma once

// One backend descriptor: made, set attribute by attribute, finalized, destroyed with its owner.

#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/cudnn/library.h"

namespace annulus::kernels::cuda {

// The first failure stays: later calls do nothing, and status() tells of it.
class Descriptor {
 public:
  Descriptor(const CudnnLibrary& library, cudnnBackendDescriptorType_t type) : library_(&library) {
    Note(library.BackendCreateDescriptor(type, &raw_), "cudnnBackendCreateDescriptor");
  }
  ~Descriptor() {
    if (raw_ != nullptr) library_->BackendDestroyDescriptor(raw_);
  }
  Descriptor(Descriptor&& other) noexcept
      : library_(other.library_),
        raw_(std::exchange(other.raw_, nullptr)),
        status_(std::move(other.status_)) {}
  Descriptor& operator=(Descriptor&&) = delete;

  cudnnBackendDescriptor_t raw() const { return raw_; }
  const absl::Status& status() const { return status_; }

  template <typename Value>
  void Set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const Value& value) {
    SetMany(name, type, &value, 1);
  }
  template <typename Value>
  void Set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
           const std::vector<Value>& values) {
    SetMany(name, type, values.data(), static_cast<int64_t>(values.size()));
  }
  // `what` names the descriptor in a failure.
  void Finalize(absl::string_view what) {
    if (status_.ok()) Note(library_->BackendFinalize(raw_), what);
  }

 private:
  void SetMany(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
               const void* values, int64_t count) {
    if (status_.ok()) {
      Note(library_->BackendSetAttribute(raw_, name, type, count, values),
           "cudnnBackendSetAttribute");
    }
  }
  void Note(cudnnStatus_t status, absl::string_view what) {
    status_ = library_->ToStatus(status, what);
  }

  const CudnnLibrary* library_;
  cudnnBackendDescriptor_t raw_ = nullptr;
  absl::Status status_;
};

}  // namespace annulus::kernels::cuda
