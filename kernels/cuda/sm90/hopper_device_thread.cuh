// SPDX-License-Identifier: Apache-2.0
#pragma once

// The `Thread` of sm90/hopper_thread.h on the device, one instruction a method.
//
// Everything that orders memory is volatile and clobbers it: the compiler keeps such statements in
// their order and moves no load or store across one.

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/sm90/hopper_thread.h"
#include "kernels/cuda/sm90/wgmma.cuh"

namespace annulus::kernels::cuda {

class HopperDeviceThread {
 public:
  __device__ __forceinline__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ __forceinline__ int warpgroup() const {
    return __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / kWarpgroupThreads, 0);
  }
  __device__ __forceinline__ int64_t block() const { return blockIdx.x; }
  __device__ __forceinline__ int64_t blocks() const { return gridDim.x; }
  __device__ __forceinline__ uint32_t shared() const {
    extern __shared__ __align__(1024) uint8_t hopper_shared[];
    return static_cast<uint32_t>(__cvta_generic_to_shared(hopper_shared));
  }
  __device__ __forceinline__ int Forgotten(int value) const {
    asm volatile("" : "+r"(value));
    return value;
  }

  __device__ __forceinline__ uint32_t LoadWord(uint32_t address) const {
    uint32_t word;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(address) : "memory");
    return word;
  }
  __device__ __forceinline__ FourWords LoadFour(uint32_t address) const {
    FourWords words;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words.at[0]), "=r"(words.at[1]), "=r"(words.at[2]), "=r"(words.at[3])
                 : "r"(address)
                 : "memory");
    return words;
  }
  __device__ __forceinline__ void StoreWord(uint32_t address, uint32_t word) const {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(word) : "memory");
  }
  __device__ __forceinline__ void StoreFour(uint32_t address, const FourWords& words) const {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(words.at[0]),
                 "r"(words.at[1]), "r"(words.at[2]), "r"(words.at[3])
                 : "memory");
  }

  __device__ __forceinline__ void StoreFloats(uint32_t address, float first, float second) const {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(address), "f"(first), "f"(second)
                 : "memory");
  }

  __device__ __forceinline__ void BarrierInit(uint32_t barrier, int arrivals) const {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals)
                 : "memory");
  }
  __device__ __forceinline__ void FenceBarrierInit() const {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __device__ __forceinline__ void BarrierArrive(uint32_t barrier) const {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
  }
  __device__ __forceinline__ void BarrierArriveExpect(uint32_t barrier, uint32_t bytes) const {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
  }
  __device__ __forceinline__ void BarrierWait(uint32_t barrier, uint32_t parity) const {
    asm volatile(
        "{\n"
        ".reg .pred over;\n"
        "LOOK:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
        "@over bra OVER;\n"
        "bra LOOK;\n"
        "OVER:\n"
        "}" ::"r"(barrier),
        "r"(parity)
        : "memory");
  }

  __device__ __forceinline__ void PrefetchMap(const TensorMap& map) const {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
  }
  __device__ __forceinline__ void LoadPanel(const TensorMap& map, uint32_t barrier, uint32_t to,
                                            int column, int row, int head, int batch) const {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(to),
        "l"(&map), "r"(barrier), "r"(column), "r"(row), "r"(head), "r"(batch)
        : "memory");
  }
  __device__ __forceinline__ void StoreBulk(float* to, uint32_t from, uint32_t bytes) const {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(from),
                 "r"(bytes)
                 : "memory");
  }
  __device__ __forceinline__ void ReduceAddBulk(float* to, uint32_t from, uint32_t bytes) const {
    asm volatile(
        "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(to),
        "r"(from), "r"(bytes)
        : "memory");
  }
  __device__ __forceinline__ void CommitBulk() const {
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
  }
  template <int kLeft>
  __device__ __forceinline__ void WaitBulk() const {
    asm volatile("cp.async.bulk.wait_group %0;" ::"n"(kLeft) : "memory");
  }
  __device__ __forceinline__ void FenceAsync() const {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }

  __device__ __forceinline__ int32_t TakeNumber(int32_t* counter) const {
    int32_t number;
    asm volatile("atom.relaxed.gpu.global.add.s32 %0, [%1], 1;"
                 : "=r"(number)
                 : "l"(counter)
                 : "memory");
    return number;
  }
  // Sums are the copy engine's: what a thread sees of them, and what it asks for next, is ordered
  // by a fence of its own.
  __device__ __forceinline__ void Await(const int32_t* word, int32_t value) const {
    int32_t seen;
    do {
      asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(seen) : "l"(word) : "memory");
    } while (seen != value);
    asm volatile("fence.proxy.async.global;" ::: "memory");
  }
  __device__ __forceinline__ void PassOn(int32_t* word, int32_t value) const {
    asm volatile(
        "fence.proxy.async.global;\n"
        "fence.acq_rel.gpu;\n"
        "st.release.gpu.global.s32 [%0], %1;" ::"l"(word),
        "r"(value)
        : "memory");
  }

  __device__ __forceinline__ void Sync() const { __syncthreads(); }
  __device__ __forceinline__ void NamedSync(int id, int threads) const {
    asm volatile("barrier.cta.sync.aligned %0, %1;" ::"r"(id), "r"(threads) : "memory");
  }
  __device__ __forceinline__ void NamedArrive(int id, int threads) const {
    asm volatile("barrier.cta.arrive.aligned %0, %1;" ::"r"(id), "r"(threads) : "memory");
  }
  __device__ __forceinline__ bool NamedSyncOr(int id, int threads, bool flag) const {
    int any;
    asm volatile(
        "{\n"
        ".reg .pred mine, any;\n"
        "setp.ne.b32 mine, %3, 0;\n"
        "barrier.cta.red.or.aligned.pred any, %1, %2, mine;\n"
        "selp.b32 %0, 1, 0, any;\n"
        "}"
        : "=r"(any)
        : "r"(id), "r"(threads), "r"(static_cast<int>(flag))
        : "memory");
    return any != 0;
  }
  __device__ __forceinline__ void SyncWarp() const { __syncwarp(); }
  __device__ __forceinline__ bool AnyInWarp(bool flag) const {
    const bool any = __any_sync(0xffffffffu, flag) != 0;
    __syncwarp();  // a vote orders no memory
    return any;
  }
  __device__ __forceinline__ bool ElectOne() const {
    int elected;
    asm volatile(
        "{\n"
        ".reg .pred one;\n"
        "elect.sync _|one, 0xffffffff;\n"
        "selp.b32 %0, 1, 0, one;\n"
        "}"
        : "=r"(elected)::"memory");
    return elected != 0;
  }
  template <int kRegisters>
  __device__ __forceinline__ void IncreaseRegisters() const {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
  }
  template <int kRegisters>
  __device__ __forceinline__ void DecreaseRegisters() const {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
  }
  __device__ __forceinline__ float ShuffleXor(float value, int m) const {
    return __shfl_xor_sync(0xffffffffu, value, m);
  }
  __device__ __forceinline__ float ShuffleFrom(float value, int lane) const {
    return __shfl_sync(0xffffffffu, value, lane);
  }

  __device__ __forceinline__ float Exp2(float x) const {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
  template <class Half>
  __device__ __forceinline__ uint32_t RoundPair(float low, float high) const {
    uint32_t pair;
    if constexpr (std::is_same_v<Half, Bf16>) {
      asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    } else {
      asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    }
    return pair;
  }
  template <class Half>
  __device__ __forceinline__ uint32_t AddZeroTimes(uint32_t pair, uint32_t sum) const {
    uint32_t result;
    if constexpr (std::is_same_v<Half, Bf16>) {
      asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(pair), "r"(0), "r"(sum));
    } else {
      asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(pair), "r"(0), "r"(sum));
    }
    return result;
  }

  template <class... Arrays>
  __device__ __forceinline__ void MatrixFence(Arrays&... registers) const {
    (Pin(registers), ...);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  }
  template <class Half, int kColumns, Major kB>
  __device__ __forceinline__ void MultiplyRegisters(float (&d)[kColumns / 2],
                                                    const uint32_t (&a)[4], uint64_t b,
                                                    bool add) const {
    WgmmaRegisters<Half, kColumns, kB>(d, a, b, add);
  }
  template <class Half, int kColumns, Major kA, Major kB>
  __device__ __forceinline__ void MultiplyShared(float (&d)[kColumns / 2], uint64_t a, uint64_t b,
                                                 bool add) const {
    WgmmaShared<Half, kColumns, kA, kB>(d, a, b, add);
  }
  __device__ __forceinline__ void MatrixCommit() const {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  }
  template <int kLeft, class... Arrays>
  __device__ __forceinline__ void MatrixWait(Arrays&... registers) const {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
    (Pin(registers), ...);
  }

 private:
  // No instruction, but a use: what is computed before stays before, what after after.
  __device__ __forceinline__ static void Pin(float& value) { asm volatile("" : "+f"(value)); }
  __device__ __forceinline__ static void Pin(uint32_t& value) { asm volatile("" : "+r"(value)); }
  template <class T, int kCount>
  __device__ __forceinline__ static void Pin(T (&values)[kCount]) {
    ANNULUS_UNROLL
    for (int i = 0; i < kCount; ++i) Pin(values[i]);
  }
};

}  // namespace annulus::kernels::cuda
