// SPDX-License-Identifier: Apache-2.0
#include "client/cli/device_memory/device_ring.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/src/request_id.h"
#include "client/src/verdict.h"
#include "server/base/status_macros.h"

namespace annulus::cli {

absl::StatusOr<std::unique_ptr<DeviceRing>> DeviceRing::Create(const DeviceRingOptions& options,
                                                               const Problem& problem,
                                                               bool backward) {
  std::unique_ptr<DeviceRing> ring(new DeviceRing(options, problem));
  ANNULUS_RETURN_IF_ERROR(ring->Reattach());
  for (size_t i = 0; i < ring->ranks_.size(); ++i) {
    Rank& rank = ring->ranks_[i];
    ANNULUS_ASSIGN_OR_RETURN(
        client::RankShard rows,
        rank.client->Shard(options.layout, problem.query_length, problem.kv_length));
    ANNULUS_ASSIGN_OR_RETURN(
        rank.shard, DeviceShard::Create(options.devices[i], problem, backward, std::move(rows)));
    ANNULUS_ASSIGN_OR_RETURN(rank.region, rank.shard->LeaseTo(rank.client.get()));
  }
  return ring;
}

absl::Status DeviceRing::Reattach() {
  // Collectives are counted from 0 again: another job, as far as the workers are concerned.
  const std::string job = absl::StrCat(absl::Hex(client::RandomBits(), absl::kZeroPad16));
  for (size_t i = 0; i < ranks_.size(); ++i) {
    Rank& rank = ranks_[i];
    rank.region = {};
    client::RankClientOptions options;
    options.coordinator = options_.coordinator;
    options.group = options_.group;
    options.worker = options_.workers[i];
    options.job_id = job;
    options.name = absl::StrCat(options_.client_name, ", rank ", i);
    options.connect_timeout = std::min(options.connect_timeout, options_.timeout);
    options.group_timeout = options_.timeout;
    ANNULUS_ASSIGN_OR_RETURN(rank.client, client::RankClient::Attach(options));
    if (rank.client->rank() != static_cast<int>(i)) {
      return absl::FailedPreconditionError(absl::StrCat("worker ", options_.workers[i], " is rank ",
                                                        rank.client->rank(),
                                                        " of the group, expected ", i));
    }
    if (rank.shard == nullptr) continue;
    ANNULUS_ASSIGN_OR_RETURN(rank.region, rank.shard->LeaseTo(rank.client.get()));
  }
  return absl::OkStatus();
}

absl::Status DeviceRing::Upload(const ProblemTensors& whole) {
  for (const Rank& rank : ranks_) ANNULUS_RETURN_IF_ERROR(rank.shard->Upload(whole));
  return absl::OkStatus();
}

absl::Status DeviceRing::Download(const ProblemTensors& whole) {
  for (const Rank& rank : ranks_) ANNULUS_RETURN_IF_ERROR(rank.shard->Download(whole));
  return absl::OkStatus();
}

absl::StatusOr<client::AttendReport> DeviceRing::Attend(const client::AttendOptions& options) {
  return OnEachRank([&](Rank* rank) {
    const DeviceShard::Views& t = rank->shard->views();
    return rank->client->Attend(
        {problem_.query_length, problem_.kv_length, t.q, t.k, t.v, t.o, t.lse}, options);
  });
}

absl::StatusOr<client::AttendReport> DeviceRing::AttendBackward(
    const std::string& forward_request_id, const client::AttendOptions& options) {
  return OnEachRank([&](Rank* rank) {
    const DeviceShard::Views& t = rank->shard->views();
    return rank->client->AttendBackward({problem_.query_length, problem_.kv_length, t.q, t.k, t.v,
                                         t.o, t.lse, t.d_o, t.dq, t.dk, t.dv, forward_request_id},
                                        options);
  });
}

absl::Status DeviceRing::ReleaseRetained(const std::string& request_id) {
  for (const Rank& rank : ranks_) {
    ANNULUS_RETURN_IF_ERROR(rank.client->ReleaseRetained(request_id));
  }
  return absl::OkStatus();
}

absl::StatusOr<client::AttendReport> DeviceRing::OnEachRank(const Call& call) {
  std::vector<absl::StatusOr<client::AttendReport>> answers(ranks_.size());
  std::vector<std::thread> threads;
  for (size_t i = 1; i < ranks_.size(); ++i) {
    threads.emplace_back([&, i] { answers[i] = call(&ranks_[i]); });
  }
  answers[0] = call(&ranks_[0]);
  for (std::thread& thread : threads) thread.join();
  std::vector<client::RankStatus> outcomes;
  for (size_t i = 0; i < answers.size(); ++i) {
    outcomes.push_back({static_cast<int>(i), options_.workers[i], answers[i].status()});
  }
  ANNULUS_RETURN_IF_ERROR(client::ChooseVerdict(outcomes));
  client::AttendReport whole = *std::move(answers[0]);
  for (size_t i = 1; i < answers.size(); ++i) {
    whole.wall_seconds = std::max(whole.wall_seconds, answers[i]->wall_seconds);
    for (client::RankReport& rank : answers[i]->ranks) whole.ranks.push_back(std::move(rank));
  }
  return whole;
}

}  // namespace annulus::cli
