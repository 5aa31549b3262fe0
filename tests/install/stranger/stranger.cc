// SPDX-License-Identifier: Apache-2.0
// What a user's first program looks like: only installed headers, one library. Nobody listens on
// port 1, so the call ends in time with an error that says so.
#include <annulus/client.h>
#include <annulus/rank_client.h>

#include <cstdio>

int main() {
  const annulus::client::TensorView view{nullptr, annulus::client::DataType::kBf16, 2, 100, 8, 64};
  if (view.bytes() != 2u * 100 * 8 * 64 * 2) return 1;
  const auto client = annulus::client::Client::Connect(
      {.coordinator = "127.0.0.1:1", .connect_timeout = absl::Milliseconds(300)});
  std::printf("%s\n", client.status().ToString().c_str());
  const auto rank =
      annulus::client::RankClient::Attach({.coordinator = "127.0.0.1:1",
                                           .worker = "worker-0",
                                           .connect_timeout = absl::Milliseconds(300)});
  std::printf("%s\n", rank.status().ToString().c_str());
  const auto detail = annulus::client::GetFaultDetail(client.status());
  const bool named = detail && detail->reason == "COORDINATOR_UNREACHABLE";
  return absl::IsUnavailable(client.status()) && absl::IsUnavailable(rank.status()) && named ? 0
                                                                                             : 1;
}
