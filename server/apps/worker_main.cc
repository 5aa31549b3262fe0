// SPDX-License-Identifier: Apache-2.0
// annulus-worker: flags and wiring. What a worker does is in server/worker, what it says in
// server/rpc.
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "kernels/compute_plugin.h"
#include "server/apps/process.h"
#include "server/apps/worker_facts.h"
#include "server/apps/worker_flags.h"
#include "server/apps/worker_transports.h"
#include "server/base/plugin_library.h"
#include "server/base/status_macros.h"
#include "server/metrics/prometheus/metrics_server.h"
#include "server/metrics/prometheus/prometheus_metrics.h"
#include "server/rpc/coordinator_session.h"
#include "server/rpc/worker_server.h"
#include "server/transport/transport_plugin.h"
#include "server/worker/engine.h"
#include "server/worker/engine_metrics.h"
#include "server/worker/region_server.h"

namespace annulus::apps {
namespace {

// Requests that run when the stop begins may end by themselves for this long, and must have ended,
// aborted, after that.
constexpr auto kDrainTime = std::chrono::milliseconds(1000);
constexpr auto kAbortTime = std::chrono::milliseconds(400);
constexpr double kStopLimitSeconds = 1.9;

uint64_t RandomIncarnation() {
  std::random_device random;
  return (uint64_t{random()} << 32) | random();
}

void StartLogging(const WorkerFlags& flags) {
  spdlog::set_default_logger(spdlog::stderr_logger_mt(flags.name));
  spdlog::set_level(spdlog::level::from_str(flags.log_level));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %n: %v");
  // What the RPC library says on its own is said here too, in our words.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
}

// Everything that a worker consists of, in the order in which each part needs the ones before it;
// taken down in the opposite order.
class WorkerDaemon {
 public:
  explicit WorkerDaemon(const WorkerFlags& flags) : flags_(flags) {}

  absl::Status Start() {
    ANNULUS_RETURN_IF_ERROR(LoadPlugins());
    ANNULUS_RETURN_IF_ERROR(StartEngine());
    ANNULUS_RETURN_IF_ERROR(StartServers());
    JoinCoordinator();
    return flags_.port_file.empty() ? absl::OkStatus() : WritePortFile();
  }

  void Stop() {
    if (!server_->Drain(std::chrono::steady_clock::now() + kDrainTime)) {
      engine_->FaultAllGroups("the worker is stopping");
      server_->Drain(std::chrono::steady_clock::now() + kAbortTime);
    }
  }

 private:
  absl::Status LoadPlugins() {
    ANNULUS_ASSIGN_OR_RETURN(compute_library_,
                             PluginLibrary::Load("compute", flags_.compute_plugin));
    ANNULUS_ASSIGN_OR_RETURN(compute_,
                             compute_library_.Find<annulusComputeV1>(ANNULUS_COMPUTE_V1_SYMBOL));
    ANNULUS_ASSIGN_OR_RETURN(transports_, LoadTransports(flags_.transports));
    return absl::OkStatus();
  }

  absl::Status StartEngine() {
    ANNULUS_ASSIGN_OR_RETURN(metrics_,
                             metrics::PrometheusMetrics::Create(
                                 metrics::Daemon::kWorker,
                                 {ANNULUS_VERSION, compute_->name, transports_.front()->name}));
    engine_metrics_ = std::make_unique<worker::EngineMetrics>(metrics_.get());
    worker::EngineOptions options;
    options.name = flags_.name;
    options.incarnation = incarnation_;
    options.host_id = flags_.host_id;
    options.bind_address = flags_.data_address;
    options.memory_limit_bytes = flags_.memory_limit_bytes;
    options.max_concurrent_requests = flags_.max_requests;
    options.device = flags_.device;
    options.peer_timeout_seconds = flags_.peer_timeout_seconds;
    options.compute = compute_;
    options.transports = transports_;
    ANNULUS_ASSIGN_OR_RETURN(engine_, worker::Engine::Create(options));
    engine_->SetObserver(engine_metrics_.get());
    return absl::OkStatus();
  }

  absl::Status StartServers() {
    worker::RegionServerOptions regions;
    regions.path = flags_.region_socket;
    ANNULUS_ASSIGN_OR_RETURN(regions_, worker::RegionServer::Start(regions, engine_.get()));
    if (flags_.serve_metrics) {
      metrics::MetricsServerOptions options{flags_.metrics_listen.host, flags_.metrics_listen.port};
      ANNULUS_ASSIGN_OR_RETURN(metrics_server_, metrics::MetricsServer::Start(options, [this] {
                                 engine_metrics_->SetMemoryUse(engine_->memory_use());
                                 return metrics_->Text();
                               }));
      metrics_address_ = HostPort{flags_.metrics_listen.host, metrics_server_->port()}.ToString();
    }
    rpc::WorkerServerOptions options;
    options.listen_address = flags_.listen.ToString();
    options.incarnation = incarnation_;
    options.host_id = flags_.host_id;
    options.region_socket = regions_->path();
    options.max_concurrent_requests = flags_.max_requests;
    ANNULUS_ASSIGN_OR_RETURN(server_,
                             rpc::WorkerServer::Start(options, engine_.get(), metrics_.get()));
    address_ = HostPort{flags_.advertise, server_->port()}.ToString();
    spdlog::info("serving on {}, metrics on {}, {}", address_, metrics_address_,
                 engine_->device_description());
    return absl::OkStatus();
  }

  void JoinCoordinator() {
    rpc::CoordinatorSessionOptions options;
    options.coordinator_address = flags_.coordinator.ToString();
    options.identity.name = flags_.name;
    options.identity.incarnation = incarnation_;
    options.identity.address = address_;
    options.identity.node = flags_.node;
    options.identity.host_id = flags_.host_id;
    options.identity.region_socket = regions_->path();
    options.identity.metrics_address = metrics_address_;
    options.identity.memory_limit_bytes = flags_.memory_limit_bytes;
    options.identity.compute_device = engine_->device_description();
    options.identity.transport = transports_.front()->name;
    options.identity.version = ANNULUS_VERSION;
    options.identity.facts = CollectFacts(compute_->name, engine_->device_bus_id(), transports_);
    options.on_connected = [this](bool connected) { server_->SetReady(connected); };
    session_ = rpc::CoordinatorSession::Start(options, engine_.get(), metrics_.get());
  }

  absl::Status WritePortFile() const {
    const nlohmann::ordered_json ports = {{"name", flags_.name},
                                          {"pid", getpid()},
                                          {"listen", address_},
                                          {"metrics", metrics_address_},
                                          {"region_socket", regions_->path()}};
    return WriteFileAtomically(flags_.port_file, ports.dump() + "\n");
  }

  const WorkerFlags flags_;
  const uint64_t incarnation_ = RandomIncarnation();
  PluginLibrary compute_library_;
  const annulusComputeV1* compute_ = nullptr;
  std::vector<const annulusTransportV1*> transports_;
  std::unique_ptr<metrics::PrometheusMetrics> metrics_;
  std::unique_ptr<worker::EngineMetrics> engine_metrics_;
  std::unique_ptr<worker::Engine> engine_;
  std::unique_ptr<worker::RegionServer> regions_;
  std::unique_ptr<metrics::MetricsServer> metrics_server_;
  std::unique_ptr<rpc::WorkerServer> server_;
  std::unique_ptr<rpc::CoordinatorSession> session_;
  std::string address_;
  std::string metrics_address_;
};

int Run(const WorkerFlags& flags) {
  StartLogging(flags);
  if (flags.die_with_parent) {
    const absl::Status status = DieWithParent();
    if (!status.ok()) spdlog::warn("--die-with-parent: {}", status.ToString());
  }
  WorkerDaemon daemon(flags);
  const absl::Status status = daemon.Start();
  if (!status.ok()) {
    spdlog::error("cannot serve: {}", status.ToString());
    return ExitCodeOf(status);
  }
  const int signal = AwaitStopSignal();
  spdlog::info("stopping on signal {}", signal);
  LimitStop(kStopLimitSeconds);
  daemon.Stop();
  return kExitDone;
}

}  // namespace
}  // namespace annulus::apps

int main(int argc, char** argv) {
  annulus::apps::BlockStopSignals();
  const auto flags = annulus::apps::ParseWorkerFlags(argc, argv);
  if (const int* code = std::get_if<int>(&flags)) return *code;
  return annulus::apps::Run(std::get<annulus::apps::WorkerFlags>(flags));
}
