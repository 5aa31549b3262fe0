// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a kernel for compute capability 9.0 knows of its surroundings. Bodies are templates over a
// `Thread`: on the device sm90/hopper_device_thread.cuh, one PTX instruction a method; in tests
// tests/unit/cuda/hopper_emulator.h, where asynchronous work happens as late as the rules allow and
// a broken rule ends the program or poisons the result. (PTX ISA: mbarrier, cp.async.bulk, wgmma.)
//
// Places
//   int thread() const; int64_t block() const; int64_t blocks() const;
//   int warpgroup() const;                   thread() / 128, known to be the same for the warp
//   uint32_t shared() const;                 address of the block's shared memory, on 1024 bytes
//   uint32_t LoadWord(uint32_t address);     and FourWords LoadFour(uint32_t address), on 16 bytes
//   void StoreWord(uint32_t address, uint32_t word);    and StoreFour(address, FourWords)
//   void StoreFloats(uint32_t address, float first, float second);    two words, on 8 bytes
//   int Forgotten(int value) const;          value, as if the compiler did not know it: what is
//   derived
//                                            from it is worked out anew rather than kept in
//                                            registers
//
// Barriers in shared memory (mbarrier): 8 bytes each. A phase is over when all arrivals have come
// and all bytes that were expected; phases count from 0.
//   void BarrierInit(uint32_t barrier, int arrivals);    one thread, then the fence, then Sync
//   void FenceBarrierInit();                             the copy engine sees what was initialised
//   void BarrierArrive(uint32_t barrier);
//   void BarrierArriveExpect(uint32_t barrier, uint32_t bytes);   arrives, and expects bytes more
//   void BarrierWait(uint32_t barrier, uint32_t parity);  until the phase of this parity is over;
//                                                         returns at once for 1 on a new barrier
//
// Copies by the engine (TMA); one thread issues.
//   void PrefetchMap(const TensorMap& map);
//   void LoadPanel(const TensorMap& map, uint32_t barrier, uint32_t to, int column, int row,
//                  int head, int batch);       box_rows x 128 bytes; `to` on 1024 bytes, swizzled
//   void StoreBulk(float* to, uint32_t from, uint32_t bytes);        16-byte multiples; and
//   void ReduceAddBulk(float* to, uint32_t from, uint32_t bytes);    to[i] += from[i], in float32
//   void CommitBulk();
//   template <int kLeft> void WaitBulk();        until all but the last kLeft commits of this
//   thread
//                                                are done: shared memory was read AND global memory
//                                                written. There is no wait for the reading alone: a
//                                                semaphore that is passed on after one lets the
//                                                next owner add before this sum is there.
//   void FenceAsync();       what this thread stored to shared memory is seen by StoreBulk,
//                            ReduceAddBulk and the matrix unit, of whoever synchronises with it
//
// Words that all blocks share, in global memory
//   int32_t TakeNumber(int32_t* counter);        what it was; it is one more now
//   void Await(const int32_t* word, int32_t value);     until it is that; what was done before the
//                                                PassOn that made it so is seen, sums of the
//                                                engine among it
//   void PassOn(int32_t* word, int32_t value);   after the WaitBulk of all whose sums it stands for
//                                                and a barrier with them
//
// Threads together
//   void Sync();                                 the block
//   void NamedSync(int id, int threads);         ids 1 .. 15; threads a multiple of 32
//   void NamedArrive(int id, int threads);
//   bool NamedSyncOr(int id, int threads, bool flag);    and whether the flag is set in any of them
//   void SyncWarp();                             the lanes of a warp, wherever each comes from
//   bool AnyInWarp(bool flag);                   and whether the flag is set in any of them
//   bool ElectOne();                             true in one thread of the warp; all of it calls
//   template <int kRegisters> void IncreaseRegisters();  and DecreaseRegisters: setmaxnreg, by all
//                                                        warps of a warpgroup
//   float ShuffleXor(float value, int m); float ShuffleFrom(float value, int lane);
//
// Arithmetic
//   float Exp2(float x);                         2^x, 2 ulp, denormals as zero; -inf gives 0
//   template <class Half> uint32_t RoundPair(float low, float high);
//   template <class Half> uint32_t AddZeroTimes(uint32_t pair, uint32_t sum);
//                                                sum + 0 * pair by halves: NaN if one is not finite
//
// The matrix unit (wgmma): products of a warpgroup, 64 rows of D, 16 deep. Lane 4 g + t of warp w
// holds of D rows 16 w + g and 16 w + g + 8, columns 8 j + 2 t and one more:
//   d[4 j + 2 r + e] = D[16 w + g + 8 r][8 j + 2 t + e]
// and of A the words a[r + 2 h] = A[16 w + g + 8 r][8 h + 2 t .. 8 h + 2 t + 1]: D of 16 columns,
// rounded, is A of the next product.
//   void MatrixFence(registers...);              before the first product over registers that
//                                                anything else has touched, accumulators and A
//   template <class Half, int kColumns, Major kB>
//   void MultiplyRegisters(float (&d)[kColumns / 2], const uint32_t (&a)[4], uint64_t b, bool add);
//   template <class Half, int kColumns, Major kA, Major kB>
//   void MultiplyShared(float (&d)[kColumns / 2], uint64_t a, uint64_t b, bool add);
//                                                d = (add ? d : 0) + A B; kColumns 64 or 128
//   void MatrixCommit();
//   template <int kLeft> void MatrixWait(d...);  until all but the last kLeft commits are done;
//                                                names the accumulators that are read from now on
// Between a product and its wait neither its registers nor its tiles in shared memory may be
// touched. The arrays are named so that the compiler keeps its hands off them too.

#include <cstdint>

#include "kernels/cuda/half.h"
#include "kernels/cuda/tensor_map.h"
#include "kernels/host_device.h"

namespace annulus::kernels::cuda {

inline constexpr int kWarpgroupThreads = 128;

struct FourWords {
  uint32_t at[4];
};

// Which index of an operand lies along the 128 bytes of a panel's row: the depth that is summed
// over (K of q k^T), or the rows of A or columns of B (V of p v).
enum class Major { kDepth, kOuter };

inline constexpr uint32_t kPatternBytes = 8 * kPanelRowBytes;  // of the swizzle: 8 rows

// Where the swizzle of 128 bytes puts the byte at an address: 16-byte pieces of a row change places
// by the row's number.
ANNULUS_HOST_DEVICE constexpr uint32_t Swizzled(uint32_t address) {
  return address ^ ((address >> 7 & 7) << 4);
}

// The matrix unit's descriptor of a tile in shared memory: start address, leading and stride byte
// offset, all in 16 bytes, and the swizzle of 128 bytes.
ANNULUS_HOST_DEVICE constexpr uint64_t Descriptor(uint32_t address, uint32_t leading_bytes,
                                                  uint32_t stride_bytes) {
  return (address & 0x3ffff) >> 4 | uint64_t{(leading_bytes & 0x3ffff) >> 4} << 16 |
         uint64_t{(stride_bytes & 0x3ffff) >> 4} << 32 | uint64_t{1} << 62;
}

// Of rows with the depth along them. The next 16 deep: 32 bytes on, after four the next panel.
ANNULUS_HOST_DEVICE constexpr uint64_t DepthMajor(uint32_t address) {
  return Descriptor(address, 16, kPatternBytes);
}
// Of rows that are the depth, panels of the outer index `panel_bytes` apart. The next 16 deep: 16
// rows on.
ANNULUS_HOST_DEVICE constexpr uint64_t OuterMajor(uint32_t address, uint32_t panel_bytes) {
  return Descriptor(address, panel_bytes, kPatternBytes);
}

// A descriptor moved on by `bytes`, a multiple of 16.
ANNULUS_HOST_DEVICE constexpr uint64_t Moved(uint64_t descriptor, uint32_t bytes) {
  return descriptor + (bytes >> 4);
}

inline constexpr int kStepDepth = 16;                        // of one product
inline constexpr uint32_t kDepthMajorStep = kStepDepth * 2;  // bytes
inline constexpr uint32_t kOuterMajorStep = kStepDepth * kPanelRowBytes;

}  // namespace annulus::kernels::cuda
