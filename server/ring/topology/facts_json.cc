// SPDX-License-Identifier: Apache-2.0
#include "server/ring/topology/facts_json.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/status_macros.h"
#include "server/ring/json_document.h"
#include "server/ring/json_object.h"
#include "server/ring/plan_limits.h"

namespace annulus::ring {
namespace {

using Json = nlohmann::ordered_json;
using nlohmann::json;

constexpr size_t kMaxValues = size_t{1} << 20;
constexpr int kMaxDepth = 8;
constexpr int kMaxOrdinal = 1023;
constexpr int64_t kMaxMegabits = 100'000'000;

// A name that goes into tables and messages: printable, not empty where it has to be there.
void ReadText(ObjectReader& reader, const char* field, bool required, std::string* out,
              absl::Status* status) {
  if (!required && !reader.Has(field)) return;
  reader.ReadString(field, kMaxFactBytes, out);
  const bool printable =
      std::all_of(out->begin(), out->end(), [](char c) { return c >= 0x20 && c <= 0x7e; });
  if (status->ok() && reader.Has(field) && (!printable || (required && out->empty()))) {
    *status = Wrong(reader.Path(field), "printable ASCII", Shown(json(*out)));
  }
}

// One of a few words, or "" where the field is not there.
std::string ReadChoice(ObjectReader& reader, const char* field,
                       const std::vector<std::string>& words, absl::Status* status) {
  std::string word;
  if (!reader.Has(field)) return word;
  reader.ReadString(field, kMaxFactBytes, &word);
  if (status->ok() && std::find(words.begin(), words.end(), word) == words.end()) {
    *status = Wrong(reader.Path(field), absl::StrCat("one of ", absl::StrJoin(words, ", ")),
                    Shown(json(word)));
  }
  return word;
}

absl::Status ReadPeer(const json& item, const std::string& path, WorkerFacts* facts) {
  GpuPeer peer;
  ObjectReader reader(item, path);
  absl::Status text;
  ReadText(reader, "bus_id", true, &peer.bus_id, &text);
  reader.ReadEnum("link", &peer.link);
  facts->peers.push_back(std::move(peer));
  ANNULUS_RETURN_IF_ERROR(reader.Finish());
  return text;
}

absl::Status ReadNic(const json& item, const std::string& path, WorkerFacts* facts) {
  Nic nic;
  ObjectReader reader(item, path);
  absl::Status text;
  ReadText(reader, "name", true, &nic.name, &text);
  reader.ReadEnum("distance", &nic.distance);
  if (reader.Has("megabits_per_second")) {
    reader.ReadInteger("megabits_per_second", 0, kMaxMegabits, &nic.megabits_per_second);
  }
  facts->nics.push_back(std::move(nic));
  ANNULUS_RETURN_IF_ERROR(reader.Finish());
  return text;
}

absl::Status ReadTransport(const json& item, const std::string& path, WorkerFacts* facts) {
  LoadedTransport loaded;
  ObjectReader reader(item, path);
  absl::Status text;
  ReadText(reader, "name", true, &loaded.name, &text);
  ReadText(reader, "version", false, &loaded.version, &text);
  const std::string memory = ReadChoice(reader, "memory", {"host", "device", "both"}, &text);
  loaded.host_memory = memory == "host" || memory == "both";
  loaded.device_memory = memory == "device" || memory == "both";
  facts->transports.push_back(std::move(loaded));
  ANNULUS_RETURN_IF_ERROR(reader.Finish());
  return text;
}

void ReadDevice(ObjectReader& device, WorkerFacts* facts, absl::Status* text) {
  device.ReadEnum("kind", &facts->device);
  if (device.Has("ordinal")) {
    device.ReadInteger("ordinal", 0, kMaxOrdinal, &facts->device_ordinal);
  }
  ReadText(device, "bus_id", false, &facts->bus_id, text);
  ReadText(device, "uuid", false, &facts->gpu_uuid, text);
  if (device.Has("numa_node")) device.ReadInteger("numa_node", 0, kMaxOrdinal, &facts->numa_node);
  ReadText(device, "ipc_scope", false, &facts->ipc_scope, text);
  facts->partitioned = ReadChoice(device, "partitioned", {"yes", "no"}, text) == "yes";
  if (!device.Has("peers")) return;
  facts->peers_known = ReadChoice(device, "other_peers", {"none", "unknown"}, text) != "unknown";
  device.ReadList("peers", kMaxGpuPeers, [&](const json& peer, const std::string& peer_path) {
    return ReadPeer(peer, peer_path, facts);
  });
}

absl::Status ReadWorker(const json& item, const std::string& path,
                        std::vector<WorkerFacts>* workers) {
  WorkerFacts facts;
  ObjectReader reader(item, path);
  absl::Status text;
  ReadText(reader, "name", true, &facts.worker, &text);
  ReadText(reader, "node", true, &facts.node, &text);
  ReadText(reader, "host_id", false, &facts.host_id, &text);
  reader.ReadObject("device", [&](ObjectReader& device) { ReadDevice(device, &facts, &text); });
  const auto each = [&facts](auto read) {
    return [&facts, read](const json& entry, const std::string& entry_path) {
      return read(entry, entry_path, &facts);
    };
  };
  if (reader.Has("nics")) reader.ReadList("nics", kMaxNics, each(ReadNic));
  if (reader.Has("transports")) {
    reader.ReadList("transports", kMaxTransports, each(ReadTransport));
  }
  workers->push_back(std::move(facts));
  ANNULUS_RETURN_IF_ERROR(reader.Finish());
  return text;
}

Json DeviceJson(const WorkerFacts& facts) {
  Json device{{"kind", Name(facts.device)}};
  if (facts.device_ordinal >= 0) device["ordinal"] = facts.device_ordinal;
  if (!facts.bus_id.empty()) device["bus_id"] = facts.bus_id;
  if (!facts.gpu_uuid.empty()) device["uuid"] = facts.gpu_uuid;
  if (facts.numa_node >= 0) device["numa_node"] = facts.numa_node;
  if (!facts.ipc_scope.empty()) device["ipc_scope"] = facts.ipc_scope;
  if (facts.partitioned) device["partitioned"] = "yes";
  if (!facts.peers_known && facts.peers.empty()) return device;
  device["peers"] = Json::array();
  for (const GpuPeer& peer : facts.peers) {
    device["peers"].push_back({{"bus_id", peer.bus_id}, {"link", Name(peer.link)}});
  }
  if (!facts.peers_known) device["other_peers"] = "unknown";
  return device;
}

}  // namespace

Json FactsToJson(const WorkerFacts& facts) {
  Json worker{{"name", facts.worker}, {"node", facts.node}};
  if (!facts.host_id.empty()) worker["host_id"] = facts.host_id;
  worker["device"] = DeviceJson(facts);
  worker["nics"] = Json::array();
  for (const Nic& nic : facts.nics) {
    Json entry{{"name", nic.name}, {"distance", Name(nic.distance)}};
    if (nic.megabits_per_second > 0) entry["megabits_per_second"] = nic.megabits_per_second;
    worker["nics"].push_back(std::move(entry));
  }
  worker["transports"] = Json::array();
  for (const LoadedTransport& loaded : facts.transports) {
    Json entry{{"name", loaded.name}};
    if (!loaded.version.empty()) entry["version"] = loaded.version;
    if (loaded.host_memory || loaded.device_memory) {
      entry["memory"] = !loaded.device_memory ? "host" : !loaded.host_memory ? "device" : "both";
    }
    worker["transports"].push_back(std::move(entry));
  }
  return worker;
}

std::string FactsToText(const std::vector<WorkerFacts>& workers) {
  Json document{{"schema", kFactsSchema}, {"workers", Json::array()}};
  for (const WorkerFacts& facts : workers) document["workers"].push_back(FactsToJson(facts));
  return document.dump(2) + "\n";
}

absl::StatusOr<std::vector<WorkerFacts>> ParseFactsJson(absl::string_view text) {
  ANNULUS_ASSIGN_OR_RETURN(const json document,
                           ParseJsonBounded(text, {kMaxFactsBytes, kMaxValues, kMaxDepth}));
  std::vector<WorkerFacts> workers;
  ObjectReader reader(document, "", "description");
  std::string schema;
  reader.ReadString("schema", 64, &schema);
  if (reader.Has("schema") && schema != kFactsSchema) {
    return Wrong("schema", absl::StrCat("\"", kFactsSchema, "\""), Shown(json(schema)));
  }
  reader.ReadList("workers", kMaxRanks, [&](const json& item, const std::string& path) {
    return ReadWorker(item, path, &workers);
  });
  ANNULUS_RETURN_IF_ERROR(reader.Finish());
  return workers;
}

}  // namespace annulus::ring
