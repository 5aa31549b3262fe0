// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/metric_table.h"

#include <array>
#include <string>

namespace annulus::metrics {
namespace {

constexpr int kNamedPeers = 64;

// `count` bounds from `first`, each `factor` times the one before.
std::vector<double> Geometric(double first, double factor, int count) {
  std::vector<double> bounds;
  double bound = first;
  for (int i = 0; i < count; ++i, bound *= factor) bounds.push_back(bound);
  return bounds;
}

// Rank numbers 0..63, then "other".
std::vector<LabelValue> Peers() {
  static const std::array<std::string, kNamedPeers>* const kNames = [] {
    auto* names = new std::array<std::string, kNamedPeers>;
    for (int i = 0; i < kNamedPeers; ++i) (*names)[static_cast<size_t>(i)] = std::to_string(i);
    return names;
  }();
  std::vector<LabelValue> values;
  for (const std::string& name : *kNames) values.push_back({name});
  values.push_back({kOtherValue});
  return values;
}

MetricLabel LevelLabel() { return {"level", {{"inner"}, {"outer"}}}; }

MetricLabel MethodLabel() {
  return {"method",
          {{"Session", Daemon::kWorker},
           {"Attend", Daemon::kWorker},
           {"CreateTensor", Daemon::kWorker},
           {"Upload", Daemon::kWorker},
           {"Download", Daemon::kWorker},
           {"GetTensor", Daemon::kWorker},
           {"DeleteTensor", Daemon::kWorker},
           {"ReleaseRetained", Daemon::kWorker},
           {"WorkerSession", Daemon::kCoordinator},
           {"EnsureGroup", Daemon::kCoordinator},
           {"GetGroup", Daemon::kCoordinator},
           {"ListGroups", Daemon::kCoordinator},
           {"DeleteGroup", Daemon::kCoordinator},
           {"ListWorkers", Daemon::kCoordinator},
           {"PreparePlan", Daemon::kCoordinator},
           {"GetPlan", Daemon::kCoordinator},
           {kOtherValue}}};
}

// absl::StatusCodeToString's names.
MetricLabel CodeLabel() {
  return {"code",
          {{"OK"},
           {"CANCELLED"},
           {"UNKNOWN"},
           {"INVALID_ARGUMENT"},
           {"DEADLINE_EXCEEDED"},
           {"NOT_FOUND"},
           {"ALREADY_EXISTS"},
           {"PERMISSION_DENIED"},
           {"RESOURCE_EXHAUSTED"},
           {"FAILED_PRECONDITION"},
           {"ABORTED"},
           {"OUT_OF_RANGE"},
           {"UNIMPLEMENTED"},
           {"INTERNAL"},
           {"UNAVAILABLE"},
           {"DATA_LOSS"},
           {"UNAUTHENTICATED"},
           {kOtherValue}}};
}

void AddStepRows(std::vector<MetricSpec>& rows) {
  rows.push_back({MetricId::kStepComputeSeconds, "annulus_step_compute_seconds_total",
                  MetricType::kCounter, Daemon::kWorker, "seconds",
                  "Time this rank spent computing: attention, adding received gradients, "
                  "preparing and finishing"});
  rows.push_back({MetricId::kStepCommSeconds, "annulus_step_comm_seconds_total",
                  MetricType::kCounter, Daemon::kWorker, "seconds",
                  "Time during which bytes of this rank were moving: the union of its sends and "
                  "receives"});
  rows.push_back({MetricId::kStepActiveSeconds, "annulus_step_active_seconds_total",
                  MetricType::kCounter, Daemon::kWorker, "seconds",
                  "Time during which this rank computed or moved bytes: the union of both"});
  rows.push_back({MetricId::kExposedCommSeconds,
                  "annulus_exposed_comm_seconds_total",
                  MetricType::kCounter,
                  Daemon::kWorker,
                  "seconds",
                  "Communication not hidden under compute: active minus compute. Outer while an "
                  "outer transfer is in flight, else inner",
                  {LevelLabel()}});
  rows.push_back({MetricId::kHopDuration,
                  "annulus_hop_duration_seconds",
                  MetricType::kHistogram,
                  Daemon::kWorker,
                  "seconds",
                  "Of each hop received: comm, its duration from first to last byte; compute, the "
                  "part of it spent beneath compute; wait, the rest, during which the rank did not "
                  "compute",
                  {LevelLabel(), {"phase", {{"compute"}, {"comm"}, {"wait"}}}},
                  Geometric(50e-6, 2, 18)});
  rows.push_back({MetricId::kStepDuration,
                  "annulus_step_duration_seconds",
                  MetricType::kHistogram,
                  Daemon::kWorker,
                  "seconds",
                  "Duration of one step of a plan on this rank, recorded when its request ends",
                  {},
                  Geometric(1e-3, 2, 17)});
  rows.push_back({MetricId::kPeerWaitSeconds,
                  "annulus_peer_wait_seconds_total",
                  MetricType::kCounter,
                  Daemon::kWorker,
                  "seconds",
                  "Time this rank stood still for a late peer: it computed nothing and no byte of "
                  "it moved. By the rank waited for; ranks above 63 are counted as other",
                  {{"peer", Peers()}}});
}

void AddDataRows(std::vector<MetricSpec>& rows) {
  rows.push_back({MetricId::kCommBytes,
                  "annulus_comm_bytes_total",
                  MetricType::kCounter,
                  Daemon::kWorker,
                  "bytes",
                  "Bytes moved between ranks, by the name of the transport plugin that moves them",
                  {{"transport", {{"host"}, {"cuipc"}, {"nccl"}, {kOtherValue}}},
                   {"direction", {{"sent"}, {"received"}}}}});
  rows.push_back({MetricId::kRpcPayloadBytes,
                  "annulus_rpc_payload_bytes_total",
                  MetricType::kCounter,
                  Daemon::kWorker,
                  "bytes",
                  "Tensor bytes taken from and given to clients: memfd, used in place in a shared "
                  "region; stream, through gRPC",
                  {{"path", {{"memfd"}, {"stream"}}}}});
  rows.push_back({MetricId::kQueueDuration,
                  "annulus_queue_duration_seconds",
                  MetricType::kHistogram,
                  Daemon::kWorker,
                  "seconds",
                  "Time from a request's arrival to the start of its first op",
                  {},
                  Geometric(100e-6, 4, 10)});
  rows.push_back({MetricId::kKvBytes,
                  "annulus_kv_bytes",
                  MetricType::kGauge,
                  Daemon::kWorker,
                  "bytes",
                  "Memory on this worker's ledger: leased, regions shared by clients; uploaded, "
                  "tensors of remote clients; retained, KV kept for a backward; scratch, buffers "
                  "of running requests",
                  {{"kind", {{"leased"}, {"uploaded"}, {"retained"}, {"scratch"}}}}});
  rows.push_back({MetricId::kWindowSize, "annulus_window_size", MetricType::kGauge, Daemon::kWorker,
                  "ranks",
                  "Ranks in a window (the inner ring) of the group joined last; 0: none yet"});
  rows.push_back({MetricId::kRingSize, "annulus_ring_size", MetricType::kGauge, Daemon::kWorker,
                  "ranks", "Ranks of the group joined last; 0: none yet"});
  rows.push_back({MetricId::kRingEpoch, "annulus_ring_epoch", MetricType::kGauge, Daemon::kWorker,
                  "epochs", "Epoch of the group joined last; grows each time the ring re-forms"});
}

void AddServiceRows(std::vector<MetricSpec>& rows) {
  rows.push_back({MetricId::kRequests,
                  "annulus_requests_total",
                  MetricType::kCounter,
                  Daemon::kBoth,
                  "calls",
                  "Calls answered, by RPC method and status code",
                  {MethodLabel(), CodeLabel()}});
  rows.push_back({MetricId::kRequestDuration,
                  "annulus_request_duration_seconds",
                  MetricType::kHistogram,
                  Daemon::kBoth,
                  "seconds",
                  "Duration of calls from arrival to answer, by RPC method",
                  {MethodLabel()},
                  Geometric(500e-6, 4, 10)});
  rows.push_back({MetricId::kStaleEpoch, "annulus_stale_epoch_total", MetricType::kCounter,
                  Daemon::kBoth, "messages",
                  "Messages refused because their term, epoch or incarnation was of the past"});
  rows.push_back({MetricId::kBuildInfo,
                  "annulus_build_info",
                  MetricType::kGauge,
                  Daemon::kBoth,
                  "",
                  "Always 1; its labels say what runs",
                  {{"version", {}}, {"daemon", {}}, {"compute", {}}, {"transport", {}}}});
  rows.push_back({MetricId::kMetricErrors,
                  "annulus_metric_errors_total",
                  MetricType::kCounter,
                  Daemon::kBoth,
                  "observations",
                  "Observations dropped because they did not fit the table of metrics",
                  {{"kind", {{"label"}, {"type"}, {"value"}}}}});
}

void AddCoordinatorRows(std::vector<MetricSpec>& rows) {
  rows.push_back({MetricId::kWorkers,
                  "annulus_workers",
                  MetricType::kGauge,
                  Daemon::kCoordinator,
                  "workers",
                  "Workers known, by state",
                  {{"state", {{"live"}, {"lost"}}}}});
  rows.push_back({MetricId::kGroups,
                  "annulus_groups",
                  MetricType::kGauge,
                  Daemon::kCoordinator,
                  "groups",
                  "Context-parallel groups, by state",
                  {{"state", {{"waiting"}, {"preparing"}, {"connecting"}, {"ready"}}}}});
  rows.push_back({MetricId::kReforms,
                  "annulus_reforms_total",
                  MetricType::kCounter,
                  Daemon::kCoordinator,
                  "reforms",
                  "Epochs of groups ended, by the reason given to their members",
                  {{"cause",
                    {{"WORKER_LOST"},
                     {"WORKER_SILENT"},
                     {"PEER_UNREACHABLE"},
                     {"REQUEST_FAILED"},
                     {"SETUP_FAILED"},
                     {"RELEASED"},
                     {kOtherValue}}}}});
  rows.push_back({MetricId::kReformDuration,
                  "annulus_reform_duration_seconds",
                  MetricType::kHistogram,
                  Daemon::kCoordinator,
                  "seconds",
                  "Time from the end of a group's epoch to its next being ready",
                  {},
                  Geometric(10e-3, 2, 12)});
  rows.push_back({MetricId::kHeartbeatAge, "annulus_heartbeat_age_seconds", MetricType::kGauge,
                  Daemon::kCoordinator, "seconds",
                  "Age of the oldest last heartbeat among the live workers"});
  rows.push_back({MetricId::kPlansCached, "annulus_plans_cached", MetricType::kGauge,
                  Daemon::kCoordinator, "plans", "Checked plans held"});
  rows.push_back({MetricId::kPlanRequests,
                  "annulus_plan_requests_total",
                  MetricType::kCounter,
                  Daemon::kCoordinator,
                  "calls",
                  "Plans asked for: hit, held already; miss, generated and checked",
                  {{"result", {{"hit"}, {"miss"}}}}});
  rows.push_back(
      {MetricId::kStrategySelected,
       "annulus_strategy_selected_total",
       MetricType::kCounter,
       Daemon::kCoordinator,
       "plans",
       "Plans answered, by algorithm and by why it was chosen: requested, the caller "
       "named a window size; default, it did not",
       {{"strategy", {{"ring"}, {"double_ring"}}}, {"reason", {{"requested"}, {"default"}}}}});
}

std::vector<MetricSpec> BuildTable() {
  std::vector<MetricSpec> rows;
  AddStepRows(rows);
  AddDataRows(rows);
  AddServiceRows(rows);
  AddCoordinatorRows(rows);
  return rows;
}

}  // namespace

bool Covers(Daemon which, Daemon daemon) {
  return (static_cast<uint8_t>(which) & static_cast<uint8_t>(daemon)) != 0;
}

std::span<const MetricSpec> MetricTable() {
  static const std::vector<MetricSpec>* const kTable = new std::vector<MetricSpec>(BuildTable());
  return *kTable;
}

const MetricSpec& GetMetricSpec(MetricId id) { return MetricTable()[static_cast<size_t>(id)]; }

std::optional<size_t> FindLabelValue(const MetricLabel& label, std::string_view value) {
  std::optional<size_t> other;
  for (size_t i = 0; i < label.values.size(); ++i) {
    if (label.values[i].text == value) return i;
    if (label.values[i].text == kOtherValue) other = i;
  }
  return other;
}

std::string_view MetricTypeName(MetricType type) {
  switch (type) {
    case MetricType::kCounter:
      return "counter";
    case MetricType::kGauge:
      return "gauge";
    case MetricType::kHistogram:
      return "histogram";
  }
  return "untyped";
}

}  // namespace annulus::metrics
