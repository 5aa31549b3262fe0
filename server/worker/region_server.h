// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "server/worker/engine.h"

namespace annulus::worker {

struct RegionServerOptions {
  // Path of the UNIX socket. "@name": an abstract socket, which lives in the network namespace and
  // leaves no file. "": an abstract one with a random name. A client in another network namespace
  // needs a path that both see.
  std::string path;
  // The only user whose connections are served.
  std::optional<uid_t> allowed_uid;  // default: the effective user of this process
  int max_connections = 256;
  int max_regions_per_connection = 4096;
};

// Takes memfd regions from clients on the same host (server/base/region_protocol.h) and hands them
// to the engine. A region added over a connection is removed when that connection ends; the engine
// itself removes those of a session that ends.
//
// One thread of its own serves all connections and never blocks on a peer: a peer that does not
// read its replies is dropped. Every descriptor received is either handed to the engine or closed.
//
//   ANNULUS_ASSIGN_OR_RETURN(auto regions, RegionServer::Start(options, engine));
//   regions->path();  // what SessionOpened.region_socket says
class RegionServer {
 public:
  // INVALID_ARGUMENT: the path is too long. ALREADY_EXISTS: another process serves it.
  // `engine` must outlive the server.
  static absl::StatusOr<std::unique_ptr<RegionServer>> Start(const RegionServerOptions& options,
                                                             Engine* engine);
  // Closes every connection, removes their regions and the socket.
  virtual ~RegionServer() = default;

  virtual const std::string& path() const = 0;
};

}  // namespace annulus::worker
