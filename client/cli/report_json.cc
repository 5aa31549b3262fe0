// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <nlohmann/json.hpp>

#include "client/cli/report.h"

namespace annulus::cli {
namespace {

using Json = nlohmann::ordered_json;

const char* DataPathName(client::DataPath path, const MemoryUsed& memory) {
  switch (path) {
    case client::DataPath::kAuto:
      return "auto";
    case client::DataPath::kMemfd:
      return memory.devices.empty() ? "memfd" : "device";
    case client::DataPath::kStream:
      break;
  }
  return "stream";
}

// JSON has no infinity; null would read as "not verified".
Json ErrorJson(double error) {
  if (std::isnan(error)) return "nan";
  return std::isinf(error) ? Json("inf") : Json(error);
}

Json TimingJson(const client::Timing& timing) {
  return {{"wall_seconds", timing.wall_seconds},
          {"compute_seconds", timing.compute_seconds},
          {"comm_seconds", timing.comm_seconds},
          {"active_seconds", timing.active_seconds},
          {"exposed_comm_seconds", timing.exposed_comm_seconds},
          {"exposed_inner_seconds", timing.exposed_inner_seconds},
          {"exposed_outer_seconds", timing.exposed_outer_seconds},
          {"peer_wait_seconds", timing.peer_wait_seconds},
          {"overlap_ratio", timing.overlap_ratio()},
          {"bytes_moved", {{"inner", timing.bytes_inner}, {"outer", timing.bytes_outer}}},
          {"peak_bytes", timing.peak_bytes}};
}

Json CallJson(const client::AttendReport& report, const MemoryUsed& memory) {
  Json call = TimingJson(report.Total());
  call["wall_seconds"] = report.wall_seconds;
  call["request_id"] = report.request_id;
  call["plan_digest"] = report.plan_digest;
  call["epoch"] = report.epoch;
  call["ranks"] = Json::array();
  for (const client::RankReport& rank : report.ranks) {
    Json entry = TimingJson(rank.timing);
    entry["rank"] = rank.rank;
    entry["worker"] = rank.worker;
    entry["node"] = rank.node;
    entry["data_path"] = DataPathName(rank.data_path, memory);
    entry["steps"] = Json::array();
    for (const client::StepTiming& step : rank.steps) {
      entry["steps"].push_back({{"step", step.step},
                                {"compute_seconds", step.compute_seconds},
                                {"comm_seconds", step.comm_seconds},
                                {"exposed_seconds", step.exposed_seconds}});
    }
    call["ranks"].push_back(std::move(entry));
  }
  return call;
}

client::Timing Sum(const Repetition& run) {
  client::Timing sum = run.forward.Total();
  if (!run.backward) return sum;
  const client::Timing more = run.backward->Total();
  sum.compute_seconds += more.compute_seconds;
  sum.comm_seconds += more.comm_seconds;
  sum.active_seconds += more.active_seconds;
  sum.exposed_comm_seconds += more.exposed_comm_seconds;
  sum.exposed_inner_seconds += more.exposed_inner_seconds;
  sum.exposed_outer_seconds += more.exposed_outer_seconds;
  sum.peer_wait_seconds += more.peer_wait_seconds;
  sum.bytes_inner += more.bytes_inner;
  sum.bytes_outer += more.bytes_outer;
  sum.peak_bytes = std::max(sum.peak_bytes, more.peak_bytes);
  return sum;
}

void AddErrors(const RunResult& result, Json* report) {
  Json& out = *report;
  out["relative_rmse"] = nullptr;
  out["lse_max_abs_error"] = nullptr;
  out["gradient_relative_rmse"] = nullptr;
  if (!result.verification) return;
  const Verification& verified = *result.verification;
  out["relative_rmse"] = ErrorJson(verified.error("o"));
  out["lse_max_abs_error"] = ErrorJson(verified.error("lse"));
  if (result.best.backward) {
    out["gradient_relative_rmse"] = {{"dq", ErrorJson(verified.error("dq"))},
                                     {"dk", ErrorJson(verified.error("dk"))},
                                     {"dv", ErrorJson(verified.error("dv"))}};
  }
  Json checks = Json::array();
  for (const Check& check : verified.checks) {
    checks.push_back({{"name", check.name},
                      {"measure", check.measure},
                      {"error", ErrorJson(check.error)},
                      {"gate", check.gate},
                      {"passed", check.passed()},
                      {"rows_compared", check.rows},
                      {"rows", check.rows_total}});
  }
  out["verification"] = {{"passed", verified.passed()},
                         {"sampled", verified.sampled},
                         {"gradients_of_stored_state", verified.gradients_of_stored_state},
                         {"seconds", verified.seconds},
                         {"checks", std::move(checks)}};
}

}  // namespace

Json ShapeJson(const RunFlags& flags, const Problem& problem) {
  const int size = flags.shape.context_parallel_size;
  return {{"context_parallel_size", size},
          {"cp_window_size", flags.shape.cp_window_size == 0 ? size : flags.shape.cp_window_size},
          {"seq_length", problem.query_length},
          {"kv_seq_length", problem.kv_length},
          {"batch_size", problem.batch},
          {"num_heads", problem.query_heads},
          {"num_kv_heads", problem.kv_heads},
          {"head_dim", problem.head_dim},
          {"dtype", DataTypeName(problem.dtype)},
          {"layout", flags.shape.layout},
          {"mask", flags.shape.mask},
          {"window_left", flags.shape.window_left},
          {"overlap", flags.overlap},
          {"gradient_wire", flags.gradient_wire},
          {"transfers_off", flags.transfers_off}};
}

Json MemoryJson(const MemoryUsed& memory) {
  if (memory.devices.empty()) return {{"place", "host"}, {"reason", memory.reason}};
  return {{"place", "device"}, {"devices", memory.devices}};
}

std::string ReportJson(const RunFlags& flags, const RunResult& result) {
  const client::Timing sum = Sum(result.best);
  Json report{{"schema", "annulus.report.v1"},
              {"wall_seconds", result.best.wall_seconds()},
              {"compute_seconds", sum.compute_seconds},
              {"comm_seconds", sum.comm_seconds},
              {"exposed_comm_seconds", sum.exposed_comm_seconds},
              {"exposed_inner_seconds", sum.exposed_inner_seconds},
              {"exposed_outer_seconds", sum.exposed_outer_seconds},
              {"peer_wait_seconds", sum.peer_wait_seconds},
              {"overlap_ratio", sum.overlap_ratio()}};
  AddErrors(result, &report);
  report["plan_digest"] = result.best.forward.plan_digest;
  report["peak_bytes_per_worker"] = sum.peak_bytes;
  report["bytes_moved"] = {{"inner", sum.bytes_inner}, {"outer", sum.bytes_outer}};
  // "memfd", "device" or "stream" where all ranks had the same, else "mixed"; each rank's own is
  // below.
  const auto& ranks = result.best.forward.ranks;
  bool mixed = false;
  for (const auto& rank : ranks) mixed = mixed || rank.data_path != ranks.front().data_path;
  report["data_path"] =
      mixed || ranks.empty() ? "mixed" : DataPathName(ranks.front().data_path, result.memory);
  report["client_memory"] = MemoryJson(result.memory);
  report["results_valid"] = !flags.transfers_off;
  report["shape"] = ShapeJson(flags, result.problem);
  report["repeat_wall_seconds"] = result.wall_seconds;
  report["forward"] = CallJson(result.best.forward, result.memory);
  if (result.best.backward) report["backward"] = CallJson(*result.best.backward, result.memory);
  return report.dump(2) + "\n";
}

}  // namespace annulus::cli
