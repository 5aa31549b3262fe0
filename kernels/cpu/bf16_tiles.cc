// SPDX-License-Identifier: Apache-2.0
// What Highway 1.0.3 cannot say: AMX, by intrinsics, with a dispatch of its own.
#include "kernels/cpu/bf16_products.h"
#include "kernels/cpu/tile.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#define ANNULUS_TILES_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16,amx-tile,amx-bf16")))
#endif

namespace annulus::kernels::cpu {

#if defined(ANNULUS_TILES_TARGET)
namespace {

#define ANNULUS_TILES_INLINE ANNULUS_TILES_TARGET __attribute__((always_inline)) inline

constexpr int64_t kPanel = kNativeBf16Panel;
constexpr int64_t kLanes = 16;
constexpr int64_t kPieceFloats = kNativePieceWords * kPanel;
constexpr int64_t kPanelBytes = kPanel * static_cast<int64_t>(sizeof(float));
static_assert(kTileRows == 2 * kLanes && kPanel == 2 * kLanes && kNativePieceWords == kLanes);
static_assert(kQueryBlock % kTileRows == 0 && kKeyTile % kTileRows == 0);

// All eight tile registers 16 rows of 64 bytes: 0 to 3 are the sums, 2 by 2, 4 and 5 the left
// operand's rows, 6 and 7 the right operand's columns.
struct alignas(64) TileShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr TileShapes kShapes;

ANNULUS_TILES_TARGET void Begin() { _tile_loadconfig(&kShapes); }
ANNULUS_TILES_TARGET void End() { _tile_release(); }

ANNULUS_TILES_INLINE void SetZero() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

// Which operand will not be met again while it could stay in the first cache: loaded as such, it
// does not push the other one and the sums out of it.
enum class Passing { kLeft, kRight };

template <bool kPasses>
ANNULUS_TILES_INLINE void LoadRows(const float* a, int64_t stride) {
  const char* second = reinterpret_cast<const char*>(a) + kLanes * stride;
  if constexpr (kPasses) {
    _tile_stream_loadd(4, a, stride);
    _tile_stream_loadd(5, second, stride);
  } else {
    _tile_loadd(4, a, stride);
    _tile_loadd(5, second, stride);
  }
}

template <bool kPasses>
ANNULUS_TILES_INLINE void LoadColumns(const float* b) {
  if constexpr (kPasses) {
    _tile_stream_loadd(6, b, kPanelBytes);
    _tile_stream_loadd(7, b + kLanes, kPanelBytes);
  } else {
    _tile_loadd(6, b, kPanelBytes);
    _tile_loadd(7, b + kLanes, kPanelBytes);
  }
}

// The sums += the rows by the columns that are in registers.
ANNULUS_TILES_INLINE void MultiplyAdd() {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

// The sums += rows of `a`, `stride` bytes apart, by one panel: kNativePieceWords words and all
// pieces of them. In an order that loads a piece as seldom as four registers allow.
template <int kLeft, int kRight, Passing kPassing>
ANNULUS_TILES_INLINE void MultiplyPieces(const float* a, int64_t stride, const float* b) {
  constexpr bool kRowsPass = kPassing == Passing::kLeft;
  constexpr bool kColumnsPass = kPassing == Passing::kRight;
  if constexpr (kLeft == 1) {
    LoadRows<kRowsPass>(a, stride);
#pragma GCC unroll 2
    for (int piece = kRight - 1; piece >= 0; --piece) {
      LoadColumns<kColumnsPass>(b + piece * kPieceFloats);
      MultiplyAdd();
    }
  } else if constexpr (kRight == 1) {
    LoadColumns<kColumnsPass>(b);
#pragma GCC unroll 2
    for (int piece = kLeft - 1; piece >= 0; --piece) {
      LoadRows<kRowsPass>(a + piece * kLanes, stride);
      MultiplyAdd();
    }
  } else {
    static_assert(kLeft == 3 && kRight == 3);  // a piece is met again at once: nothing passes
    LoadColumns<false>(b);
    LoadRows<false>(a + 2 * kLanes, stride);
    MultiplyAdd();  // 2, 0
    LoadRows<false>(a + kLanes, stride);
    MultiplyAdd();  // 1, 0
    LoadColumns<false>(b + kPieceFloats);
    MultiplyAdd();  // 1, 1
    LoadRows<false>(a, stride);
    MultiplyAdd();  // 0, 1
    LoadColumns<false>(b + 2 * kPieceFloats);
    MultiplyAdd();  // 0, 2
    LoadColumns<false>(b);
    MultiplyAdd();  // 0, 0
  }
}

// The sums = a . b: kTileRows rows of `a`, `a_stride` floats apart, by one panel of `words` words.
template <int kLeft, int kRight, Passing kPassing>
ANNULUS_TILES_INLINE void Multiply(const float* a, int64_t a_stride, const float* b,
                                   int64_t words) {
  const int64_t stride = a_stride * static_cast<int64_t>(sizeof(float));
  SetZero();
  const float* end = b + words * kPanel;
  for (; b < end; b += kRight * kPieceFloats) {
    MultiplyPieces<kLeft, kRight, kPassing>(a, stride, b);
    a += kLeft * kLanes;
  }
}

ANNULUS_TILES_INLINE void Store(float* to, int64_t to_stride) {
  const int64_t bytes = to_stride * static_cast<int64_t>(sizeof(float));
  _tile_stored(0, to, bytes);
  _tile_stored(1, to + kLanes, bytes);
  _tile_stored(2, to + kLanes * to_stride, bytes);
  _tile_stored(3, to + kLanes * to_stride + kLanes, bytes);
}

// to[m] = factor[m] * to[m] + the sums; no factor: ones.
ANNULUS_TILES_INLINE void AddTo(const float* factor, float* to, int64_t to_stride) {
  alignas(64) float sums[kTileRows * kPanel];
  Store(sums, kPanel);
  for (int64_t m = 0; m < kTileRows; ++m) {
    const __m512 f = _mm512_set1_ps(factor == nullptr ? 1.0f : factor[m]);
    for (int64_t n = 0; n < kPanel; n += kLanes) {
      float* at = to + m * to_stride + n;
      _mm512_store_ps(
          at, _mm512_fmadd_ps(f, _mm512_load_ps(at), _mm512_load_ps(sums + m * kPanel + n)));
    }
  }
}

// The products of operands in kPieces pieces.
template <int kPieces>
struct Tiles {
  static constexpr int kWeights = PiecesOfWeights(kPieces);
  static constexpr int64_t kRowStride = WordsInPieces(kKeyTile, kWeights);
  static constexpr int64_t kDimensionStride = WordsInPieces(kQueryBlock, kPieces);

  ANNULUS_TILES_TARGET static void StripTimesColumns(const float* strip, const float* columns,
                                                     int64_t words, int64_t begin, int64_t end,
                                                     float* scores) {
    for (int64_t j = begin; j < end; j += kPanel) {
      Multiply<kPieces, kPieces, Passing::kRight>(strip, words, columns + j * words, words);
      Store(scores + WordsInPieces(j, kWeights), kRowStride);
    }
  }

  ANNULUS_TILES_TARGET static void RowsTimesPanel(const float* a, const float* panel, int64_t words,
                                                  const float* factor, float* to,
                                                  int64_t to_stride) {
    Multiply<kWeights, kPieces, Passing::kRight>(a, kRowStride, panel, words);
    AddTo(factor, to, to_stride);
  }

  ANNULUS_TILES_TARGET static void SumOverQueries(const float* a, const float* panel, int64_t words,
                                                  float* to, int64_t to_stride) {
    Multiply<kPieces, kWeights, Passing::kLeft>(a, kDimensionStride, panel, words);
    AddTo(nullptr, to, to_stride);
  }

  static constexpr Bf16Products kProducts = {Begin, End, StripTimesColumns, RowsTimesPanel,
                                             SumOverQueries};
};

bool ProcessorHasTiles() {
  constexpr unsigned kBf16 = 1u << 22;
  constexpr unsigned kTile = 1u << 24;
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kBf16) != 0 && (d & kTile) != 0;
}

// Linux keeps the registers from processes that do not ask: their signal frames grow by 8 KiB.
bool SystemGrantsTiles() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool CanUseTiles() {
  static const bool usable =
      NativeBf16Pairs() != nullptr && ProcessorHasTiles() && SystemGrantsTiles();
  return usable;
}

}  // namespace

const Bf16Products* NativeBf16Tiles() { return CanUseTiles() ? &Tiles<1>::kProducts : nullptr; }
const Bf16Products* NativeFloat32Tiles() {
  return CanUseTiles() ? &Tiles<kPiecesOfFloat32>::kProducts : nullptr;
}

#else

const Bf16Products* NativeBf16Tiles() { return nullptr; }
const Bf16Products* NativeFloat32Tiles() { return nullptr; }

#endif

}  // namespace annulus::kernels::cpu
