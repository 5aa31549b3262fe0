// SPDX-License-Identifier: Apache-2.0
// annulus run: the main job.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "absl/strings/str_format.h"
#include "annulus/client.h"
#include "client/cli/commands/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/flags.h"
#include "client/cli/interrupt.h"
#include "client/cli/progress.h"
#include "client/cli/report.h"
#include "client/cli/ring_job.h"
#include "client/cli/trace_file.h"
#include "client/cli/verify.h"
#include "client/io/atomic_file.h"
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
    ANNULUS_ASSIGN_OR_RETURN(job_, ResolveRingJob(flags_));
    result_.problem = job_.problem;
    ANNULUS_RETURN_IF_ERROR(CheckOutputs(flags_, result_.problem, DrawsGradient(job_.input)));
    for (const std::string& path : {flags_.report, flags_.trace}) {
      if (!path.empty()) ANNULUS_RETURN_IF_ERROR(UsageError(io::CheckWritable(path)));
    }
    return absl::OkStatus();
  }

  absl::Status Work() {
    return WithRing("annulus run", flags_, &job_,
                    [this](client::Client* client, const std::string& coordinator) {
                      return AttendAndWrite(client, coordinator);
                    });
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
  absl::Status AttendAndWrite(client::Client* client, const std::string& coordinator) {
    if (flags_.format == Format::kText) {
      std::fputs(HeaderText(flags_, result_.problem).c_str(), stdout);
      std::fflush(stdout);
    }
    ANNULUS_ASSIGN_OR_RETURN(RingAttention attention,
                             RingAttention::Create(client, coordinator, flags_, job_));
    result_.memory = attention.memory().Used();
    for (int i = 0; i < flags_.repeat; ++i) {
      ANNULUS_ASSIGN_OR_RETURN(
          Repetition repetition,
          attention.Run(flags_.repeat > 1 ? absl::StrFormat("run %d of %d", i + 1, flags_.repeat)
                                          : "attention"));
      result_.wall_seconds.push_back(repetition.wall_seconds());
      if (i == 0 || repetition.wall_seconds() < result_.best.wall_seconds()) {
        result_.best = std::move(repetition);
      }
    }
    const ProblemTensors& tensors = attention.tensors();
    if (flags_.verify || !flags_.output.empty()) ANNULUS_RETURN_IF_ERROR(attention.Collect());
    RoundOutput(tensors);
    if (flags_.verify) {
      ProgressBar bar("verifying", [] { return -1.0; });
      result_.verification = Verify(flags_, result_.problem, tensors);
    }
    return WriteFiles(tensors);
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
  RingJob job_;
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
