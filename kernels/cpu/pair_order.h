// SPDX-License-Identifier: Apache-2.0
#pragma once

// In what order the pairs of some key tiles and some query blocks of a few heads are worked off by
// several threads that add into the tiles' and the blocks' gradients.
//
// Every tile meets its head's blocks in rising order, and every block its head's tiles: a pair
// waits for the one before it on its own tile and the one before it on its own block, and for
// nothing else. So every gradient row gets its contributions in one order, whatever the number of
// threads: the same bytes each time.
//
// Of the orders that are left, the best one depends on the number of threads. With a head for each,
// threads seldom wait, and a tile stays near its thread while all blocks pass by. With fewer heads,
// pairs go by rising tile + block: those with the same sum have nothing to wait for from each
// other.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

namespace annulus::kernels::cpu {

// The pairs of `heads` times `tiles` times `blocks`. Thread safe in Begin and End.
class PairOrder {
 public:
  struct Pair {
    int64_t head = 0;
    int64_t tile = 0;
    int64_t block = 0;
  };

  // Forgets what was. Not while pairs are being worked off.
  void Reset(int64_t heads, int64_t tiles, int64_t blocks, int64_t threads) {
    tiles_ = tiles;
    places_ = tiles + blocks;
    const auto needed = static_cast<size_t>(heads * places_);
    if (done_.size() < needed) done_ = std::vector<std::atomic<int64_t>>(needed);
    for (std::atomic<int64_t>& done : done_) done.store(0, std::memory_order_relaxed);
    pairs_.clear();
    if (heads < threads) {
      AddBySum(heads, blocks);
    } else {
      AddByTile(heads, blocks);
    }
  }

  int64_t size() const { return static_cast<int64_t>(pairs_.size()); }

  // Pair number `item` of [0, size()).
  const Pair& At(int64_t item) const { return pairs_[static_cast<size_t>(item)]; }

  // Blocks until the pairs before this one on its tile and on its block have ended. They have lower
  // numbers: begun in rising order, pairs never wait in a circle.
  void Begin(const Pair& pair) {
    Await(DoneOfTile(pair), pair.block);
    Await(DoneOfBlock(pair), pair.tile);
  }

  void End(const Pair& pair) {
    Raise(DoneOfTile(pair), pair.block + 1);
    Raise(DoneOfBlock(pair), pair.tile + 1);
  }

 private:
  void AddByTile(int64_t heads, int64_t blocks) {
    for (int64_t tile = 0; tile < tiles_; ++tile) {
      for (int64_t block = 0; block < blocks; ++block) {
        for (int64_t head = 0; head < heads; ++head) pairs_.push_back({head, tile, block});
      }
    }
  }

  void AddBySum(int64_t heads, int64_t blocks) {
    for (int64_t sum = 0; sum < tiles_ + blocks - 1; ++sum) {
      const int64_t last = std::min(sum, tiles_ - 1);
      for (int64_t tile = std::max<int64_t>(0, sum - blocks + 1); tile <= last; ++tile) {
        for (int64_t head = 0; head < heads; ++head) pairs_.push_back({head, tile, sum - tile});
      }
    }
  }

  std::atomic<int64_t>& DoneOfTile(const Pair& pair) {
    return done_[static_cast<size_t>(pair.head * places_ + pair.tile)];
  }
  std::atomic<int64_t>& DoneOfBlock(const Pair& pair) {
    return done_[static_cast<size_t>(pair.head * places_ + tiles_ + pair.block)];
  }

  static void Await(std::atomic<int64_t>& done, int64_t count) {
    for (int64_t seen = done.load(std::memory_order_acquire); seen < count;
         seen = done.load(std::memory_order_acquire)) {
      done.wait(seen, std::memory_order_acquire);
    }
  }

  static void Raise(std::atomic<int64_t>& done, int64_t count) {
    done.store(count, std::memory_order_release);
    done.notify_all();
  }

  std::vector<Pair> pairs_;
  int64_t tiles_ = 0;
  int64_t places_ = 0;                      // of a head: its tiles, then its blocks
  std::vector<std::atomic<int64_t>> done_;  // pairs, of each place of each head
};

}  // namespace annulus::kernels::cpu
