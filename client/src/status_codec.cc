// SPDX-License-Identifier: Apache-2.0
#include "client/src/status_codec.h"

#include "annulus/v1/types.pb.h"
#include "server/base/fault_info.h"

namespace annulus::client {
namespace {

constexpr char kErrorInfoUrl[] = "type.googleapis.com/google.rpc.ErrorInfo";

}  // namespace

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const int number = status.error_code();
  const auto code = number >= 1 && number <= 16 ? static_cast<absl::StatusCode>(number)
                                                : absl::StatusCode::kUnknown;
  absl::Status plain(code, status.error_message());
  v1::StatusCompat details;
  if (!details.ParseFromString(status.error_details())) return plain;
  for (const v1::AnyCompat& detail : details.details()) {
    v1::ErrorInfo info;
    if (detail.type_url() != kErrorInfoUrl || !info.ParseFromString(detail.value())) continue;
    if (info.domain() != "annulus") continue;
    FaultInfo fault{info.reason(), {}};
    fault.metadata.insert(info.metadata().begin(), info.metadata().end());
    return WithFaultInfo(plain, fault);
  }
  return plain;
}

}  // namespace annulus::client
