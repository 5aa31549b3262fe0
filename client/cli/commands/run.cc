// SPDX-License-Identifier: Apache-2.0
// annulus run: the main job.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "annulus/client.h"
#include "client/cli/commands/commands.h"
#include "client/cli/embedded_cluster.h"
#include "client/cli/exit_code.h"
#include "client/cli/flags.h"
#include "client/cli/interrupt.h"
#include "client/cli/problem.h"
#include "client/cli/progress.h"
#include "client/cli/report.h"
#include "client/cli/run_progress.h"
#include "client/cli/text_output.h"
#include "client/cli/trace_file.h"
#include "client/cli/verify.h"
#include "client/io/atomic_file.h"
#include "client/src/request_id.h"
#include "client/trace/chrome_trace.h"
#include "server/base/status_macros.h"

namespace annulus::cli {
namespace {

// One run from flags to files. The steps are in the order in which they may fail: everything that
// is the user's comes before the first process is started.
class Run {
 public:
  explicit Run(const RunFlags& flags) : flags_(flags) {}

  absl::Status Prepare() {
    ANNULUS_RETURN_IF_ERROR(CheckRunFlags(flags_));
    ANNULUS_ASSIGN_OR_RETURN(options_, AttendOptionsFromFlags(flags_));
    ANNULUS_ASSIGN_OR_RETURN(group_, GroupFromFlags(flags_));
    group_.name =
        flags_.group.empty() ? absl::StrFormat("run-%016x", client::RandomBits()) : flags_.group;
    if (!flags_.input.empty()) {
      auto input = io::TensorFile::Open(flags_.input);
      if (!input.ok()) return UsageError(input.status());
      input_ = *std::move(input);
    }
    ANNULUS_ASSIGN_OR_RETURN(result_.problem, ResolveProblem(flags_, input_));
    ANNULUS_RETURN_IF_ERROR(SpecFromFlags(flags_.shape, ring::Direction::kForward,
                                          result_.problem.query_length, result_.problem.kv_length)
                                .status());
    const bool d_o_generated = !input_ || !input_->Has("do");
    ANNULUS_RETURN_IF_ERROR(CheckOutputs(flags_, result_.problem, d_o_generated));
    for (const std::string& path : {flags_.report, flags_.trace}) {
      if (!path.empty()) ANNULUS_RETURN_IF_ERROR(UsageError(io::CheckWritable(path)));
    }
    return absl::OkStatus();
  }

  // With the cluster that the flags name, or one of our own that ends with this.
  absl::Status Work() {
    std::unique_ptr<EmbeddedCluster> own;
    std::string coordinator = flags_.coordinator;
    if (coordinator.empty()) {
      ANNULUS_ASSIGN_OR_RETURN(own, StartOwnCluster());
      coordinator = own->coordinator().listen;
      group_.members = own->worker_names();
    }
    std::optional<ScopedCleanup> cleanup;
    if (own != nullptr) cleanup.emplace([raw = own.get()] { raw->Stop(); });
    const absl::Status done = WorkOn(coordinator);
    if (own != nullptr && !done.ok() && ExitCodeFor(done) == kFault) {
      std::fputs(own->Logs().c_str(), stderr);
    }
    return done;
  }

  int Finish() const {
    const bool json = flags_.format == Format::kJson;
    std::fputs((json ? ReportJson(flags_, result_) : ReportText(flags_, result_)).c_str(), stdout);
    std::fflush(stdout);
    if (!result_.verification || result_.verification->passed()) return kDone;
    std::fputs("annulus: verification failed: see the errors beyond their gates\n", stderr);
    return kVerificationFailed;
  }

 private:
  absl::StatusOr<std::unique_ptr<EmbeddedCluster>> StartOwnCluster() const {
    EmbeddedClusterOptions options;
    options.workers = flags_.shape.context_parallel_size;
    options.ranks_per_node = flags_.ranks_per_node;
    options.threads = flags_.threads;
    options.pin_threads = flags_.pin_threads;
    if (!flags_.memory_limit.empty()) {
      ANNULUS_ASSIGN_OR_RETURN(options.memory_limit_bytes, ParseBytes(flags_.memory_limit));
    }
    return EmbeddedCluster::Start(options);
  }

  absl::Status WorkOn(const std::string& coordinator) {
    client::ClientOptions options;
    options.coordinator = coordinator;
    options.name = "annulus run";
    options.connect_timeout = std::min(options.connect_timeout, options_.deadline);
    options.group_timeout = std::min(options.group_timeout, options_.deadline);
    ANNULUS_ASSIGN_OR_RETURN(const auto client, client::Client::Connect(options));
    if (flags_.format == Format::kText) {
      const std::string where = flags_.coordinator.empty()
                                    ? "workers of its own"
                                    : absl::StrCat("coordinator ", flags_.coordinator);
      std::fputs(HeaderText(flags_, result_.problem, where).c_str(), stdout);
      std::fflush(stdout);
    }
    const absl::Status done = AttendAndWrite(client.get(), coordinator);
    if (flags_.group.empty()) {
      // What remains if the coordinator is gone is gone with it.
      const absl::Status ignored = client->DeleteGroup(group_.name);
      (void)ignored;
    }
    return done;
  }

  absl::Status AttendAndWrite(client::Client* client, const std::string& coordinator) {
    ANNULUS_ASSIGN_OR_RETURN(const ProblemTensors tensors,
                             MakeTensors(client, result_.problem, flags_, input_));
    ANNULUS_RETURN_IF_ERROR(client->EnsureGroup(group_).status());
    for (int i = 0; i < flags_.repeat; ++i) {
      if (i > 0 && flags_.backward && flags_.retain) {
        ANNULUS_RETURN_IF_ERROR(client->ReleaseRetained(group_.name, last_forward_));
      }
      ProgressBar bar(
          flags_.repeat > 1 ? absl::StrFormat("run %d of %d", i + 1, flags_.repeat) : "attention",
          GroupProgress(coordinator, group_.name));
      ANNULUS_ASSIGN_OR_RETURN(Repetition repetition, Repeat(client, tensors));
      result_.wall_seconds.push_back(repetition.wall_seconds());
      last_forward_ = repetition.forward.request_id;
      if (i == 0 || repetition.wall_seconds() < result_.best.wall_seconds()) {
        result_.best = std::move(repetition);
      }
    }
    RoundOutput(tensors);
    if (flags_.verify) {
      ProgressBar bar("verifying", [] { return -1.0; });
      result_.verification = Verify(flags_, result_.problem, tensors);
    }
    return WriteFiles(tensors);
  }

  absl::StatusOr<Repetition> Repeat(client::Client* client, const ProblemTensors& t) const {
    Repetition repetition;
    client::AttendOptions options = options_;
    options.retain = flags_.backward && flags_.retain;
    ANNULUS_ASSIGN_OR_RETURN(
        repetition.forward,
        client->Attend({group_.name, t.q, t.k, t.v, t.o_exact, t.lse}, options));
    if (!flags_.backward) return repetition;
    client::AttendBackwardCall call{group_.name, t.q,  t.k,  t.v,  t.o_exact, t.lse,
                                    t.d_o,       t.dq, t.dk, t.dv, ""};
    if (options.retain) call.forward_request_id = repetition.forward.request_id;
    ANNULUS_ASSIGN_OR_RETURN(repetition.backward, client->AttendBackward(call, options));
    return repetition;
  }

  absl::Status WriteFiles(const ProblemTensors& tensors) const {
    const UninterruptedSection section;
    ANNULUS_RETURN_IF_ERROR(UsageError(WriteOutputs(flags_, tensors)));
    if (!flags_.report.empty()) {
      ANNULUS_RETURN_IF_ERROR(
          UsageError(io::WriteFileAtomically(flags_.report, ReportJson(flags_, result_))));
    }
    if (!flags_.trace.empty()) {
      ANNULUS_RETURN_IF_ERROR(
          UsageError(trace::WriteChromeTrace(flags_.trace, TraceOf(flags_, result_))));
    }
    return absl::OkStatus();
  }

  const RunFlags& flags_;
  client::AttendOptions options_;
  client::GroupOptions group_;
  std::optional<io::TensorFile> input_;
  std::string last_forward_;  // whose retained KV the next repetition drops; the last goes with us
  RunResult result_;
};

int RunAttention(const RunFlags& flags) {
  Run run(flags);
  const absl::Status prepared = run.Prepare();
  if (!prepared.ok()) return Fail(prepared);
  const absl::Status worked = run.Work();
  return worked.ok() ? run.Finish() : Fail(worked);
}

}  // namespace

Command AddRunCommand(CLI::App* app) {
  auto flags = std::make_shared<RunFlags>();
  AddRunFlags(app, flags.get());
  app->footer(
      "Tensors are [batch, sequence, heads, head size]. NaN and infinity in the input propagate to "
      "the rows they touch.");
  return [flags] { return RunAttention(*flags); };
}

}  // namespace annulus::cli
