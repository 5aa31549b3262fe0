// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/status_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "annulus/v1/types.pb.h"
#include "server/base/fault_info.h"
#include "server/base/rpc_settings.h"

namespace annulus::rpc {
namespace {

TEST(StatusCodec, EveryCodeSurvivesTheWire) {
  for (int code = 0; code <= 16; ++code) {
    const absl::Status in(static_cast<absl::StatusCode>(code), code == 0 ? "" : "why");
    const grpc::Status wire = ToGrpcStatus(in);
    EXPECT_EQ(static_cast<int>(wire.error_code()), code);
    EXPECT_EQ(FromGrpcStatus(wire), in);
  }
}

TEST(StatusCodec, FaultInfoSurvivesTheWire) {
  const FaultInfo fault{.reason = "WORKER_LOST", .metadata = {{"rank", "2"}, {"worker", "w-2"}}};
  const grpc::Status wire =
      ToGrpcStatus(WithFaultInfo(absl::UnavailableError("rank 2 is lost"), fault));
  const absl::Status back = FromGrpcStatus(wire);
  EXPECT_EQ(back.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(back.message(), "rank 2 is lost");
  const auto info = GetFaultInfo(back);
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(info->reason, "WORKER_LOST");
  EXPECT_EQ(info->metadata, fault.metadata);
}

TEST(StatusCodec, DetailsAreWhatTheStandardErrorModelExpects) {
  const grpc::Status wire =
      ToGrpcStatus(WithFaultInfo(absl::AbortedError("x"), FaultInfo{"REQUEST_ID_REUSED", {}}));
  v1::StatusCompat status;
  ASSERT_TRUE(status.ParseFromString(wire.error_details()));
  EXPECT_EQ(status.code(), 10);
  ASSERT_EQ(status.details_size(), 1);
  EXPECT_EQ(status.details(0).type_url(), "type.googleapis.com/google.rpc.ErrorInfo");
  v1::ErrorInfo info;
  ASSERT_TRUE(info.ParseFromString(status.details(0).value()));
  EXPECT_EQ(info.domain(), "annulus");
}

TEST(StatusCodec, LongTextsAreCutToFitIntoTrailers) {
  FaultInfo fault{.reason = "R", .metadata = {{"small", "kept"}}};
  fault.metadata["big"] = std::string(100000, 'x');
  const grpc::Status wire =
      ToGrpcStatus(WithFaultInfo(absl::InternalError(std::string(100000, 'y')), fault));
  EXPECT_EQ(wire.error_message().size(), static_cast<size_t>(kMaxErrorMessageBytes));
  EXPECT_TRUE(wire.error_message().ends_with("..."));
  EXPECT_LT(wire.error_message().size() + wire.error_details().size() * 4 / 3, 8192u);
  const auto info = GetFaultInfo(FromGrpcStatus(wire));
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(info->metadata.count("big"), 0u);
  EXPECT_EQ(info->metadata.at("small"), "kept");
}

TEST(StatusCodec, NonAsciiNeverBreaksTheDetails) {
  const grpc::Status wire = ToGrpcStatus(
      WithFaultInfo(absl::InternalError("bad \xff\xfe byte"), FaultInfo{"R", {{"k", "\x80v"}}}));
  const absl::Status back = FromGrpcStatus(wire);
  EXPECT_EQ(back.message(), "bad ?? byte");
  ASSERT_TRUE(GetFaultInfo(back).has_value());
  EXPECT_EQ(GetFaultInfo(back)->metadata.at("k"), "?v");
}

TEST(StatusCodec, ForeignOrBrokenDetailsAreIgnored) {
  v1::ErrorInfo foreign;
  foreign.set_domain("example.com");
  foreign.set_reason("OTHER");
  v1::StatusCompat status;
  auto* detail = status.add_details();
  detail->set_type_url("type.googleapis.com/google.rpc.ErrorInfo");
  detail->set_value(foreign.SerializeAsString());
  for (const std::string& details : {status.SerializeAsString(), std::string("\xff\xff garbage")}) {
    const absl::Status back =
        FromGrpcStatus(grpc::Status(grpc::StatusCode::ABORTED, "gone", details));
    EXPECT_EQ(back, absl::AbortedError("gone"));
  }
  EXPECT_EQ(FromGrpcStatus(grpc::Status(static_cast<grpc::StatusCode>(77), "odd")).code(),
            absl::StatusCode::kUnknown);
}

}  // namespace
}  // namespace annulus::rpc
