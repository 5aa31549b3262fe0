// SPDX-License-Identifier: Apache-2.0
#include "tests/gpu/nccl_rank.h"

#include <cuda_runtime.h>
#include <dlfcn.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

namespace annulus::transport {
namespace {

std::string PluginPath() {
  if (const char* path = std::getenv("ANNULUS_NCCL_PLUGIN")) return path;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe");
  return program.parent_path().parent_path() / "lib" / "libannulus-transport-nccl.so";
}

void Check(bool good, const std::string& what) {
  if (good) return;
  std::fprintf(stderr, "%s\n", what.c_str());
  std::_Exit(9);
}

void CheckCuda(cudaError_t error, const char* call) {
  Check(error == cudaSuccess, std::string(call) + ": " + cudaGetErrorString(error));
}

int64_t In(double seconds) {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec + static_cast<int64_t>(seconds * 1e9);
}

}  // namespace

NcclRank::NcclRank(int32_t rank) : rank_(rank) {
  void* const library = ::dlopen(PluginPath().c_str(), RTLD_NOW | RTLD_LOCAL);
  Check(library != nullptr, library == nullptr ? ::dlerror() : "");
  table_ = static_cast<const annulusTransportV1*>(::dlsym(library, ANNULUS_TRANSPORT_V1_SYMBOL));
  Check(table_ != nullptr, "the plugin has no " ANNULUS_TRANSPORT_V1_SYMBOL);
  CheckCuda(cudaSetDevice(0), "cudaSetDevice");
}

void NcclRank::Open(uint64_t epoch) {
  annulusTransportOptions options{};
  options.struct_size = sizeof(options);
  options.group = "gpu";
  options.epoch = epoch;
  options.rank = rank_;
  options.size = 2;
  options.host_id = "host";
  options.bind_address = "127.0.0.1";
  options.peer_timeout_seconds = 1;
  annulusTransportHandle own{};
  Check(table_->open(&options, &transport_, &own) == ANNULUS_TRANSPORT_OK, "open failed");
  Check(::write(STDOUT_FILENO, &own, sizeof(own)) == sizeof(own), "the handle was not taken");
  auto* at = reinterpret_cast<char*>(handles_);
  for (size_t left = sizeof(handles_); left > 0;) {
    const ssize_t got = ::read(STDIN_FILENO, at, left);
    Check(got > 0, "no handles came");
    at += got;
    left -= static_cast<size_t>(got);
  }
}

annulusTransportStatus NcclRank::Connect(double seconds) {
  return table_->connect(transport_, handles_, In(seconds));
}

void NcclRank::Close() {
  if (transport_ != nullptr) table_->close(transport_);
  transport_ = nullptr;
}

std::string NcclRank::LastError() const {
  std::array<char, 1024> text{};
  int32_t suspect = -1;
  table_->last_error(transport_, text.data(), text.size(), &suspect);
  return std::string(text.data()) + " [suspect " + std::to_string(suspect) + "]";
}

annulusRequest* NcclRank::Send(uint64_t tag, const std::vector<annulusSegment>& segments,
                               double seconds) const {
  annulusRequest* request = nullptr;
  Check(table_->isend(transport_, peer(), tag, segments.data(), segments.size(), In(seconds),
                      &request) == ANNULUS_TRANSPORT_OK,
        "isend failed: " + LastError());
  return request;
}

annulusRequest* NcclRank::Receive(uint64_t tag, const std::vector<annulusSegment>& segments,
                                  double seconds) const {
  annulusRequest* request = nullptr;
  Check(table_->irecv(transport_, peer(), tag, segments.data(), segments.size(), In(seconds),
                      &request) == ANNULUS_TRANSPORT_OK,
        "irecv failed: " + LastError());
  return request;
}

annulusCompletion NcclRank::Finish(annulusRequest* request) const {
  annulusCompletion end{};
  table_->wait(&request, 1, &end);
  table_->release(request);
  return end;
}

DeviceBytes::DeviceBytes(const std::vector<uint8_t>& host) : bytes_(host.size()) {
  CheckCuda(cudaMalloc(&data_, std::max<size_t>(1, bytes_)), "cudaMalloc");
  CheckCuda(cudaMemcpy(data_, host.data(), bytes_, cudaMemcpyHostToDevice), "cudaMemcpy");
}

DeviceBytes::~DeviceBytes() { cudaFree(data_); }

annulusSegment DeviceBytes::Part(size_t at, size_t bytes) const {
  return {static_cast<uint8_t*>(data_) + at, bytes};
}

std::vector<uint8_t> DeviceBytes::Download() const {
  std::vector<uint8_t> host(bytes_);
  CheckCuda(cudaMemcpy(host.data(), data_, bytes_, cudaMemcpyDeviceToHost), "cudaMemcpy");
  return host;
}

}  // namespace annulus::transport
