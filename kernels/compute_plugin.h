/* SPDX-License-Identifier: Apache-2.0 */
/* The compute plugin ABI: what a worker asks of a device.
 *
 * A plugin is a shared library libannulus-compute-<name>.so that exports one struct,
 * `annulusCompute_v1`, of this type. It knows tiles and pointers, never ranks. No C++ type and no
 * exception crosses this line. Fields are only ever added at the end: check `struct_size`.
 *
 * Shapes. q, o, do, dq: [batch, rows, query_heads, head_dim]; k, v, dk, dv: [batch, rows, kv_heads,
 * head_dim]; lse and delta: [batch, rows, query_heads], float32. Query head h reads KV head
 * h / (query_heads / kv_heads). The scale multiplies q.k before the softmax; LSE is natural-log.
 *
 * Positions. A row of a tensor is told from a token's position in the sequence by spans: a span
 * names `count` rows starting at `row` that hold the tokens position, position + stride, ... So a
 * shard of any layout, or a whole sequence used in place, is attended without being copied.
 * Query i may see key j when, with p = position: full: always; causal: p_j <= p_i + causal_offset;
 * sliding window of `window_left` >= 0: additionally p_j >= p_i + causal_offset - window_left.
 *
 * Partials. (o, lse) is the state of an online softmax (Milakov & Gimelshein, arXiv 1805.02867;
 * Ring Attention, arXiv 2310.01889): o is the normalised fp32 output over the keys seen so far and
 * lse the log of their summed exponentials. (0, -inf) is the identity. `attend` starts from what is
 * there and leaves the merged state there; a row with no allowed key is left untouched, never NaN.
 *
 * Streams. Work is enqueued in order on a stream and may run later (CUDA) or at once (CPU);
 * `event_record` marks a point, `event_synchronize` waits for it up to a deadline.
 *
 * NaN and infinity in the input propagate as IEEE arithmetic has it to the rows they touch; masked
 * positions never leak them.
 *
 * Thread safety: a device may be used from several threads; one stream from one at a time.
 */
#ifndef ANNULUS_KERNELS_COMPUTE_PLUGIN_H_
#define ANNULUS_KERNELS_COMPUTE_PLUGIN_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ANNULUS_COMPUTE_V1_SYMBOL "annulusCompute_v1"

typedef enum annulusComputeStatus {
  ANNULUS_COMPUTE_OK = 0,
  ANNULUS_COMPUTE_INVALID_ARGUMENT = 1, /* shape, dtype, span or mask the device does not take */
  ANNULUS_COMPUTE_OUT_OF_MEMORY = 2,
  ANNULUS_COMPUTE_DEADLINE = 3,
  ANNULUS_COMPUTE_DEVICE_ERROR = 4,
} annulusComputeStatus;

typedef enum annulusDtype {
  ANNULUS_F32 = 0,
  ANNULUS_BF16 = 1,
  ANNULUS_F16 = 2,
} annulusDtype;

typedef enum annulusMaskKind {
  ANNULUS_MASK_FULL = 0,
  ANNULUS_MASK_CAUSAL = 1,
} annulusMaskKind;

/* `count` rows of a tensor from `row` on, holding tokens position + i * stride. stride >= 1. */
typedef struct annulusSpan {
  int64_t row;
  int64_t count;
  int64_t position;
  int64_t stride;
} annulusSpan;

/* A 4-D view; the last dimension is contiguous, the strides of the others are in elements. */
typedef struct annulusTensor {
  void* data;
  annulusDtype dtype;
  int64_t batch, rows, heads, head_dim;
  int64_t batch_stride, row_stride, head_stride;
} annulusTensor;

/* [batch, rows, heads] float32; strides in elements, heads contiguous. */
typedef struct annulusRowStat {
  float* data;
  int64_t batch, rows, heads;
  int64_t batch_stride, row_stride;
} annulusRowStat;

typedef struct annulusMask {
  annulusMaskKind kind;
  int64_t causal_offset; /* Lkv - Lq: bottom-right alignment */
  int64_t window_left;   /* -1: none */
} annulusMask;

/* o, lse <- merge((o, lse), attention of the query spans over the key spans).
 * o is float32; lse covers the same rows as o. */
typedef struct annulusAttendArgs {
  size_t struct_size;
  annulusTensor q, k, v, o;
  annulusRowStat lse;
  const annulusSpan* q_spans; /* rows of q, o and lse */
  size_t q_span_count;
  const annulusSpan* kv_spans; /* rows of k and v */
  size_t kv_span_count;
  annulusMask mask;
  float softmax_scale;
  /* o and lse may be rows of another buffer than q: row of o = row of q + o_row_offset. 0 for most.
   */
  int64_t o_row_offset;
} annulusAttendArgs;

/* dq += ..., dk += ..., dv += ... of the query spans over the key spans. dq, dk, dv are float32
 * and accumulated in place. Needs the final lse and delta = rowsum(do * o) of those query rows.
 * Rows of dq, lse and delta = row of q + dq_row_offset; rows of do = rows of q; rows of dk, dv =
 * row of k + dkv_row_offset. A row whose lse is -inf contributes nothing. */
typedef struct annulusAttendBackwardArgs {
  size_t struct_size;
  annulusTensor q, k, v, d_o, dq, dk, dv;
  annulusRowStat lse, delta;
  const annulusSpan* q_spans;
  size_t q_span_count;
  const annulusSpan* kv_spans;
  size_t kv_span_count;
  annulusMask mask;
  float softmax_scale;
  int64_t dq_row_offset;
  int64_t dkv_row_offset;
} annulusAttendBackwardArgs;

typedef struct annulusDeviceInfo {
  size_t struct_size;
  char description[128]; /* "cpu: AVX3 with AMX, 1 thread" */
  int64_t memory_bytes;  /* 0: host memory, not bounded here */
  int32_t compute_units; /* threads or SMs */
  int32_t host_memory;   /* 1: alloc returns memory the host may touch */
  char bus_id[32];       /* "0000:3b:00.0"; empty: not on a bus. Since abi_minor 2 */
} annulusDeviceInfo;

typedef struct annulusComputeOptions {
  size_t struct_size;
  int32_t device_ordinal;
  int32_t threads; /* CPU: compute threads of this worker, >= 1 */
  /* CPU: the processors to bind the compute threads to while they work, one each; the calling
   * thread is the first. NULL and 0: the system's choice. */
  const int32_t* cpus;
  size_t cpu_count;
  /* Since abi_minor 2. */
  const char* provider;  /* which kernels of the plugin to use; NULL or "auto": the fastest there */
  int32_t spare_units;   /* compute units that kernels leave to transfers, 0 .. compute_units - 1 */
  int32_t deterministic; /* 1: the backward gives the same bits every time, if need be slower */
} annulusComputeOptions;

/* `rows` pieces of `row_bytes`, each `pitch` bytes after the one before, from one memory to
 * another; each side is the host's or the device's own, and the device finds out which. Host memory
 * is touched until the stream has come past the copy. */
typedef struct annulusCopyArgs {
  size_t struct_size;
  void* to;
  const void* from;
  size_t row_bytes, rows;
  size_t to_pitch, from_pitch; /* >= row_bytes; of no meaning where rows == 1 */
} annulusCopyArgs;

typedef enum annulusMemoryHandleKind {
  ANNULUS_MEMORY_CUDA_IPC = 0,   /* `ipc` is a cudaIpcMemHandle_t */
  ANNULUS_MEMORY_DESCRIPTOR = 1, /* `descriptor` is a file descriptor of CUDA's virtual memory */
} annulusMemoryHandleKind;

/* Device memory as another process can be told of it. */
typedef struct annulusMemoryHandle {
  size_t struct_size;
  annulusMemoryHandleKind kind;
  uint8_t ipc[64];
  int32_t descriptor; /* not consumed by import_memory; of export_memory the caller's to close */
  size_t bytes;       /* of the whole allocation */
  size_t offset;      /* of the memory that was exported, in it */
} annulusMemoryHandle;

/* What a device can do at best, the yardsticks that a kernel's speed is given as a share of. */
typedef enum annulusCeiling {
  ANNULUS_CEILING_MULTIPLY_ADD_F32 = 0, /* work: floating-point operations, two a multiply-add */
  ANNULUS_CEILING_MEMORY_READ = 1,      /* work: bytes, of an array far beyond the caches */
} annulusCeiling;

typedef struct annulusDevice annulusDevice;
typedef struct annulusStream annulusStream;
typedef struct annulusEvent annulusEvent;

enum {
  ANNULUS_COMPUTE_CAP_BACKWARD = 1u << 0,
  ANNULUS_COMPUTE_CAP_SLIDING_WINDOW = 1u << 1,
  ANNULUS_COMPUTE_CAP_ASYNC = 1u << 2, /* attend returns before the work is done */
};

typedef struct annulusComputeV1 {
  size_t struct_size;
  uint32_t abi_minor;
  const char* name;
  uint64_t caps;

  annulusComputeStatus (*open)(const annulusComputeOptions* options, annulusDevice** device);
  void (*close)(annulusDevice* device);
  /* The last failure on this thread, in words; never NULL. */
  const char* (*last_error)(void);
  annulusComputeStatus (*device_info)(annulusDevice* device, annulusDeviceInfo* info);
  /* OK, or INVALID_ARGUMENT with the reason in last_error: what head sizes and dtypes run here. */
  annulusComputeStatus (*supports)(annulusDevice* device, annulusDtype dtype, int64_t head_dim,
                                   int64_t query_heads, int64_t kv_heads);

  annulusComputeStatus (*alloc)(annulusDevice* device, size_t bytes,
                                void** memory); /* 64-B aligned, not zeroed */
  void (*free)(annulusDevice* device, void* memory);

  annulusComputeStatus (*stream_create)(annulusDevice* device, annulusStream** stream);
  void (*stream_destroy)(annulusStream* stream);
  annulusComputeStatus (*event_create)(annulusDevice* device, annulusEvent** event);
  void (*event_destroy)(annulusEvent* event);
  annulusComputeStatus (*event_record)(annulusEvent* event, annulusStream* stream);
  /* Waits until the point is reached; CLOCK_MONOTONIC deadline in ns. time_ns: when it was reached.
   */
  annulusComputeStatus (*event_synchronize)(annulusEvent* event, int64_t deadline_ns,
                                            int64_t* time_ns);

  /* o = 0, lse = -inf over all rows. */
  annulusComputeStatus (*reset)(annulusStream* stream, const annulusTensor* o,
                                const annulusRowStat* lse);
  annulusComputeStatus (*attend)(annulusStream* stream, const annulusAttendArgs* args);
  /* delta = rowsum(do * o), over all rows; do and o may be of any dtype. */
  annulusComputeStatus (*backward_prepare)(annulusStream* stream, const annulusTensor* d_o,
                                           const annulusTensor* o, const annulusRowStat* delta);
  annulusComputeStatus (*attend_backward)(annulusStream* stream,
                                          const annulusAttendBackwardArgs* args);
  /* (o, lse) <- merge((o, lse), (o2, lse2)); all float32. The slow twin of attend's in-place merge.
   */
  annulusComputeStatus (*merge)(annulusStream* stream, const annulusTensor* o,
                                const annulusRowStat* lse, const annulusTensor* o2,
                                const annulusRowStat* lse2);
  /* dst[i] += src[i]; dst float32, src float32 or bf16. */
  annulusComputeStatus (*accumulate)(annulusStream* stream, float* dst, const void* src,
                                     annulusDtype src_dtype, int64_t count);
  /* dst = src rounded to dst's dtype, both [batch, rows, heads, head_dim] views. */
  annulusComputeStatus (*finish)(annulusStream* stream, const annulusTensor* src,
                                 const annulusTensor* dst);
  annulusComputeStatus (*fill_zero)(annulusStream* stream, void* memory, size_t bytes);

  /* Since abi_minor 1. Runs on all compute units for about a millisecond; *work is what is done
   * then, for the caller to divide by the time from the call to the end of the work. The first
   * MEMORY_READ of a device takes longer: it makes the array. NULL: the plugin has no yardstick. */
  annulusComputeStatus (*run_ceiling)(annulusStream* stream, annulusCeiling ceiling, double* work);

  /* Since abi_minor 2. All NULL on a device with host_memory. */

  annulusComputeStatus (*copy)(annulusStream* stream, const annulusCopyArgs* args);
  /* Pins host memory, so that copies from and to it are fast and do not block. Whole pages. */
  annulusComputeStatus (*register_host)(annulusDevice* device, void* memory, size_t bytes);
  annulusComputeStatus (*unregister_host)(annulusDevice* device, void* memory);
  /* Memory from `alloc`, or a part of it, as another process may import it; and what another
   * process exported, until release_memory. The exporter keeps it alive. */
  annulusComputeStatus (*export_memory)(annulusDevice* device, const void* memory,
                                        annulusMemoryHandle* handle);
  annulusComputeStatus (*import_memory)(annulusDevice* device, const annulusMemoryHandle* handle,
                                        void** memory);
  annulusComputeStatus (*release_memory)(annulusDevice* device, void* memory);
} annulusComputeV1;

#ifdef __cplusplus
}
#endif

#endif /* ANNULUS_KERNELS_COMPUTE_PLUGIN_H_ */
