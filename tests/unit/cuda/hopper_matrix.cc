// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/cuda/hopper_matrix.h"

#include <bit>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "tests/unit/cuda/emulator_rules.h"

namespace annulus::kernels::cuda {
namespace {

constexpr int kRows = 64;
constexpr int kColumnsMax = 128;
constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();

float ToFloat(annulusDtype dtype, uint16_t bits) {
  return dtype == ANNULUS_BF16 ? Bf16ToFloat(bits) : F16ToFloat(bits);
}

uint32_t AddressOf(uint64_t descriptor) { return (descriptor & 0x3fff) << 4; }
uint32_t LeadingOf(uint64_t descriptor) { return (descriptor >> 16 & 0x3fff) << 4; }
uint32_t StrideOf(uint64_t descriptor) { return (descriptor >> 32 & 0x3fff) << 4; }

// Element i of a thread's accumulator in the 64 rows.
int RowOf(int thread, int i) { return thread / 32 * 16 + thread % 32 / 4 + i % 4 / 2 * 8; }
int ColumnOf(int thread, int i) { return i / 4 * 8 + thread % 4 * 2 + i % 2; }

// sums += A B, of each element in the order of the depths. Sums of a row stay in registers.
template <int kColumns>
void AddProduct(const float* a, const float* b, float* sums) {
  constexpr int kAtOnce = 32;
  for (int row = 0; row < kRows; ++row) {
    for (int first = 0; first < kColumns; first += kAtOnce) {
      float* const own = sums + row * kColumns + first;
      float block[kAtOnce];
      for (int i = 0; i < kAtOnce; ++i) block[i] = own[i];
      for (int depth = 0; depth < kStepDepth; ++depth) {
        const float factor = a[depth * kRows + row];
        const float* const of_b = b + depth * kColumns + first;
        for (int i = 0; i < kAtOnce; ++i) block[i] += factor * of_b[i];
      }
      for (int i = 0; i < kAtOnce; ++i) own[i] = block[i];
    }
  }
}

}  // namespace

void HopperMatrix::Fence(int thread, const void* registers, size_t bytes) {
  const auto* first = static_cast<const char*>(registers);
  for (Fenced& fenced : fenced_[thread]) {
    if (fenced.registers == first && fenced.content.size() == bytes) {
      std::memcpy(fenced.content.data(), first, bytes);
      return;
    }
  }
  fenced_[thread].push_back({first, std::vector<char>(first, first + bytes)});
}

void HopperMatrix::CheckFenced(int thread, const void* registers, size_t bytes) const {
  const auto* first = static_cast<const char*>(registers);
  for (const Fenced& fenced : fenced_[thread]) {
    if (first < fenced.registers || first + bytes > fenced.registers + fenced.content.size()) {
      continue;
    }
    if (std::memcmp(fenced.content.data() + (first - fenced.registers), first, bytes) == 0) return;
  }
  BreakRule(absl::StrCat("thread ", thread,
                         " of a warpgroup: registers of a product changed since MatrixFence"));
}

HopperMatrix::Issued& HopperMatrix::Next(int thread, const MatrixOp& op) {
  const auto at = static_cast<size_t>(next_[thread]++ - done_);
  if (at == issued_.size()) {
    issued_.emplace_back();
    issued_.back().op = op;
    if (op.commit) ++commits_;
  } else if (!(issued_[at].op == op)) {
    BreakRule(absl::StrCat("thread ", thread, " of a warpgroup issues another product"));
  }
  return issued_[at];
}

HopperMatrix::Accumulator* HopperMatrix::AccumulatorOf(int thread, const MatrixOp& op, float* d) {
  for (Accumulator& accumulator : accumulators_) {
    if (accumulator.at_work > 0 && accumulator.d[thread] == d) {
      if (accumulator.columns != op.columns) BreakRule("products of two shapes in one accumulator");
      return &accumulator;
    }
  }
  for (Accumulator& accumulator : accumulators_) {
    if (accumulator.at_work == 0) {
      accumulator.d = {};
      accumulator.columns = op.columns;
      accumulator.values.assign(kRows * op.columns, 0.0f);
      return &accumulator;
    }
  }
  accumulators_.emplace_back();
  return AccumulatorOf(thread, op, d);
}

void HopperMatrix::TakeAccumulator(int thread, float* d, Accumulator& accumulator) {
  CheckFenced(thread, d, accumulator.columns / 2 * sizeof(float));
  accumulator.d[thread] = d;
  for (int i = 0; i < accumulator.columns / 2; ++i) {
    accumulator.values[RowOf(thread, i) * accumulator.columns + ColumnOf(thread, i)] = d[i];
    d[i] = kPoison;
  }
}

void HopperMatrix::Issue(int thread, const MatrixOp& op, float* d, const uint32_t* a) {
  Issued& issued = Next(thread, op);
  if (issued.accumulator == nullptr) {
    if (!op.a_in_registers) CheckOperand(op.a, op.a_major, kRows);
    CheckOperand(op.b, op.b_major, op.columns);
    issued.accumulator = AccumulatorOf(thread, op, d);
    issued.a_then.resize(kWarpgroupThreads);
    ++issued.accumulator->at_work;
  }
  Accumulator& accumulator = *issued.accumulator;
  if (accumulator.d[thread] == nullptr) TakeAccumulator(thread, d, accumulator);
  if (accumulator.d[thread] != d) BreakRule("threads of a warpgroup sum into unlike accumulators");
  if (!op.a_in_registers) return;
  CheckFenced(thread, a, 4 * sizeof(uint32_t));
  issued.a[thread] = a;
  std::memcpy(issued.a_then[thread].data(), a, 4 * sizeof(uint32_t));
}

void HopperMatrix::Commit(int thread) {
  MatrixOp op;
  op.commit = true;
  Next(thread, op);
}

// Start, offsets and the tiles that a product of `outer` rows or columns touches.
void HopperMatrix::CheckOperand(uint64_t descriptor, Major major, int outer) const {
  const uint32_t address = AddressOf(descriptor);
  if (descriptor >> 62 != 1) BreakRule("a descriptor without the swizzle of 128 bytes");
  if ((descriptor >> 49 & 7) != 0 || address % kPatternBytes / kPanelRowBytes != 0) {
    BreakRule("a descriptor that starts within the pattern of the swizzle");
  }
  const uint32_t pattern = address / kPatternBytes * kPatternBytes;
  if (major == Major::kDepth) {
    if (address % kPanelRowBytes > kPanelRowBytes - kDepthMajorStep) {
      BreakRule("a descriptor that leaves the panel");
    }
    for (int i = 0; i < outer / 8; ++i) {
      memory_->CheckLanded(pattern + i * StrideOf(descriptor), kPatternBytes);
    }
    return;
  }
  for (int panel = 0; panel < (outer + kPanelColumns - 1) / kPanelColumns; ++panel) {
    for (int i = 0; i < kStepDepth / 8; ++i) {
      memory_->CheckLanded(pattern + panel * LeadingOf(descriptor) + i * StrideOf(descriptor),
                           kPatternBytes);
    }
  }
}

// The operand as `outers` floats for each depth, eight elements at a time: the swizzle keeps 16
// bytes together. PTX ISA, "Shared Memory Matrix Layout", 128-byte swizzle.
void HopperMatrix::ReadOperand(uint64_t descriptor, Major major, int outers, annulusDtype dtype,
                               float* to) const {
  const bool depth_major = major == Major::kDepth;
  const int lines = depth_major ? outers : kStepDepth;
  const int length = depth_major ? kStepDepth : outers;
  for (int line = 0; line < lines; ++line) {
    for (int first = 0; first < length; first += 8) {
      uint32_t address = AddressOf(descriptor) + line / 8 * StrideOf(descriptor) +
                         line % 8 * kPanelRowBytes + first % kPanelColumns * 2;
      if (!depth_major) address += first / kPanelColumns * LeadingOf(descriptor);
      const FourWords words = memory_->ReadFour(Swizzled(address));
      for (int i = 0; i < 8; ++i) {
        const uint32_t word = words.at[i / 2];
        const float value = ToFloat(dtype, static_cast<uint16_t>(i % 2 == 0 ? word : word >> 16));
        to[depth_major ? (first + i) * outers + line : line * outers + first + i] = value;
      }
    }
  }
}

void HopperMatrix::ReadRegistersOfA(const Issued& issued, float* to) const {
  for (int thread = 0; thread < kWarpgroupThreads; ++thread) {
    if (std::memcmp(issued.a[thread], issued.a_then[thread].data(), 4 * sizeof(uint32_t)) != 0) {
      BreakRule("A's registers changed while their product was at work");
    }
    for (int i = 0; i < 8; ++i) {
      const int word = i / 2;
      const int row = thread / 32 * 16 + thread % 32 / 4 + word % 2 * 8;
      const int depth = word / 2 * 8 + thread % 4 * 2 + i % 2;
      const uint32_t pair = issued.a[thread][word];
      to[depth * kRows + row] =
          ToFloat(issued.op.dtype, static_cast<uint16_t>(i % 2 == 0 ? pair : pair >> 16));
    }
  }
}

void HopperMatrix::Multiply(const Issued& issued) {
  const MatrixOp& op = issued.op;
  float a[kStepDepth * kRows];
  float b[kStepDepth * kColumnsMax];
  if (op.a_in_registers) {
    ReadRegistersOfA(issued, a);
  } else {
    ReadOperand(op.a, op.a_major, kRows, op.dtype, a);
  }
  ReadOperand(op.b, op.b_major, op.columns, op.dtype, b);
  std::vector<float>& values = issued.accumulator->values;
  if (!op.add) values.assign(values.size(), 0.0f);
  if (op.columns == 64) {
    AddProduct<64>(a, b, values.data());
  } else {
    AddProduct<128>(a, b, values.data());
  }
  if (--issued.accumulator->at_work == 0) Finish(*issued.accumulator);
}

void HopperMatrix::Finish(Accumulator& accumulator) {
  for (int thread = 0; thread < kWarpgroupThreads; ++thread) {
    float* const d = accumulator.d[thread];
    for (int i = 0; i < accumulator.columns / 2; ++i) {
      if (std::bit_cast<uint32_t>(d[i]) != std::bit_cast<uint32_t>(kPoison)) {
        BreakRule("an accumulator was written while its product was at work");
      }
      d[i] = accumulator.values[RowOf(thread, i) * accumulator.columns + ColumnOf(thread, i)];
    }
  }
}

void HopperMatrix::WaitForAllBut(int commits_left) {
  for (const int64_t next : next_) {
    if (next != next_[0]) BreakRule("the warps of a group issued unlike numbers of products");
  }
  while (commits_ > commits_left) {
    if (issued_.front().op.commit) {
      --commits_;
    } else {
      Multiply(issued_.front());
    }
    issued_.pop_front();
    ++done_;
  }
}

void HopperMatrix::CheckDone(int thread, const void* registers, size_t bytes) const {
  const auto* first = static_cast<const char*>(registers);
  for (const Accumulator& accumulator : accumulators_) {
    const auto* d = reinterpret_cast<const char*>(accumulator.d[thread]);
    if (accumulator.at_work > 0 && first <= d && d < first + bytes) {
      BreakRule("MatrixWait names an accumulator whose product is still at work");
    }
  }
}

void HopperMatrix::CheckIdle() const {
  if (!issued_.empty()) BreakRule("a warpgroup ended with products that it never waited for");
}

}  // namespace annulus::kernels::cuda
