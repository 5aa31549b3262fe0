// SPDX-License-Identifier: Apache-2.0
#include "client/cli/flags.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "client/cli/exit_code.h"
#include "server/base/status_macros.h"
#include "server/ring/names.h"
#include "server/ring/planner.h"

namespace annulus::cli {
namespace {

constexpr int64_t kTokensMax = int64_t{1} << 40;

absl::Status CheckAlgorithm(const std::string& algorithm) {
  static const std::set<std::string>& later =
      *new std::set<std::string>{"ulysses_cp_algo", "hybrid_cp_algo", "hybrid_adaptive_cp_algo",
                                 "adaptive_cp_algo", "kvallgather_cp_algo"};
  if (algorithm == "megatron_cp_algo") return absl::OkStatus();
  if (later.count(algorithm) > 0) {
    return UsageError(absl::StrCat("--context-parallel-algo: ", algorithm,
                                   " is not there yet; this version has megatron_cp_algo (ring, or "
                                   "double ring with --cp-window-size)"));
  }
  return UsageError(
      absl::StrCat("--context-parallel-algo: expected megatron_cp_algo, got \"", algorithm, "\""));
}

absl::StatusOr<ring::Layout> ParseLayout(const std::string& text) {
  if (const auto layout = ring::FromName<ring::Layout>(text)) return *layout;
  return UsageError(absl::StrCat("--layout: expected one of ", ring::AllNames<ring::Layout>(),
                                 ", got \"", text, "\""));
}

}  // namespace

absl::Status UsageErrorIn(const std::string& flag, const absl::Status& status) {
  return UsageError(absl::StrCat(flag, ": ", std::string(status.message())));
}

absl::StatusOr<ring::MaskKind> ParseMask(const std::string& text) {
  if (const auto kind = ring::FromName<ring::MaskKind>(text)) return *kind;
  return UsageError(absl::StrCat("--cp-attention-mask-type: expected one of ",
                                 ring::AllNames<ring::MaskKind>(), ", got \"", text, "\""));
}

absl::StatusOr<ring::Direction> ParseDirection(const std::string& text) {
  if (const auto direction = ring::FromName<ring::Direction>(text)) return *direction;
  return UsageError(absl::StrCat("--direction: expected one of ", ring::AllNames<ring::Direction>(),
                                 ", got \"", text, "\""));
}

void AddFormatFlag(CLI::App* app, Format* format) {
  static const std::map<std::string, Format>& names =
      *new std::map<std::string, Format>{{"text", Format::kText}, {"json", Format::kJson}};
  app->add_option("--format", *format, "text for people, json for programs")
      ->transform(CLI::CheckedTransformer(names));
}

void AddShapeFlags(CLI::App* app, ShapeFlags* flags) {
  app->add_option("--context-parallel-size", flags->context_parallel_size,
                  "Ranks N, one worker each (default 4)")
      ->check(CLI::Range(1, 4096));
  app->add_option("--cp-window-size", flags->cp_window_size,
                  "Window w of the double ring; divides N (default N, a plain ring)")
      ->check(CLI::Range(1, 4096));
  app->add_option("--seq-length", flags->seq_length, "Tokens of the sequence (default 4096)")
      ->check(CLI::Range(int64_t{1}, kTokensMax));
  app->add_option("--kv-seq-length", flags->kv_seq_length,
                  "Tokens of K and V where they differ from the queries'")
      ->check(CLI::Range(int64_t{1}, kTokensMax));
  app->add_option("--cp-attention-mask-type", flags->mask, "full or causal (default full)");
  app->add_option("--window-left", flags->window_left,
                  "Sliding window: keys at most this far left of the diagonal")
      ->check(CLI::Range(int64_t{0}, kTokensMax));
  app->add_option("--layout", flags->layout,
                  "contiguous, zigzag or striped (default zigzag, which balances a causal mask)");
  app->add_option("--context-parallel-algo", flags->algorithm, "megatron_cp_algo (the ring)");
}

namespace {

void AddProblemFlags(CLI::App* app, RunFlags* flags) {
  app->add_option("--batch-size", flags->batch_size, "Sequences (default 1)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  app->add_option("--num-heads", flags->num_heads, "Query heads (default 8)")
      ->check(CLI::Range(1, 1 << 16));
  app->add_option("--num-kv-heads", flags->num_kv_heads,
                  "KV heads; divides the query heads (default the same)")
      ->check(CLI::Range(1, 1 << 16));
  app->add_option("--head-dim", flags->head_dim, "Head size, 16 to 256 in steps of 8 (default 64)");
  app->add_option("--dtype", flags->dtype, "f32, bf16 or f16 (default f32, or the input's)");
  app->add_option("--softmax-scale", flags->softmax_scale, "Default 1/sqrt(head size)");
  app->add_option("--seed", flags->seed,
                  "Of generated tensors, N(0,1) (default 0); refused where --input has all");
  app->add_flag("--backward", flags->backward, "Gradients too");
  app->add_flag("--retain,!--no-retain", flags->retain,
                "The backward starts from the KV that the forward kept (default on)");
  app->add_option("--gradient-wire", flags->gradient_wire, "fp32 or bf16 partials of dK, dV");
}

void AddExecutionFlags(CLI::App* app, RunFlags* flags) {
  app->add_flag("--use-cp-send-recv-overlap,!--no-use-cp-send-recv-overlap", flags->overlap,
                "Transfers beside compute (default on), or between computes");
  app->add_option("--data-path", flags->data_path,
                  "How tensors reach the workers: auto, memfd (in place) or stream");
  app->add_option("--emulate-link", flags->emulate_link,
                  "Paces transfers: inner=2GB/s,outer=200MB/s[,latency=20us]");
  app->add_option("--ranks-per-node", flags->ranks_per_node,
                  "States a topology where there is none")
      ->check(CLI::Range(1, 4096));
  app->add_flag("--transfers-off", flags->transfers_off,
                "Measures compute alone: nothing is moved and the results are wrong by intent");
  app->add_option("--inner-transport", flags->inner_transport,
                  "Transport plugin inside nodes (default: the coordinator's choice)");
  app->add_option("--outer-transport", flags->outer_transport,
                  "Transport plugin between nodes (default: the coordinator's choice)");
  app->add_option("--deadline", flags->deadline, "Of each call, such as 30s (default 600s)");
}

void AddClusterFlags(CLI::App* app, RunFlags* flags) {
  app->add_option("--coordinator", flags->coordinator,
                  "HOST:PORT of a running cluster; without it, one is started and taken down");
  app->add_option("--group", flags->group,
                  "Name of the group to use and keep (default: one of its own, deleted after)");
  app->add_option("--threads,--workers-threads", flags->threads,
                  "Compute threads of each worker that is started (default cores / workers)")
      ->check(CLI::Range(1, 4096));
  app->add_flag("--pin-threads", flags->pin_threads,
                "Binds each such worker's compute threads to processors of their own");
  app->add_option("--memory-limit", flags->memory_limit,
                  "Of each worker that is started, such as 4GiB");
  AddTransportPluginFlag(app, &flags->transport_plugin);
  AddComputeFlags(app, flags);
}

}  // namespace

void AddTransportPluginFlag(CLI::App* app, std::string* plugins) {
  app->add_option("--transport-plugin", *plugins,
                  "Transports that workers that are started load, such as host,cuipc?,nccl?: names "
                  "or paths, the first is the default, one with a ? may be missing (default host, "
                  "or what ANNULUS_TRANSPORT_PLUGIN says)");
}

void AddDeviceFlag(CLI::App* app, std::string* device) {
  app->add_option("--device", *device,
                  "What workers that are started compute on: cpu, or cuda, with one GPU each in "
                  "turn (default cpu)")
      ->check(CLI::IsMember({"cpu", "cuda"}));
}

void AddComputeProviderFlag(CLI::App* app, std::string* provider) {
  app->add_option("--compute-provider", *provider,
                  "Which kernels of the compute plugin to use, such as vectors (cpu) or cudnn "
                  "(cuda) (default: the fastest that the device runs)");
}

void AddComputeFlags(CLI::App* app, RunFlags* flags) {
  AddDeviceFlag(app, &flags->device);
  app->add_option("--compute-plugin", flags->compute_plugin,
                  "Name or path of the compute plugin where --device does not say it, here and in "
                  "the workers that are started (default cpu)")
      ->envname("ANNULUS_COMPUTE_PLUGIN");
  AddComputeProviderFlag(app, &flags->compute_provider);
  app->add_option("--client-memory", flags->client_memory,
                  "Where this program's tensors lie: host, or device, where the workers use them "
                  "in place (default: device where the workers' devices can be opened here)")
      ->check(CLI::IsMember({"host", "device"}));
}

void AddRingFlags(CLI::App* app, RunFlags* flags) {
  AddShapeFlags(app, &flags->shape);
  AddProblemFlags(app, flags);
  AddExecutionFlags(app, flags);
  AddClusterFlags(app, flags);
}

void AddRunFlags(CLI::App* app, RunFlags* flags) {
  AddRingFlags(app, flags);
  app->add_option("--repeat", flags->repeat, "Runs so often and reports the fastest (default 1)")
      ->check(CLI::Range(1, 1000000));
  app->add_option("--input", flags->input,
                  "q, k, v (and do) as x.safetensors or a folder of q.npy, k.npy, v.npy");
  app->add_option(
      "--output", flags->output,
      "o and lse (and dq, dk, dv) to x.safetensors, or a folder of .npy, or x.npy for o");
  app->add_flag("--verify", flags->verify,
                "Compares with float64 and exits 1 beyond the gates; NaN must stand where the "
                "reference has NaN");
  app->add_option("--report", flags->report, "JSON with timings, errors and bytes");
  app->add_option("--trace", flags->trace, "Timeline as Chrome trace, for `annulus trace`");
  AddFormatFlag(app, &flags->format);
}

absl::StatusOr<ring::Spec> SpecFromFlags(const ShapeFlags& flags, ring::Direction direction,
                                         int64_t query_length, int64_t kv_length) {
  ANNULUS_RETURN_IF_ERROR(CheckAlgorithm(flags.algorithm));
  ring::Spec spec;
  spec.direction = direction;
  spec.query_length = query_length;
  spec.kv_length = kv_length;
  spec.context_parallel_size = flags.context_parallel_size;
  spec.window_size = flags.cp_window_size;
  ANNULUS_ASSIGN_OR_RETURN(spec.mask.kind, ParseMask(flags.mask));
  spec.mask.window_left = flags.window_left;
  ANNULUS_ASSIGN_OR_RETURN(spec.layout, ParseLayout(flags.layout));
  ANNULUS_RETURN_IF_ERROR(UsageError(ring::ValidateSpec(spec)));
  return spec;
}

absl::StatusOr<client::GroupOptions> GroupFromFlags(const RunFlags& flags) {
  client::GroupOptions options;
  options.size = flags.shape.context_parallel_size;
  options.window_size = flags.shape.cp_window_size;
  options.ranks_per_node = flags.ranks_per_node;
  options.transfers_off = flags.transfers_off;
  options.inner_transport = flags.inner_transport;
  options.outer_transport = flags.outer_transport;
  if (!flags.emulate_link.empty()) {
    const auto links = ParseEmulatedLinks(flags.emulate_link);
    if (!links.ok()) return UsageErrorIn("--emulate-link", links.status());
    options.inner_link = links->inner;
    options.outer_link = links->outer;
  }
  return options;
}

absl::StatusOr<client::AttendOptions> AttendOptionsFromFlags(const RunFlags& flags) {
  static const std::map<std::string, client::DataPath>& paths =
      *new std::map<std::string, client::DataPath>{{"auto", client::DataPath::kAuto},
                                                   {"memfd", client::DataPath::kMemfd},
                                                   {"stream", client::DataPath::kStream}};
  client::AttendOptions options;
  ANNULUS_ASSIGN_OR_RETURN(const ring::MaskKind mask, ParseMask(flags.shape.mask));
  ANNULUS_ASSIGN_OR_RETURN(const ring::Layout layout, ParseLayout(flags.shape.layout));
  options.mask.kind =
      mask == ring::MaskKind::kCausal ? client::MaskKind::kCausal : client::MaskKind::kFull;
  options.mask.window_left = flags.shape.window_left;
  options.layout = layout == ring::Layout::kContiguous ? client::Layout::kContiguous
                   : layout == ring::Layout::kZigzag   ? client::Layout::kZigzag
                                                       : client::Layout::kStriped;
  options.softmax_scale = flags.softmax_scale;
  options.overlap = flags.overlap;
  if (flags.gradient_wire != "fp32" && flags.gradient_wire != "bf16") {
    return UsageError(
        absl::StrCat("--gradient-wire: expected fp32 or bf16, got \"", flags.gradient_wire, "\""));
  }
  options.gradient_wire =
      flags.gradient_wire == "bf16" ? client::GradientWire::kBf16 : client::GradientWire::kFp32;
  const auto path = paths.find(flags.data_path);
  if (path == paths.end()) {
    return UsageError(
        absl::StrCat("--data-path: expected auto, memfd or stream, got \"", flags.data_path, "\""));
  }
  options.data_path = path->second;
  const auto deadline = ParseSeconds(flags.deadline);
  if (!deadline.ok()) return UsageErrorIn("--deadline", deadline.status());
  if (*deadline <= 0) return UsageError("--deadline: expected a time above 0");
  options.deadline = absl::Seconds(*deadline);
  options.record_timeline = !flags.trace.empty();
  return options;
}

absl::StatusOr<client::DataType> ParseDataType(const std::string& text) {
  using client::DataType;
  static const std::map<std::string, DataType>& names = *new std::map<std::string, DataType>{
      {"f32", DataType::kF32},   {"fp32", DataType::kF32},      {"float32", DataType::kF32},
      {"bf16", DataType::kBf16}, {"bfloat16", DataType::kBf16}, {"f16", DataType::kF16},
      {"fp16", DataType::kF16},  {"float16", DataType::kF16}};
  const auto found = names.find(text);
  if (found != names.end()) return found->second;
  return UsageError(absl::StrCat("--dtype: expected f32, bf16 or f16, got \"", text, "\""));
}

const char* DataTypeName(client::DataType dtype) {
  switch (dtype) {
    case client::DataType::kF32:
      return "f32";
    case client::DataType::kBf16:
      return "bf16";
    case client::DataType::kF16:
      break;
  }
  return "f16";
}

namespace {

// Flags that change nothing beside others, which is never what was meant.
absl::Status CheckForIdleFlags(const RunFlags& flags) {
  if (flags.transfers_off && (!flags.emulate_link.empty() || !flags.inner_transport.empty() ||
                              !flags.outer_transport.empty())) {
    return UsageError(
        "--transfers-off moves nothing: leave out --emulate-link, --inner-transport and "
        "--outer-transport");
  }
  if (!flags.backward && (!flags.retain || flags.gradient_wire == "bf16")) {
    return UsageError("--no-retain and --gradient-wire are of the backward: add --backward");
  }
  if (flags.coordinator.empty()) return absl::OkStatus();
  if (flags.threads != 0 || flags.pin_threads || !flags.memory_limit.empty() ||
      !flags.device.empty() || !flags.compute_provider.empty() || !flags.transport_plugin.empty()) {
    return UsageError(
        "--threads, --pin-threads, --memory-limit, --device, --compute-provider and "
        "--transport-plugin are for workers that run starts itself: leave them out with "
        "--coordinator");
  }
  return absl::OkStatus();
}

}  // namespace

std::string ComputePluginOf(const RunFlags& flags) {
  if (!flags.device.empty()) return flags.device;
  return flags.compute_plugin.empty() ? "cpu" : flags.compute_plugin;
}

absl::Status CheckRunFlags(const RunFlags& flags) {
  if (flags.transfers_off && flags.verify) {
    return UsageError("--transfers-off gives wrong results by intent: leave out --verify");
  }
  if (flags.transfers_off && !flags.output.empty()) {
    return UsageError("--transfers-off gives wrong results by intent: leave out --output");
  }
  ANNULUS_RETURN_IF_ERROR(CheckForIdleFlags(flags));
  if (flags.client_memory == "device" && flags.data_path != "auto") {
    return UsageError(absl::StrCat("--client-memory device: used in place, leave out --data-path ",
                                   flags.data_path));
  }
  if (flags.client_memory == "device" && flags.coordinator.empty() &&
      ComputePluginOf(flags) == "cpu") {
    return UsageError(
        "--client-memory device: the workers would compute in the host's memory, name another "
        "device with --device or --compute-plugin");
  }
  if (!flags.memory_limit.empty()) {
    const auto bytes = ParseBytes(flags.memory_limit);
    if (!bytes.ok()) return UsageErrorIn("--memory-limit", bytes.status());
  }
  if (!std::isfinite(flags.softmax_scale)) {
    return UsageError("--softmax-scale: expected a finite number");
  }
  return absl::OkStatus();
}

}  // namespace annulus::cli
