// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "client/cli/child_process.h"

namespace annulus::cli {

struct EmbeddedClusterOptions {
  int workers = 1;
  int ranks_per_node = 0;  // 0: all on one node
  int threads = 0;         // per worker; 0: cores / workers, at least 1
  // Name or path; "": the worker's own default. With "cuda" the workers take turns on the GPUs.
  std::string compute_plugin;
  std::string compute_provider;     // which kernels of the plugin; "": the fastest
  std::string transport_plugin;     // a list as the worker takes it; "": the worker's own default
  bool pin_threads = false;         // each worker's compute threads to processors of their own
  uint64_t memory_limit_bytes = 0;  // per worker; 0: the worker's own default
  std::string listen = "127.0.0.1:0";
  std::string program_folder;  // "": that of this program
};

struct ServiceAddresses {
  std::string name;
  std::string listen;
  std::string metrics;
  int pid = 0;
};

// Compute threads that each of `workers` gets where nothing is said: cores / workers, at least 1.
int DefaultThreads(int workers);

// A coordinator and workers of our own on this machine, from the folder of this program. They die
// with us, even if we are killed; the files through which they say their ports are in a private
// folder that is gone once they are up.
class EmbeddedCluster {
 public:
  // Returns when every process says that it is up. With the program's own words if one ends before
  // that: FAILED_PRECONDITION if it could not serve (an address in use), else INTERNAL.
  // DEADLINE_EXCEEDED after 30 s.
  static absl::StatusOr<std::unique_ptr<EmbeddedCluster>> Start(
      const EmbeddedClusterOptions& options);
  ~EmbeddedCluster();

  const ServiceAddresses& coordinator() const { return addresses_.front(); }
  const std::vector<ServiceAddresses>& addresses() const { return addresses_; }
  // Worker names in rank order.
  std::vector<std::string> worker_names() const;
  // Takes everything down and waits for it. Any thread, any number of times.
  void Stop();
  // Waits until one of the processes ends by itself; its name.
  std::string WaitForEnd();
  // What the processes wrote last, each under its name; "" if nothing.
  std::string Logs() const;

 private:
  EmbeddedCluster() = default;
  absl::Status Launch(const std::string& folder, const std::string& name,
                      const std::string& program, std::vector<std::string> args);
  absl::Status AwaitAddresses(const std::string& folder, absl::Time deadline);

  absl::Mutex stop_mutex_;
  std::vector<std::unique_ptr<ChildProcess>> children_;  // the coordinator first
  std::vector<ServiceAddresses> addresses_;              // likewise
};

}  // namespace annulus::cli
