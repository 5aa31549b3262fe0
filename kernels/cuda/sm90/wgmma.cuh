// SPDX-License-Identifier: Apache-2.0
#pragma once

// The matrix instruction of compute capability 9.0 in each shape that a kernel uses. Its operands
// are so many that macros spell them; nothing else is decided here.

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/sm90/hopper_thread.h"

namespace annulus::kernels::cuda {

// The accumulators as operands, and their places in the instruction: 64 or 128 columns.
// clang-format off
#define ANNULUS_WGMMA_OPERANDS_64(d) \
  "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), \
  "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), \
  "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), \
  "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), \
  "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
#define ANNULUS_WGMMA_LIST_64 \
  "{" \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, " \
  "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31" \
  "}"
#define ANNULUS_WGMMA_OPERANDS_128(d) \
  "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), \
  "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), \
  "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), \
  "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), \
  "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), \
  "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), \
  "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), \
  "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), "+f"(d[49]), \
  "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), \
  "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), \
  "+f"(d[62]), "+f"(d[63])
#define ANNULUS_WGMMA_LIST_128 \
  "{" \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, " \
  "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, " \
  "%34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, " \
  "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63" \
  "}"
// clang-format on

// After the accumulators: A (four words or a descriptor), B, whether to add, the transpositions.
#define ANNULUS_WGMMA_REGISTERS(columns, format, a0, a1, a2, a3, b, p, trans_b)                    \
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %" #p                                         \
               ", 0;\n"                                                                            \
               "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." format "." format           \
               " " ANNULUS_WGMMA_LIST_##columns ", {%" #a0 ", %" #a1 ", %" #a2 ", %" #a3 "}, %" #b \
                                                ", add, 1, 1, %" #trans_b ";\n}"                   \
               : ANNULUS_WGMMA_OPERANDS_##columns(d)                                               \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b_tile), "r"(add_word),           \
                 "n"(kTransposedB)                                                                 \
               : "memory")
#define ANNULUS_WGMMA_SHARED(columns, format, a, b, p, trans_a, trans_b)                       \
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %" #p                                     \
               ", 0;\n"                                                                        \
               "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." format "." format       \
               " " ANNULUS_WGMMA_LIST_##columns ", %" #a ", %" #b ", add, 1, 1, %" #trans_a    \
                                                ", %" #trans_b ";\n}"                          \
               : ANNULUS_WGMMA_OPERANDS_##columns(d)                                           \
               : "l"(a_tile), "l"(b_tile), "r"(add_word), "n"(kTransposedA), "n"(kTransposedB) \
               : "memory")

template <class Half, int kColumns, Major kB>
__device__ __forceinline__ void WgmmaRegisters(float (&d)[kColumns / 2], const uint32_t (&a)[4],
                                               uint64_t b_tile, bool add) {
  static_assert(kColumns == 64 || kColumns == 128);
  constexpr bool kBf16 = std::is_same_v<Half, Bf16>;
  constexpr int kTransposedB = kB == Major::kOuter;
  const int add_word = add;
  if constexpr (kColumns == 64 && kBf16) {
    ANNULUS_WGMMA_REGISTERS(64, "bf16", 32, 33, 34, 35, 36, 37, 38);
  } else if constexpr (kColumns == 64) {
    ANNULUS_WGMMA_REGISTERS(64, "f16", 32, 33, 34, 35, 36, 37, 38);
  } else if constexpr (kBf16) {
    ANNULUS_WGMMA_REGISTERS(128, "bf16", 64, 65, 66, 67, 68, 69, 70);
  } else {
    ANNULUS_WGMMA_REGISTERS(128, "f16", 64, 65, 66, 67, 68, 69, 70);
  }
}

template <class Half, int kColumns, Major kA, Major kB>
__device__ __forceinline__ void WgmmaShared(float (&d)[kColumns / 2], uint64_t a_tile,
                                            uint64_t b_tile, bool add) {
  static_assert(kColumns == 64 || kColumns == 128);
  constexpr bool kBf16 = std::is_same_v<Half, Bf16>;
  constexpr int kTransposedA = kA == Major::kOuter;
  constexpr int kTransposedB = kB == Major::kOuter;
  const int add_word = add;
  if constexpr (kColumns == 64 && kBf16) {
    ANNULUS_WGMMA_SHARED(64, "bf16", 32, 33, 34, 35, 36);
  } else if constexpr (kColumns == 64) {
    ANNULUS_WGMMA_SHARED(64, "f16", 32, 33, 34, 35, 36);
  } else if constexpr (kBf16) {
    ANNULUS_WGMMA_SHARED(128, "bf16", 64, 65, 66, 67, 68);
  } else {
    ANNULUS_WGMMA_SHARED(128, "f16", 64, 65, 66, 67, 68);
  }
}

}  // namespace annulus::kernels::cuda
