// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace annulus::kernels::cpu {

// A scratch array of floats, 64-byte aligned, that only grows. Contents are undefined after a
// growth. Throws std::bad_alloc; the plugin turns it into OUT_OF_MEMORY.
class AlignedBuffer {
 public:
  // At least `floats` elements, which stay where they are until a larger request.
  float* Reserve(int64_t floats) {
    if (floats > capacity_) {
      data_.reset();
      capacity_ = 0;
      const size_t bytes =
          (static_cast<size_t>(floats) * sizeof(float) + kAlign - 1) & ~(kAlign - 1);
      data_.reset(static_cast<float*>(::operator new (bytes, std::align_val_t{kAlign})));
      capacity_ = floats;
    }
    return data_.get();
  }
  float* data() const { return data_.get(); }

 private:
  static constexpr size_t kAlign = 64;
  struct Delete {
    void operator()(float* data) const { ::operator delete (data, std::align_val_t{kAlign}); }
  };
  std::unique_ptr<float, Delete> data_;
  int64_t capacity_ = 0;
};

}  // namespace annulus::kernels::cpu
