// SPDX-License-Identifier: Apache-2.0
#pragma once

// In what order the pairs of some key tiles and some query blocks are worked off by several threads
// that add into the tiles' and the blocks' gradients.
//
// Pairs are dealt into waves, in each of which no tile and no block stands twice: lane l of wave w
// pairs number l of the shorter side with number (l + w) mod n of the longer side, n long. So every
// gradient row gets its contributions in the order of the waves, whatever the number of threads:
// the same bytes each time. There is no barrier between waves: a pair waits for the one before it
// on its own tile and the one before it on its own block, and for nothing else.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

namespace annulus::kernels::cpu {

// The waves of one group of tiles and blocks. Thread safe in Begin and End.
class WaveOrder {
 public:
  struct Pair {
    int64_t tile = 0;
    int64_t block = 0;
    int32_t wave = 0;
  };

  // Forgets what was. Not while pairs are being worked off.
  void Reset(int64_t tiles, int64_t blocks) {
    tiles_ = tiles;
    blocks_ = blocks;
    if (stamps_.size() < static_cast<size_t>(tiles + blocks)) {
      stamps_ = std::vector<std::atomic<int32_t>>(static_cast<size_t>(tiles + blocks));
    }
    for (std::atomic<int32_t>& stamp : stamps_) stamp.store(kNone, std::memory_order_relaxed);
  }

  int64_t size() const { return tiles_ * blocks_; }

  // Pair number `item` of [0, size()); those of a wave stand together, the waves in order.
  Pair At(int64_t item) const {
    const int64_t wave = item / width();
    const int64_t lane = item % width();
    const int64_t other = (lane + wave) % waves();
    return {tiles_ < blocks_ ? lane : other, tiles_ < blocks_ ? other : lane,
            static_cast<int32_t>(wave)};
  }

  // Blocks until the pairs before this one on its tile and on its block have ended. They have lower
  // numbers: begun in rising order, pairs never wait in a circle.
  void Begin(const Pair& pair) {
    const int64_t lane = tiles_ < blocks_ ? pair.tile : pair.block;
    const auto before_on_short = static_cast<int32_t>(pair.wave - 1);
    // In the wave before, the next lane had this one's partner; the last lane's was without a
    // partner for the waves by which the longer side is longer.
    const int64_t gap = lane + 1 < width() ? 1 : 1 + waves() - width();
    const auto before_on_long = static_cast<int32_t>(pair.wave - gap);
    Await(TileStamp(pair), tiles_ < blocks_ ? before_on_short : before_on_long);
    Await(BlockStamp(pair), tiles_ < blocks_ ? before_on_long : before_on_short);
  }

  void End(const Pair& pair) {
    for (std::atomic<int32_t>* stamp : {&TileStamp(pair), &BlockStamp(pair)}) {
      stamp->store(pair.wave, std::memory_order_release);
      stamp->notify_all();
    }
  }

 private:
  static constexpr int32_t kNone = -1;

  int64_t waves() const { return std::max(tiles_, blocks_); }
  int64_t width() const { return std::min(tiles_, blocks_); }

  std::atomic<int32_t>& TileStamp(const Pair& pair) {
    return stamps_[static_cast<size_t>(pair.tile)];
  }
  std::atomic<int32_t>& BlockStamp(const Pair& pair) {
    return stamps_[static_cast<size_t>(tiles_ + pair.block)];
  }

  static void Await(std::atomic<int32_t>& stamp, int32_t wave) {
    for (int32_t seen = stamp.load(std::memory_order_acquire); seen < wave;
         seen = stamp.load(std::memory_order_acquire)) {
      stamp.wait(seen, std::memory_order_acquire);
    }
  }

  int64_t tiles_ = 0;
  int64_t blocks_ = 0;
  std::vector<std::atomic<int32_t>> stamps_;  // the last wave that ended, by tile, then by block
};

}  // namespace annulus::kernels::cpu
