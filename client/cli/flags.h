// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "annulus/types.h"
#include "client/cli/units.h"
#include "server/ring/plan.h"

namespace CLI {
class App;
}

namespace annulus::cli {

enum class Format { kText, kJson };

// What the ring and the mask look like: flags that `run`, `bench ring` and `plan` share.
struct ShapeFlags {
  int context_parallel_size = 4;
  int cp_window_size = 0;  // 0: context_parallel_size
  std::optional<int64_t> seq_length;
  std::optional<int64_t> kv_seq_length;
  std::string mask = "full";
  int64_t window_left = -1;
  std::string layout = "zigzag";
  std::string algorithm = "megatron_cp_algo";
};

struct RunFlags {
  ShapeFlags shape;
  std::optional<int64_t> batch_size;
  std::optional<int> num_heads;
  std::optional<int> num_kv_heads;
  std::optional<int> head_dim;
  std::string dtype;  // "": the input's, else f32
  float softmax_scale = 0;
  std::optional<uint64_t> seed;  // of the tensors that are drawn: SeedOf
  bool backward = false;
  bool overlap = true;
  bool retain = true;  // the backward starts from the KV that the forward kept
  std::string gradient_wire = "fp32";
  std::string data_path = "auto";
  std::string emulate_link;
  int ranks_per_node = 0;
  bool transfers_off = false;
  std::string inner_transport, outer_transport;  // "": the coordinator's choice
  int repeat = 1;
  std::string deadline = "600s";
  std::string input, output, trace, report;
  bool verify = false;
  Format format = Format::kText;
  // The cluster: one that runs, or one of our own.
  std::string coordinator;
  std::string group;
  int threads = 0;  // per worker of our own; 0: cores / workers
  bool pin_threads = false;
  std::string memory_limit;
  std::string transport_plugin;  // of workers of our own; "": their default
  std::string device;            // of workers of our own, "cpu" or "cuda"; "": compute_plugin
  std::string compute_plugin;    // here and of workers of our own; "": their default
  std::string compute_provider;  // which kernels of the plugin; "": the fastest
  std::string client_memory;     // "host" or "device"; "": the workers' devices' where that can be
};

inline uint64_t SeedOf(const RunFlags& flags) { return flags.seed.value_or(0); }

void AddShapeFlags(CLI::App* app, ShapeFlags* flags);
// What is attended, how, and on which cluster: flags that `run` and `bench ring` share.
void AddRingFlags(CLI::App* app, RunFlags* flags);
void AddRunFlags(CLI::App* app, RunFlags* flags);
// What workers of our own compute on: the name of their compute plugin.
void AddDeviceFlag(CLI::App* app, std::string* device);
// Which kernels of their plugin they use.
void AddComputeProviderFlag(CLI::App* app, std::string* provider);
// Which transports workers of our own load: as --transport-plugin of annulus-worker.
void AddTransportPluginFlag(CLI::App* app, std::string* plugins);
// What workers of our own compute on, and where the client's tensors lie.
void AddComputeFlags(CLI::App* app, RunFlags* flags);
void AddFormatFlag(CLI::App* app, Format* format);

// The flags as values. Errors are usage errors that name the flag, as UsageErrorIn makes them.
absl::Status UsageErrorIn(const std::string& flag, const absl::Status& status);
absl::StatusOr<ring::Spec> SpecFromFlags(const ShapeFlags& flags, ring::Direction direction,
                                         int64_t query_length, int64_t kv_length);
absl::StatusOr<client::GroupOptions> GroupFromFlags(const RunFlags& flags);
absl::StatusOr<client::AttendOptions> AttendOptionsFromFlags(const RunFlags& flags);
// Of workers of our own, by name or path.
std::string ComputePluginOf(const RunFlags& flags);
// "f32", "bf16", "f16" and their other spellings.
absl::StatusOr<client::DataType> ParseDataType(const std::string& text);
const char* DataTypeName(client::DataType dtype);
absl::StatusOr<ring::MaskKind> ParseMask(const std::string& text);
absl::StatusOr<ring::Direction> ParseDirection(const std::string& text);
// What does not go together, or is not there yet.
absl::Status CheckRunFlags(const RunFlags& flags);

}  // namespace annulus::cli
