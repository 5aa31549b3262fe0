// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "server/transport/cuipc/copy_device.h"
#include "tests/contract/transport/memory.h"

// A GPU that several "processes" of this program share, as far as transfers by its copy engine see
// it: linked in place of the real copy device, each OpenCopyDevice is a process of its own.
//
// Device addresses lie in a range that nobody may read. An allocation that is freed leaves its
// address to the next, with another id. What is imported has an address of its own. Copies run
// late, on a thread a stream, in pieces; each piece looks up both of its ends, so one that touches
// memory that was freed, unmapped or never there is a violation. Faults are injected, delays are
// drawn from a seed.
namespace annulus::transport::cuipc {

class FakeGpu final : public DeviceMemory {
 public:
  static FakeGpu& The();

  // Every third is virtual memory, exported by a descriptor.
  void* Allocate(size_t bytes) override;
  void Free(void* memory) override;
  void Upload(void* device, const void* host, size_t bytes) override;
  void Download(void* host, const void* device, size_t bytes) override;
  std::string Violations() override;

  // One copy in eight waits for up to `delay_us_max` before it runs.
  void Delay(uint32_t seed, int delay_us_max);
  // Copies stand still while it is true.
  void Hang(bool hang);
  // The next calls fail: of Enqueue, with half of the copies enqueued; of Reached; of Import.
  void FailEnqueue(int calls);
  void FailReached(int calls);
  void FailImport(int calls);
  // Imports whatever it is told of, for a process that the fork left without this one's memory.
  void ImportAnything();

  // Streams, events and mappings that are there, and imports made so far.
  struct Census {
    int streams = 0;
    int events = 0;
    int mappings = 0;
    int imports_ever = 0;
    int64_t copies_ever = 0;
    int64_t copies_pending = 0;  // enqueued and not over
  };
  Census Count();
  // What is there now is meant to stay: it is not counted any more.
  void ForgetLeaks();

 private:
  friend class FakeDevice;
  friend class FakeStream;

  struct FreeMemory {
    void operator()(uint8_t* memory) const { std::free(memory); }
  };
  struct Block {
    uint64_t id = 0;
    size_t bytes = 0;
    bool by_descriptor = false;
    std::unique_ptr<uint8_t[], FreeMemory> backing;
  };
  struct Mapping {
    uint64_t id = 0;  // of the block
    size_t bytes = 0;
  };

  FakeGpu();
  bool InRange(uint64_t address) const;
  // The bytes behind an address, or null and a violation. Holds mutex_.
  uint8_t* Resolve(uint64_t address, size_t bytes, const char* why);
  void Violate(const std::string& text);
  void RunCopy(const Copy& copy);
  int DrawDelay();
  bool Fails(int* calls);

  std::mutex mutex_;
  std::condition_variable hang_ended_;
  uint64_t begin_ = 0;
  uint64_t middle_ = 0;  // mappings lie above
  uint64_t end_ = 0;
  uint64_t next_id_ = 1;
  std::map<uint64_t, Block> blocks_;      // by address
  std::map<uint64_t, Mapping> mappings_;  // by address
  uint64_t next_mapping_ = 0;
  std::string violations_;
  std::mt19937 random_{1};
  int delay_us_max_ = 0;
  bool hang_ = false;
  bool import_anything_ = false;
  int fail_enqueue_ = 0;
  int fail_reached_ = 0;
  int fail_import_ = 0;
  Census census_;
};

}  // namespace annulus::transport::cuipc
