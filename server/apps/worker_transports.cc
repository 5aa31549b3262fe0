// SPDX-License-Identifier: Apache-2.0
#include "server/apps/worker_transports.h"

#include <spdlog/spdlog.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "server/base/plugin_library.h"
#include "server/base/status_macros.h"

namespace annulus::apps {
namespace {

absl::StatusOr<const annulusTransportV1*> Load(const std::string& plugin) {
  // A library stays loaded when this name for it goes.
  ANNULUS_ASSIGN_OR_RETURN(const PluginLibrary library, PluginLibrary::Load("transport", plugin));
  return library.Find<annulusTransportV1>(ANNULUS_TRANSPORT_V1_SYMBOL);
}

}  // namespace

absl::StatusOr<std::vector<const annulusTransportV1*>> LoadTransports(
    const std::vector<WorkerFlags::TransportFlag>& flags) {
  std::vector<const annulusTransportV1*> tables;
  for (const WorkerFlags::TransportFlag& flag : flags) {
    const auto table = Load(flag.plugin);
    if (!table.ok()) {
      if (!flag.optional) return table.status();
      spdlog::info("transport {} left out: {}", flag.plugin, table.status().ToString());
      continue;
    }
    for (const annulusTransportV1* known : tables) {
      if (std::string((*table)->name) == known->name) {
        return absl::InvalidArgumentError(absl::StrCat(
            "--transport-plugin: expected each transport once, got two named ", known->name));
      }
    }
    tables.push_back(*table);
  }
  if (tables.empty()) return absl::NotFoundError("none of the transport plugins can be loaded");
  return tables;
}

}  // namespace annulus::apps
