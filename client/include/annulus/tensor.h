// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>

#include "annulus/types.h"

namespace annulus::client {

class Region;

// Memory that the client shares with workers of this host: they read and write it in place, so
// nothing is copied. Backed by a sealed memfd; zeroed at first. Movable; the memory lives until the
// tensor is destroyed. The tensor may outlive the client that allocated it.
//
//   ANNULUS_ASSIGN_OR_RETURN(Tensor q, client->AllocateTensor(DataType::kF32, 1, 4096, 8, 64));
//   std::copy(values.begin(), values.end(), q.as<float>());
class Tensor {
 public:
  Tensor() = default;
  Tensor(std::shared_ptr<Region> region, const TensorView& view)
      : region_(std::move(region)), view_(view) {}

  const TensorView& view() const { return view_; }
  operator const TensorView&() const { return view_; }  // NOLINT: a tensor is passed as its view
  void* data() const { return view_.data; }
  size_t bytes() const { return view_.bytes(); }
  // The memory as elements of T, which must be of the size of the data type.
  template <typename T>
  T* as() const {
    return static_cast<T*>(view_.data);
  }

 private:
  std::shared_ptr<Region> region_;
  TensorView view_;
};

}  // namespace annulus::client
