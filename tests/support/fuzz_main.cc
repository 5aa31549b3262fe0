// SPDX-License-Identifier: Apache-2.0
//
// Runs a fuzz target without libFuzzer: every file of a corpus as it stands, then mutations of them
// from a seed, so that a failure repeats.
//
//   some_fuzz CORPUS_FOLDER [ITERATIONS [SEED]]
//
// If the target crashes, the input that did it stands in the file named on the first line of
// output.

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <span>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Input = std::vector<uint8_t>;

constexpr size_t kInputMax = size_t{1} << 16;

// The input being run, in a file that outlives a crash: 8 bytes of length, then the bytes.
class LastInput {
 public:
  LastInput() {
    path_ = (std::filesystem::temp_directory_path() / "annulus-fuzz-XXXXXX").string();
    const int fd = mkstemp(path_.data());
    if (fd < 0 || ftruncate(fd, sizeof(uint64_t) + kInputMax) != 0) {
      std::perror("fuzz: cannot make a file for the last input");
      std::exit(2);
    }
    void* memory =
        mmap(nullptr, sizeof(uint64_t) + kInputMax, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory == MAP_FAILED) std::exit(2);
    memory_ = static_cast<uint8_t*>(memory);
  }

  void Hold(const Input& input) {
    const uint64_t size = input.size();
    std::memcpy(memory_, &size, sizeof(size));
    if (size > 0) std::memcpy(memory_ + sizeof(size), input.data(), size);
  }

  const std::string& path() const { return path_; }
  void Remove() { std::filesystem::remove(path_); }

 private:
  std::string path_;
  uint8_t* memory_ = nullptr;
};

class Mutator {
 public:
  Mutator(std::span<const Input> corpus, uint64_t seed) : corpus_(corpus), random_(seed) {}

  Input Next() {
    Input input = corpus_[Below(corpus_.size())];
    for (size_t i = 1 + Below(4); i > 0; --i) Mutate(input);
    input.resize(std::min(input.size(), kInputMax));
    return input;
  }

 private:
  size_t Below(size_t limit) { return limit == 0 ? 0 : random_() % limit; }

  void Mutate(Input& input) {
    static constexpr std::array<uint8_t, 12> kTelling = {0,   1,   0x7f, 0x80, 0xff, '"',
                                                         '{', '}', '[',  ']',  '9',  ','};
    const size_t at = Below(input.size());
    const auto here = input.begin() + static_cast<std::ptrdiff_t>(at);
    switch (Below(7)) {
      case 0:
        if (!input.empty()) input[at] ^= static_cast<uint8_t>(1U << Below(8));
        break;
      case 1:
        if (!input.empty()) input[at] = kTelling[Below(kTelling.size())];
        break;
      case 2:
        input.insert(here, kTelling[Below(kTelling.size())]);
        break;
      case 3:
        input.resize(at);
        break;
      case 4:
        input.erase(here,
                    here + static_cast<std::ptrdiff_t>(std::min(input.size() - at, 1 + Below(16))));
        break;
      case 5: {
        const Input piece(
            here, here + static_cast<std::ptrdiff_t>(std::min(input.size() - at, 1 + Below(64))));
        input.insert(input.begin() + static_cast<std::ptrdiff_t>(Below(input.size() + 1)),
                     piece.begin(), piece.end());
        break;
      }
      default: {
        const Input& other = corpus_[Below(corpus_.size())];
        input.resize(at);
        input.insert(input.end(), other.begin() + static_cast<std::ptrdiff_t>(Below(other.size())),
                     other.end());
        break;
      }
    }
  }

  std::span<const Input> corpus_;
  std::mt19937_64 random_;
};

std::vector<Input> ReadCorpus(const std::string& folder) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.is_regular_file()) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<Input> corpus;
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    corpus.back().resize(std::min(corpus.back().size(), kInputMax));
  }
  return corpus;
}

void Run(LastInput& last, const Input& input) {
  last.Hold(input);
  LLVMFuzzerTestOneInput(input.data(), input.size());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 4) {
    std::fprintf(stderr, "usage: %s CORPUS_FOLDER [ITERATIONS [SEED]]\n", argv[0]);
    return 2;
  }
  const uint64_t iterations = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 10000;
  const uint64_t seed = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 1;
  const std::vector<Input> corpus = ReadCorpus(argv[1]);
  if (corpus.empty()) {
    std::fprintf(stderr, "fuzz: no file in %s\n", argv[1]);
    return 2;
  }
  LastInput last;
  std::printf("on a crash the input stands in %s\n", last.path().c_str());
  std::fflush(stdout);
  for (const Input& input : corpus) Run(last, input);
  Mutator mutator(corpus, seed);
  for (uint64_t i = 0; i < iterations; ++i) Run(last, mutator.Next());
  std::printf("%zu files and %llu mutations from seed %llu: no crash\n", corpus.size(),
              static_cast<unsigned long long>(iterations), static_cast<unsigned long long>(seed));
  last.Remove();
  return 0;
}
