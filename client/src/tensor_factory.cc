// SPDX-License-Identifier: Apache-2.0
#include "client/src/tensor_factory.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"

namespace annulus::client {

absl::StatusOr<Tensor> NewTensor(RegionRegistry* registry, TensorView view) {
  const bool empty = view.batch == 0 || view.rows == 0 || view.heads == 0;
  if (empty) return Tensor(nullptr, view);
  const size_t bytes = view.bytes();
  if (bytes == 0) {
    return absl::InvalidArgumentError(absl::StrCat("a tensor of [", view.batch, ", ", view.rows,
                                                   ", ", view.heads, ", ", view.head_dim,
                                                   "] is negative or too large"));
  }
  ANNULUS_ASSIGN_OR_RETURN(std::shared_ptr<Region> region, registry->Create(bytes));
  view.data = region->data();
  return Tensor(std::move(region), view);
}

}  // namespace annulus::client
