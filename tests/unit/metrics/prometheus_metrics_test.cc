// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/prometheus/prometheus_metrics.h"

#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace annulus::metrics {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class PrometheusMetricsTest : public ::testing::Test {
 protected:
  static std::unique_ptr<PrometheusMetrics> Make(Daemon daemon) {
    auto metrics = PrometheusMetrics::Create(daemon, {"1.2.3", "cpu", "host"});
    EXPECT_TRUE(metrics.ok()) << metrics.status();
    return *std::move(metrics);
  }
  // The exposition has this line.
  void ExpectLine(const std::string& line) {
    EXPECT_THAT("\n" + metrics_->Text(), HasSubstr("\n" + line + "\n"));
  }

  std::unique_ptr<PrometheusMetrics> metrics_ = Make(Daemon::kWorker);
};

TEST_F(PrometheusMetricsTest, EverySeriesIsThereFromTheStart) {
  for (Daemon daemon : {Daemon::kWorker, Daemon::kCoordinator}) {
    const std::string text = Make(daemon)->Text();
    for (const MetricSpec& spec : MetricTable()) {
      const std::string type = absl::StrCat("# TYPE ", std::string(spec.name), " ",
                                            std::string(MetricTypeName(spec.type)), "\n");
      if (Covers(spec.daemons, daemon)) {
        EXPECT_THAT(text, HasSubstr(type));
      } else {
        EXPECT_THAT(text, Not(HasSubstr(type)));
      }
    }
  }
  ExpectLine("annulus_exposed_comm_seconds_total{level=\"outer\"} 0");
  ExpectLine("annulus_peer_wait_seconds_total{peer=\"63\"} 0");
  ExpectLine("annulus_requests_total{code=\"ABORTED\",method=\"Attend\"} 0");
  ExpectLine("annulus_hop_duration_seconds_bucket{level=\"inner\",phase=\"comm\",le=\"+Inf\"} 0");
}

TEST_F(PrometheusMetricsTest, ADaemonHasItsOwnMethodsOnly) {
  EXPECT_THAT(metrics_->Text(), Not(HasSubstr("PreparePlan")));
  EXPECT_THAT(Make(Daemon::kCoordinator)->Text(), Not(HasSubstr("\"Attend\"")));
}

TEST_F(PrometheusMetricsTest, CountsSetsAndObserves) {
  metrics_->Increment(MetricId::kRequests, {"Attend", "OK"});
  metrics_->Increment(MetricId::kRequests, {"Attend", "OK"}, 2);
  metrics_->Set(MetricId::kRingSize, {}, 8);
  metrics_->Observe(MetricId::kStepDuration, {}, 1e-3);  // on a bound: le means <=
  ExpectLine("annulus_requests_total{code=\"OK\",method=\"Attend\"} 3");
  ExpectLine("annulus_requests_total{code=\"OK\",method=\"Upload\"} 0");
  ExpectLine("annulus_ring_size 8");
  ExpectLine("annulus_step_duration_seconds_bucket{le=\"0.001\"} 1");
  ExpectLine("annulus_step_duration_seconds_count 1");
}

TEST_F(PrometheusMetricsTest, SaysWhatRuns) {
  EXPECT_THAT(metrics_->Text(), HasSubstr("annulus_build_info{"));
  EXPECT_THAT(metrics_->Text(), HasSubstr("version=\"1.2.3\""));
  EXPECT_THAT(metrics_->Text(), HasSubstr("daemon=\"worker\""));
}

TEST_F(PrometheusMetricsTest, UnknownValuesCountAsOtherWhereThereIsOne) {
  metrics_->Increment(MetricId::kPeerWaitSeconds, {"64"}, 0.5);
  metrics_->Increment(MetricId::kCommBytes, {"carrier-pigeon", "sent"}, 7);
  ExpectLine("annulus_peer_wait_seconds_total{peer=\"other\"} 0.5");
  ExpectLine("annulus_comm_bytes_total{direction=\"sent\",transport=\"other\"} 7");
  ExpectLine("annulus_metric_errors_total{kind=\"label\"} 0");
}

TEST_F(PrometheusMetricsTest, MisuseIsCountedAndNeverFails) {
  metrics_->Increment(MetricId::kExposedCommSeconds, {"sideways"});  // unknown value, no "other"
  metrics_->Increment(MetricId::kExposedCommSeconds, {});            // too few labels
  metrics_->Increment(MetricId::kStepCommSeconds, {"inner"});        // too many
  metrics_->Increment(MetricId::kRequests, {"PreparePlan", "OK"});   // the other daemon's method
  ExpectLine("annulus_metric_errors_total{kind=\"label\"} 4");
  metrics_->Set(MetricId::kStepCommSeconds, {}, 1);    // a counter
  metrics_->Observe(MetricId::kRingSize, {}, 1);       // a gauge
  metrics_->Increment(MetricId::kReforms, {"other"});  // the coordinator's
  ExpectLine("annulus_metric_errors_total{kind=\"type\"} 3");
  metrics_->Increment(MetricId::kStepCommSeconds, {}, -1);
  metrics_->Set(MetricId::kRingSize, {}, std::numeric_limits<double>::quiet_NaN());
  metrics_->Observe(MetricId::kStepDuration, {}, std::numeric_limits<double>::infinity());
  ExpectLine("annulus_metric_errors_total{kind=\"value\"} 3");
  ExpectLine("annulus_step_comm_seconds_total 0");
}

TEST_F(PrometheusMetricsTest, CountsFromManyThreads) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([this] {
      for (int j = 0; j < 1000; ++j) {
        metrics_->Increment(MetricId::kStaleEpoch, {});
        metrics_->Observe(MetricId::kQueueDuration, {}, 1);
        if (j % 100 == 0) {
          EXPECT_FALSE(metrics_->Text().empty());
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ExpectLine("annulus_stale_epoch_total 4000");
  ExpectLine("annulus_queue_duration_seconds_count 4000");
}

TEST_F(PrometheusMetricsTest, BelongsToOneDaemon) {
  EXPECT_EQ(PrometheusMetrics::Create(Daemon::kBoth, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace annulus::metrics
