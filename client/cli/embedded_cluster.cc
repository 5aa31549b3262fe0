// SPDX-License-Identifier: Apache-2.0
#include "client/cli/embedded_cluster.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/types/span.h"
#include "client/cli/exit_code.h"
#include "client/cli/interrupt.h"
#include "client/cli/visible_gpus.h"
#include "server/base/status_macros.h"

namespace annulus::cli {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kStartTimeout = absl::Seconds(30);
constexpr absl::Duration kStopTimeout = absl::Seconds(5);
constexpr absl::Duration kKillTimeout = absl::Seconds(1);
constexpr absl::Duration kPollInterval = absl::Milliseconds(5);
constexpr size_t kLogTailBytes = 4096;

constexpr char kFolderPrefix[] = "annulus-start-";

// Removes the folders of programs that were killed while they started a cluster.
void SweepFolders(const fs::path& parent) {
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(parent, ignored)) {
    const std::string name = entry.path().filename().string();
    int pid = 0;
    if (!absl::StartsWith(name, kFolderPrefix) ||
        !absl::SimpleAtoi(
            name.substr(sizeof(kFolderPrefix) - 1, name.rfind('-') - sizeof(kFolderPrefix) + 1),
            &pid)) {
      continue;
    }
    if (pid > 0 && kill(pid, 0) != 0 && errno == ESRCH) fs::remove_all(entry.path(), ignored);
  }
}

// A folder that only we can read, removed with its contents when this goes or a signal comes; by
// the next one if we are killed.
class PrivateFolder {
 public:
  static absl::StatusOr<std::unique_ptr<PrivateFolder>> Create() {
    std::error_code error;
    const fs::path parent = fs::temp_directory_path(error);
    if (!error) SweepFolders(parent);
    std::string path = (parent / absl::StrCat(kFolderPrefix, getpid(), "-XXXXXX")).string();
    if (error || mkdtemp(path.data()) == nullptr) {
      return absl::InternalError("cannot make a folder for temporary files");
    }
    return std::unique_ptr<PrivateFolder>(new PrivateFolder(path));
  }
  ~PrivateFolder() { Remove(path_); }
  const std::string& path() const { return path_; }

 private:
  explicit PrivateFolder(const std::string& path)
      : path_(path), cleanup_([path] { Remove(path); }) {}
  static void Remove(const std::string& path) {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  const std::string path_;
  const ScopedCleanup cleanup_;
};

std::string PortFile(const std::string& folder, const std::string& name) {
  return absl::StrCat(folder, "/", name, ".json");
}

// The first of these fields that holds text.
std::string TextField(const nlohmann::json& json, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const auto field = json.find(name);
    if (field != json.end() && field->is_string()) return field->get<std::string>();
  }
  return "";
}

// False until the file stands there whole.
bool ReadAddresses(const std::string& path, ServiceAddresses* out) {
  std::ifstream file(path);
  if (!file) return false;
  std::stringstream text;
  text << file.rdbuf();
  const auto json = nlohmann::json::parse(text.str(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return false;
  out->listen = TextField(json, {"listen", "address"});
  out->metrics = TextField(json, {"metrics", "metrics_address"});
  return !out->listen.empty();
}

std::string ProgramFolder() {
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  return error ? "." : self.parent_path().string();
}

// The daemons' exit codes are ours: kRefused says that an address or a plugin could not be had.
absl::Status EndedWhileStarting(const std::string& name, const ChildProcess& child) {
  const std::string message =
      absl::StrCat(name, " ended while starting: ", child.Output(kLogTailBytes));
  return child.exit_code() == kRefused ? absl::FailedPreconditionError(message)
                                       : absl::InternalError(message);
}

// `count` processors that this process may run on.
absl::StatusOr<std::vector<int>> CpusToPin(int count) {
  std::vector<int> cpus;
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  sched_getaffinity(0, sizeof(allowed), &allowed);
  for (int cpu = 0; cpu < CPU_SETSIZE && static_cast<int>(cpus.size()) < count; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) cpus.push_back(cpu);
  }
  if (static_cast<int>(cpus.size()) == count) return cpus;
  return UsageError(absl::StrCat("--pin-threads: ", count,
                                 " compute threads in all, expected at most one for each of the ",
                                 cpus.size(), " processors of this machine"));
}

}  // namespace

int DefaultThreads(int workers) {
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return std::max(1, cores / workers);
}

absl::Status EmbeddedCluster::Launch(const std::string& folder, const std::string& name,
                                     const std::string& program, std::vector<std::string> args) {
  for (const char* arg : {"--metrics-listen", "127.0.0.1:0", "--die-with-parent", "--port-file"}) {
    args.push_back(arg);
  }
  args.push_back(PortFile(folder, name));
  ANNULUS_ASSIGN_OR_RETURN(std::unique_ptr<ChildProcess> child, ChildProcess::Start(program, args));
  absl::MutexLock lock(&stop_mutex_);
  addresses_.push_back({.name = name, .listen = "", .metrics = "", .pid = child->pid()});
  children_.push_back(std::move(child));
  return absl::OkStatus();
}

absl::Status EmbeddedCluster::AwaitAddresses(const std::string& folder, absl::Time deadline) {
  for (size_t i = 0; i < children_.size(); ++i) {
    while (addresses_[i].listen.empty()) {
      if (ReadAddresses(PortFile(folder, addresses_[i].name), &addresses_[i])) break;
      if (!children_[i]->Running()) return EndedWhileStarting(addresses_[i].name, *children_[i]);
      if (absl::Now() >= deadline) {
        return absl::DeadlineExceededError(absl::StrCat(
            addresses_[i].name, " did not start in time: ", children_[i]->Output(kLogTailBytes)));
      }
      absl::SleepFor(kPollInterval);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<EmbeddedCluster>> EmbeddedCluster::Start(
    const EmbeddedClusterOptions& options) {
  std::unique_ptr<EmbeddedCluster> cluster(new EmbeddedCluster);
  // Registered before the first child: a signal may come at any moment.
  const ScopedCleanup cleanup([raw = cluster.get()] { raw->Stop(); });
  ANNULUS_ASSIGN_OR_RETURN(const auto folder, PrivateFolder::Create());
  const absl::Time deadline = absl::Now() + kStartTimeout;
  const std::string programs =
      options.program_folder.empty() ? ProgramFolder() : options.program_folder;
  ANNULUS_RETURN_IF_ERROR(cluster->Launch(folder->path(), "coordinator",
                                          programs + "/annulus-coordinator",
                                          {"--listen", options.listen}));
  ANNULUS_RETURN_IF_ERROR(cluster->AwaitAddresses(folder->path(), deadline));
  const int threads = options.threads > 0 ? options.threads : DefaultThreads(options.workers);
  ANNULUS_ASSIGN_OR_RETURN(const std::vector<int> cpus,
                           CpusToPin(options.pin_threads ? options.workers * threads : 0));
  const int gpus = std::max(1, VisibleGpus());  // with none the worker says what is missing
  const int per_node = options.ranks_per_node > 0 ? options.ranks_per_node : options.workers;
  for (int i = 0; i < options.workers; ++i) {
    std::vector<std::string> args{"--coordinator", cluster->coordinator().listen,
                                  "--name",        absl::StrFormat("worker-%d", i),
                                  "--node",        absl::StrFormat("node-%d", i / per_node),
                                  "--listen",      "127.0.0.1:0",
                                  "--threads",     absl::StrCat(threads)};
    if (options.pin_threads) {
      args.push_back("--cpus");
      args.push_back(absl::StrJoin(absl::MakeSpan(cpus).subspan(i * threads, threads), ","));
    }
    if (!options.compute_plugin.empty()) {
      args.push_back("--compute-plugin");
      args.push_back(options.compute_plugin);
    }
    if (!options.compute_provider.empty()) {
      args.push_back("--compute-provider");
      args.push_back(options.compute_provider);
    }
    if (options.compute_plugin == "cuda") {
      args.push_back("--device-ordinal");
      args.push_back(absl::StrCat(i % gpus));
    }
    if (!options.transport_plugin.empty()) {
      args.push_back("--transport-plugin");
      args.push_back(options.transport_plugin);
    }
    if (options.memory_limit_bytes > 0) {
      args.push_back("--memory-limit");
      args.push_back(absl::StrCat(options.memory_limit_bytes));
    }
    ANNULUS_RETURN_IF_ERROR(cluster->Launch(folder->path(), absl::StrFormat("worker-%d", i),
                                            programs + "/annulus-worker", std::move(args)));
  }
  ANNULUS_RETURN_IF_ERROR(cluster->AwaitAddresses(folder->path(), deadline));
  return cluster;
}

EmbeddedCluster::~EmbeddedCluster() { Stop(); }

std::vector<std::string> EmbeddedCluster::worker_names() const {
  std::vector<std::string> names;
  for (size_t i = 1; i < addresses_.size(); ++i) names.push_back(addresses_[i].name);
  return names;
}

void EmbeddedCluster::Stop() {
  absl::MutexLock lock(&stop_mutex_);
  // Workers first, so that none of them looks for its coordinator.
  for (auto child = children_.rbegin(); child != children_.rend(); ++child) {
    (*child)->Signal(SIGCONT);
    (*child)->Signal(SIGTERM);
  }
  const absl::Time deadline = absl::Now() + kStopTimeout;
  for (const auto& child : children_) {
    if (child->WaitUntil(deadline)) continue;
    child->Signal(SIGKILL);
    child->WaitUntil(absl::Now() + kKillTimeout);
  }
}

std::string EmbeddedCluster::WaitForEnd() {
  while (true) {
    {
      absl::MutexLock lock(&stop_mutex_);
      for (size_t i = 0; i < children_.size(); ++i) {
        if (!children_[i]->Running()) return addresses_[i].name;
      }
    }
    absl::SleepFor(absl::Milliseconds(100));
  }
}

std::string EmbeddedCluster::Logs() const {
  std::string logs;
  for (size_t i = 0; i < children_.size(); ++i) {
    const std::string output = children_[i]->Output(kLogTailBytes);
    if (output.empty()) continue;
    absl::StrAppend(&logs, "--- ", addresses_[i].name, "\n", output);
  }
  return logs;
}

}  // namespace annulus::cli
