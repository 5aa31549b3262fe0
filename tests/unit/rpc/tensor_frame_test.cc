// SPDX-License-Identifier: Apache-2.0
// The hand-written tensor frames against the generated code, which is their definition.
#include "server/base/tensor_frame.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "annulus/v1/worker.pb.h"

namespace annulus {
namespace {

v1::TensorFrame RandomFrame(std::mt19937_64& random) {
  v1::TensorFrame frame;
  if (random() % 2 == 0) frame.set_session_id(std::string(random() % 65, 's'));
  if (random() % 2 == 0) frame.set_tensor_id(std::string(random() % 65, 't'));
  // Every length of varint.
  frame.set_offset(random() >> (random() % 64));
  std::string data(random() % 300, '\0');
  for (char& c : data) c = static_cast<char>(random());
  frame.set_data(data);
  return frame;
}

std::string Join(const TensorFrameView& view) {
  std::string data;
  for (const std::string_view piece : view.data) data.append(piece);
  return data;
}

void ExpectSame(const TensorFrameView& view, const v1::TensorFrame& frame) {
  EXPECT_EQ(view.header.session_id, frame.session_id());
  EXPECT_EQ(view.header.tensor_id, frame.tensor_id());
  EXPECT_EQ(view.header.offset, frame.offset());
  EXPECT_EQ(view.data_bytes, frame.data().size());
  EXPECT_EQ(Join(view), frame.data());
}

TEST(TensorFrame, WritesWhatTheGeneratedCodeWrites) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 500; ++i) {
    const v1::TensorFrame frame = RandomFrame(random);
    const std::string header = EncodeTensorFrameHeader(
        {frame.session_id(), frame.tensor_id(), frame.offset()}, frame.data().size());
    EXPECT_EQ(header + frame.data(), frame.SerializeAsString());
  }
}

TEST(TensorFrame, ReadsWhatTheGeneratedCodeWritesHoweverItIsCut) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 500; ++i) {
    const v1::TensorFrame frame = RandomFrame(random);
    const std::string bytes = frame.SerializeAsString();
    std::vector<std::string_view> slices;
    for (size_t at = 0; at < bytes.size();) {
      const size_t size = std::min<size_t>(random() % 20, bytes.size() - at);  // 0: an empty slice
      slices.emplace_back(bytes.data() + at, size);
      at += size;
    }
    const auto view = ParseTensorFrame(slices);
    ASSERT_TRUE(view.ok()) << view.status();
    ExpectSame(*view, frame);
  }
}

TEST(TensorFrame, DamagedFramesAreRefusedOrMeanWhatProtobufReads) {
  std::mt19937_64 random(3);
  int accepted = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string bytes = RandomFrame(random).SerializeAsString();
    if (bytes.empty()) continue;
    for (uint64_t n = random() % 3; n > 0; --n) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    if (random() % 4 == 0) bytes.resize(random() % bytes.size());
    const std::string_view slices[] = {bytes};
    const auto view = ParseTensorFrame(slices);
    if (!view.ok()) {
      EXPECT_EQ(view.status().code(), absl::StatusCode::kInvalidArgument);
      continue;
    }
    v1::TensorFrame frame;
    // Names that are not UTF-8 are refused by protobuf; here the caller checks them.
    if (!frame.ParseFromString(bytes)) continue;
    ExpectSame(*view, frame);
    ++accepted;
  }
  EXPECT_GT(accepted, 1000);
}

}  // namespace
}  // namespace annulus
