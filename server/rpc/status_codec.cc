// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/status_codec.h"

#include <string>

#include "absl/strings/string_view.h"
#include "annulus/v1/types.pb.h"
#include "server/base/fault_info.h"
#include "server/base/rpc_settings.h"

namespace annulus::rpc {
namespace {

constexpr char kDomain[] = "annulus";
constexpr char kErrorInfoUrl[] = "type.googleapis.com/google.rpc.ErrorInfo";

std::string Bounded(absl::string_view text, size_t bytes_max) {
  constexpr size_t kCutBytes = 3;
  std::string out(text.substr(0, bytes_max));
  if (text.size() > bytes_max) out.replace(bytes_max - kCutBytes, kCutBytes, "...");
  for (char& c : out) {
    const bool printable = (c >= 0x20 && c <= 0x7e) || c == '\n' || c == '\t';
    if (!printable) c = '?';
  }
  return out;
}

std::string EncodeDetails(int code, const std::string& message, const FaultInfo& fault) {
  v1::ErrorInfo info;
  info.set_reason(Bounded(fault.reason, 63));
  info.set_domain(kDomain);
  size_t bytes_left = kMaxErrorMetadataBytes;
  for (const auto& [key, value] : fault.metadata) {
    if (key.size() + value.size() > bytes_left) continue;
    bytes_left -= key.size() + value.size();
    (*info.mutable_metadata())[Bounded(key, key.size())] = Bounded(value, value.size());
  }
  v1::StatusCompat wire;
  wire.set_code(code);
  wire.set_message(message);
  v1::AnyCompat* detail = wire.add_details();
  detail->set_type_url(kErrorInfoUrl);
  detail->set_value(info.SerializeAsString());
  return wire.SerializeAsString();
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const auto code = static_cast<grpc::StatusCode>(status.code());
  const std::string message = Bounded(status.message(), kMaxErrorMessageBytes);
  const auto fault = GetFaultInfo(status);
  if (!fault) return grpc::Status(code, message);
  return grpc::Status(code, message, EncodeDetails(code, message, *fault));
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const int number = status.error_code();
  const auto code = number >= 1 && number <= 16 ? static_cast<absl::StatusCode>(number)
                                                : absl::StatusCode::kUnknown;
  const absl::Status plain(code, status.error_message());
  v1::StatusCompat wire;
  if (status.error_details().empty() || !wire.ParseFromString(status.error_details())) return plain;
  for (const v1::AnyCompat& detail : wire.details()) {
    v1::ErrorInfo info;
    if (detail.type_url() != kErrorInfoUrl || !info.ParseFromString(detail.value())) continue;
    if (info.domain() != kDomain) continue;
    FaultInfo fault{.reason = info.reason(), .metadata = {}};
    fault.metadata.insert(info.metadata().begin(), info.metadata().end());
    return WithFaultInfo(plain, fault);
  }
  return plain;
}

}  // namespace annulus::rpc
