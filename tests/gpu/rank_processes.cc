// SPDX-License-Identifier: Apache-2.0
#include "tests/gpu/rank_processes.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <new>
#include <string>

#include "server/transport/host/clock.h"

namespace annulus::transport {
namespace {

int RunRank(const RankContext& known, const std::function<const annulusTransportV1*()>& table,
            const std::function<int(const RankContext&)>& body) {
  RankContext self = known;
  self.table = table();
  annulusTransportOptions options{};
  options.struct_size = sizeof(options);
  options.group = "gpu";
  options.epoch = 1;
  options.rank = self.rank;
  options.size = self.size;
  options.host_id = "host";
  options.bind_address = "127.0.0.1";
  annulusTransportHandle* const handles = self.common->handles.data();
  if (self.table->open(&options, &self.transport, &handles[self.rank]) != ANNULUS_TRANSPORT_OK) {
    std::printf("no CUDA device: %s\n", self.table->open_error());
    std::fflush(stdout);
    return kNoDevice;
  }
  self.Barrier();  // all handles are there
  if (self.table->connect(self.transport, handles, InAMinute()) != ANNULUS_TRANSPORT_OK) {
    char text[512] = "";
    self.table->last_error(self.transport, text, sizeof(text), nullptr);
    std::fprintf(stderr, "rank %d: %s\n", self.rank, text);
    return 100;
  }
  const int code = body(self);
  self.table->close(self.transport);
  return code;
}

}  // namespace

int64_t InAMinute() { return NowNs() + int64_t{60} * 1'000'000'000; }

std::vector<int> RunRanks(int32_t size, const std::function<const annulusTransportV1*()>& table,
                          const std::function<int(const RankContext&)>& body) {
  void* shared =
      ::mmap(nullptr, sizeof(Common), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return {};
  auto* const common = new (shared) Common{};
  pthread_barrierattr_t attributes;
  pthread_barrierattr_init(&attributes);
  pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_barrier_init(&common->barrier, &attributes, static_cast<unsigned>(size));
  std::vector<pid_t> processes;
  for (int32_t rank = 0; rank < size; ++rank) {
    const pid_t process = ::fork();
    if (process == 0) {
      ::alarm(300);  // a barrier has no deadline
      ::_exit(RunRank({.rank = rank, .size = size, .common = common}, table, body));
    }
    processes.push_back(process);
  }
  std::vector<int> codes;
  for (const pid_t process : processes) {
    int status = 0;
    ::waitpid(process, &status, 0);
    codes.push_back(WIFEXITED(status) ? WEXITSTATUS(status) : -1);
  }
  ::munmap(shared, sizeof(Common));
  return codes;
}

}  // namespace annulus::transport
