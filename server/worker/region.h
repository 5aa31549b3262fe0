// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

namespace annulus::worker {

// A client's sealed memfd, mapped shared and writable for as long as anyone holds the region.
class Region {
 public:
  // Takes ownership of `fd` in every case. INVALID_ARGUMENT when it is no memfd, is not sealed
  // against shrinking (a truncated mapping would raise SIGBUS), is smaller than `bytes`, or
  // `bytes` is 0; RESOURCE_EXHAUSTED when it cannot be mapped.
  static absl::StatusOr<std::shared_ptr<const Region>> Map(int fd, uint64_t bytes,
                                                           uint64_t generation);
  ~Region();
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  uint8_t* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }
  uint64_t generation() const { return generation_; }

 private:
  Region(uint8_t* data, uint64_t bytes, uint64_t generation)
      : data_(data), bytes_(bytes), generation_(generation) {}

  uint8_t* const data_;
  const uint64_t bytes_;
  const uint64_t generation_;
};

}  // namespace annulus::worker
