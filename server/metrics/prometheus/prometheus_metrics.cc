// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/prometheus/prometheus_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <cmath>
#include <exception>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace annulus::metrics {
namespace {

// The series of one metric: one per combination of label values, the last label running fastest.
// Only the vector of the metric's own type is used.
struct Family {
  std::vector<prometheus::Counter*> counters;
  std::vector<prometheus::Gauge*> gauges;
  std::vector<prometheus::Histogram*> histograms;
};

// Each combination of `spec`'s label values that `daemon` starts with; nothing where it does not,
// so that positions are those of the whole product.
std::vector<std::optional<prometheus::Labels>> LabelSets(const MetricSpec& spec, Daemon daemon) {
  std::vector<std::optional<prometheus::Labels>> sets = {prometheus::Labels{}};
  for (const MetricLabel& label : spec.labels) {
    std::vector<std::optional<prometheus::Labels>> longer;
    for (const auto& set : sets) {
      for (const LabelValue& value : label.values) {
        longer.push_back(Covers(value.daemons, daemon) ? set : std::nullopt);
        if (longer.back()) (*longer.back())[std::string(label.name)] = std::string(value.text);
      }
    }
    sets = std::move(longer);
  }
  return sets;
}

template <typename Metric, typename... Args>
std::vector<Metric*> AddSeries(prometheus::Family<Metric>& family, const MetricSpec& spec,
                               Daemon daemon, const Args&... args) {
  std::vector<Metric*> series;
  for (const auto& labels : LabelSets(spec, daemon)) {
    series.push_back(labels ? &family.Add(*labels, args...) : nullptr);
  }
  return series;
}

class PrometheusMetricsImpl final : public PrometheusMetrics {
 public:
  PrometheusMetricsImpl(Daemon daemon, const BuildInfo& build) {
    for (const MetricSpec& spec : MetricTable()) {
      families_.push_back(Covers(spec.daemons, daemon) ? Build(spec, daemon) : Family{});
    }
    const bool worker = daemon == Daemon::kWorker;
    BuildGaugeFamily(GetMetricSpec(MetricId::kBuildInfo))
        .Add({{"version", build.version},
              {"daemon", worker ? "worker" : "coordinator"},
              {"compute", build.compute},
              {"transport", build.transport}})
        .Set(1);
  }

  void Increment(MetricId id, Labels labels, double by) override {
    if (!std::isfinite(by) || by < 0) return Refuse("value");
    if (auto* counter = Find(&Family::counters, id, labels)) counter->Increment(by);
  }

  void Set(MetricId id, Labels labels, double value) override {
    if (!std::isfinite(value)) return Refuse("value");
    if (auto* gauge = Find(&Family::gauges, id, labels)) gauge->Set(value);
  }

  void Observe(MetricId id, Labels labels, double value) override {
    if (!std::isfinite(value)) return Refuse("value");
    if (auto* histogram = Find(&Family::histograms, id, labels)) histogram->Observe(value);
  }

  std::string Text() const override {
    return prometheus::TextSerializer().prometheus::Serializer::Serialize(registry_.Collect());
  }

 private:
  prometheus::Family<prometheus::Gauge>& BuildGaugeFamily(const MetricSpec& spec) {
    return prometheus::BuildGauge()
        .Name(std::string(spec.name))
        .Help(std::string(spec.help))
        .Register(registry_);
  }

  Family Build(const MetricSpec& spec, Daemon daemon) {
    const std::string name(spec.name);
    const std::string help(spec.help);
    Family family;
    switch (spec.type) {
      case MetricType::kCounter: {
        auto& counters = prometheus::BuildCounter().Name(name).Help(help).Register(registry_);
        family.counters = AddSeries(counters, spec, daemon);
        break;
      }
      case MetricType::kGauge:
        family.gauges = AddSeries(BuildGaugeFamily(spec), spec, daemon);
        break;
      case MetricType::kHistogram: {
        auto& histograms = prometheus::BuildHistogram().Name(name).Help(help).Register(registry_);
        family.histograms = AddSeries(histograms, spec, daemon, spec.buckets);
        break;
      }
    }
    return family;
  }

  // The series that `labels` names, or null with the mistake counted.
  template <typename Metric>
  Metric* Find(std::vector<Metric*> Family::*of_type, MetricId id, Labels labels) {
    const MetricSpec& spec = GetMetricSpec(id);
    const std::vector<Metric*>& series = families_[static_cast<size_t>(id)].*of_type;
    if (series.empty()) {
      Refuse("type");
      return nullptr;
    }
    size_t index = 0;
    auto label = spec.labels.begin();
    for (std::string_view value : labels) {
      if (label == spec.labels.end()) break;
      const std::optional<size_t> position = FindLabelValue(*label, value);
      if (!position) break;
      index = index * label->values.size() + *position;
      ++label;
    }
    if (label != spec.labels.end() || labels.size() != spec.labels.size() ||
        series[index] == nullptr) {
      Refuse("label");
      return nullptr;
    }
    return series[index];
  }

  void Refuse(std::string_view kind) {
    const std::optional<size_t> position =
        FindLabelValue(GetMetricSpec(MetricId::kMetricErrors).labels.front(), kind);
    families_[static_cast<size_t>(MetricId::kMetricErrors)].counters[*position]->Increment();
  }

  prometheus::Registry registry_;
  std::vector<Family> families_;  // by MetricId; empty where the daemon does not export it
};

}  // namespace

absl::StatusOr<std::unique_ptr<PrometheusMetrics>> PrometheusMetrics::Create(
    Daemon daemon, const BuildInfo& build) {
  if (daemon == Daemon::kBoth) {
    return absl::InvalidArgumentError("metrics belong to one daemon: worker or coordinator");
  }
  try {
    return std::make_unique<PrometheusMetricsImpl>(daemon, build);
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("cannot register the metrics: ", error.what()));
  }
}

}  // namespace annulus::metrics
