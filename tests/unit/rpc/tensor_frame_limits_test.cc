// SPDX-License-Identifier: Apache-2.0
// What a tensor frame may not be.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "server/base/tensor_frame.h"

namespace annulus {
namespace {

using ::testing::HasSubstr;

void ExpectRefused(const std::string& bytes, const std::string& why) {
  const std::string_view slices[] = {bytes};
  const auto view = ParseTensorFrame(slices);
  EXPECT_EQ(view.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(view.status().message()), HasSubstr(why));
}

TEST(TensorFrameLimits, EmptyFrameIsAFrame) {
  const auto view = ParseTensorFrame({});
  ASSERT_TRUE(view.ok());
  EXPECT_EQ(view->header, TensorFrameHeader());
  EXPECT_EQ(view->data_bytes, 0u);
}

TEST(TensorFrameLimits, DataIsTheLastField) {
  ExpectRefused(EncodeTensorFrameHeader({}, 2) + "ab" + std::string("\x18\x01", 2), "are left");
}

TEST(TensorFrameLimits, TruncatedDataIsRefused) {
  ExpectRefused(EncodeTensorFrameHeader({}, 3) + "ab", "are left");
}

TEST(TensorFrameLimits, LargeDataIsRefused) {
  const std::string data(kMaxTensorFrameBytes + 1, 'x');
  ExpectRefused(EncodeTensorFrameHeader({}, data.size()) + data, "at most");
}

TEST(TensorFrameLimits, LongIdsAreRefused) {
  ExpectRefused(EncodeTensorFrameHeader({std::string(65, 's'), "t", 0}, 0), "session_id");
  ExpectRefused(EncodeTensorFrameHeader({"s", std::string(65, 't'), 0}, 0), "tensor_id");
}

TEST(TensorFrameLimits, EndlessNumbersAreRefused) {
  ExpectRefused(std::string("\x18") + std::string(11, '\xff'), "64 bits");
  ExpectRefused(std::string("\x18") + std::string(9, '\xff') + "\x02", "64 bits");
  ExpectRefused("\x18\xff", "ends within");
}

TEST(TensorFrameLimits, GroupsAndFieldZeroAreRefused) {
  ExpectRefused("\x23", "wire type 3");
  ExpectRefused(std::string("\x00\x01", 2), "field number");
}

TEST(TensorFrameLimits, UnknownFieldsAreSkipped) {
  // Field 4, one of each kind, then an offset.
  const std::string bytes = std::string("\x20\x05", 2) + std::string("\x21") + "12345678" +
                            std::string("\x22\x03", 2) + "abc" + std::string("\x25") + "1234" +
                            std::string("\x18\x09", 2);
  const std::string_view slices[] = {bytes};
  const auto view = ParseTensorFrame(slices);
  ASSERT_TRUE(view.ok()) << view.status();
  EXPECT_EQ(view->header.offset, 9u);
  ExpectRefused(std::string("\x22\x7f", 2) + "abc", "unknown field");
}

}  // namespace
}  // namespace annulus
