// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/transport/transport_plugin.h"

namespace annulus::transport {

// One rank of a group of two, in a process of its own: handles come and go over its standard input
// and output, as through a coordinator.
class NcclRank {
 public:
  // Loads the plugin: ANNULUS_NCCL_PLUGIN, or ../lib/libannulus-transport-nccl.so beside the folder
  // of this program. Ends the program with words when that fails.
  explicit NcclRank(int32_t rank);
  ~NcclRank() { Close(); }
  NcclRank(const NcclRank&) = delete;
  NcclRank& operator=(const NcclRank&) = delete;

  void Open(uint64_t epoch);  // and exchanges the handles
  annulusTransportStatus Connect(double seconds);
  void Close();

  int32_t rank() const { return rank_; }
  int32_t peer() const { return 1 - rank_; }
  const annulusTransportV1& table() const { return *table_; }
  annulusTransport* transport() const { return transport_; }
  std::string LastError() const;

  annulusRequest* Send(uint64_t tag, const std::vector<annulusSegment>& segments,
                       double seconds = 60) const;
  annulusRequest* Receive(uint64_t tag, const std::vector<annulusSegment>& segments,
                          double seconds = 60) const;
  annulusCompletion Finish(annulusRequest* request) const;

 private:
  const int32_t rank_;
  const annulusTransportV1* table_ = nullptr;
  annulusTransport* transport_ = nullptr;
  annulusTransportHandle handles_[2] = {};
};

// Bytes on the device while it lives. Ends the program with CUDA's words when a call fails.
class DeviceBytes {
 public:
  explicit DeviceBytes(const std::vector<uint8_t>& host);
  ~DeviceBytes();
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;

  annulusSegment Part(size_t at, size_t bytes) const;
  std::vector<annulusSegment> Whole() const { return {Part(0, bytes_)}; }
  std::vector<uint8_t> Download() const;

 private:
  const size_t bytes_;
  void* data_ = nullptr;
};

}  // namespace annulus::transport
