// SPDX-License-Identifier: Apache-2.0
#include "client/io/safetensors.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace annulus::io {
namespace {

using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::UnorderedElementsAre;

std::string FileOf(std::string_view header, std::string_view data) {
  const uint64_t length = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file.append(header).append(data);
}

std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// The refusal of a header over `data_bytes` bytes of data.
std::string Refusal(std::string_view header, size_t data_bytes) {
  const std::string file = FileOf(header, std::string(data_bytes, '\0'));
  const auto parsed = ParseSafetensors(Bytes(file));
  if (parsed.ok()) return "";
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(parsed.status().message());
}

TEST(ParseSafetensors, GivesEachTensorItsBytes) {
  const std::string file = FileOf(
      R"({"__metadata__":{"format":"pt"},"k":{"dtype":"BF16","shape":[2,1],"data_offsets":[4,8]},)"
      R"("q":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}  )",
      "abcdefgh");
  const auto parsed = ParseSafetensors(Bytes(file));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_THAT(parsed->tensors, UnorderedElementsAre(Key("q"), Key("k")));
  const TensorView& k = parsed->tensors.at("k");
  EXPECT_EQ(k.dtype, Dtype::kBf16);
  EXPECT_EQ(k.shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(std::memcmp(k.bytes.data(), "efgh", 4), 0);
  EXPECT_EQ(k.bytes.size(), 4u);
  EXPECT_EQ(parsed->metadata.at("format"), "pt");
}

TEST(ParseSafetensors, TakesEmptyAndScalarTensorsAndNone) {
  const std::string file =
      FileOf(R"({"e":{"dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[0,0]},)"
             R"("s":{"dtype":"F16","shape":[],"data_offsets":[0,2]}})",
             "xy");
  const auto parsed = ParseSafetensors(Bytes(file));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->tensors.at("e").bytes.size(), 0u);
  EXPECT_EQ(parsed->tensors.at("s").bytes.size(), 2u);
  EXPECT_TRUE(ParseSafetensors(Bytes(FileOf("{}", ""))).ok());
}

TEST(ParseSafetensors, NamesTensorsOfOtherTypes) {
  const std::string file =
      FileOf(R"({"ids":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})", "12345678");
  const auto parsed = ParseSafetensors(Bytes(file));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_TRUE(parsed->tensors.empty());
  EXPECT_EQ(parsed->other_types.at("ids"), "I64");
}

TEST(ParseSafetensors, RefusesEveryTruncation) {
  const std::string file =
      FileOf(R"({"q":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "12345678");
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_FALSE(ParseSafetensors(Bytes(std::string_view(file).substr(0, size))).ok()) << size;
  }
  EXPECT_FALSE(ParseSafetensors(Bytes(file + "x")).ok());
  EXPECT_TRUE(ParseSafetensors(Bytes(file)).ok());
}

TEST(ParseSafetensors, RefusesHeaderLengthsBeyondTheFile) {
  std::string file = FileOf("{}", "");
  for (uint64_t length : {uint64_t{3}, uint64_t{200'000'000}, ~uint64_t{0}}) {
    std::memcpy(file.data(), &length, 8);
    const auto parsed = ParseSafetensors(Bytes(file));
    ASSERT_FALSE(parsed.ok());
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(std::to_string(length)));
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr("at most 2"));
  }
}

TEST(ParseSafetensors, RefusesLyingOffsets) {
  const auto tensor = [](std::string_view offsets) {
    return std::string(R"({"q":{"dtype":"F32","shape":[2],"data_offsets":)")
        .append(offsets)
        .append("}}");
  };
  EXPECT_EQ(Refusal(tensor("[0,8]"), 8), "");
  EXPECT_THAT(Refusal(tensor("[0,4]"), 4), HasSubstr("takes 8 bytes, data_offsets say 4"));
  EXPECT_THAT(Refusal(tensor("[0,8]"), 4), HasSubstr("within the 4 bytes"));
  EXPECT_THAT(Refusal(tensor("[8,0]"), 8), HasSubstr("[8, 0]"));
  EXPECT_THAT(Refusal(tensor("[4,12]"), 12), HasSubstr("starts at byte 4 of the data, expected 0"));
  EXPECT_THAT(Refusal(tensor("[0,8]"), 9), HasSubstr("end at byte 8"));
  EXPECT_THAT(Refusal(tensor("[18446744073709551608,18446744073709551615]"), 8),
              HasSubstr("within the 8 bytes"));
}

TEST(ParseSafetensors, RefusesOverlapsAndHoles) {
  const auto two = [](std::string_view second) {
    return std::string(R"({"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"b":)")
        .append(R"({"dtype":"F16","shape":[2],"data_offsets":)")
        .append(second)
        .append("}}");
  };
  EXPECT_EQ(Refusal(two("[4,8]"), 8), "");
  EXPECT_THAT(Refusal(two("[2,6]"), 8), HasSubstr("overlap"));
  EXPECT_THAT(Refusal(two("[0,4]"), 4), HasSubstr("overlap"));
  EXPECT_THAT(Refusal(two("[6,10]"), 10), HasSubstr("holes"));
}

TEST(ParseSafetensors, RefusesShapesThatOverflow) {
  EXPECT_THAT(Refusal(R"({"q":{"dtype":"F32","shape":[4294967296,4294967296],)"
                      R"("data_offsets":[0,0]}})",
                      0),
              HasSubstr("more than 2^62 bytes"));
  EXPECT_THAT(Refusal(R"({"q":{"dtype":"F32","shape":[18446744073709551615],)"
                      R"("data_offsets":[0,0]}})",
                      0),
              HasSubstr("2^63"));
}

TEST(ParseSafetensors, RefusesWhatIsNotTheGrammar) {
  const std::string fields = R"("dtype":"F32","shape":[1],"data_offsets":[0,4])";
  EXPECT_THAT(Refusal("{\"a\":{" + fields + "},\"a\":{" + fields + "}}", 8),
              HasSubstr("'a' stands there twice"));
  EXPECT_THAT(Refusal("{\"a\":{" + fields + ",\"dtype\":\"F32\"}}", 4),
              HasSubstr("'dtype' stands there twice"));
  EXPECT_THAT(Refusal("{\"a\":{" + fields + ",\"stride\":1}}", 4),
              HasSubstr("unknown key 'stride'"));
  EXPECT_THAT(Refusal(R"({"a":{"dtype":"F32","shape":[1]}})", 4), HasSubstr("one is missing"));
  EXPECT_THAT(Refusal(R"({"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}})", 4),
              HasSubstr("'F31'"));
  EXPECT_THAT(Refusal(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4),
              HasSubstr("got the number -1"));
  EXPECT_THAT(Refusal(R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", 4),
              HasSubstr("'1.5'"));
  EXPECT_THAT(Refusal(R"({"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})", 4),
              HasSubstr("got an array"));
  EXPECT_THAT(Refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}})", 4),
              HasSubstr("two offsets"));
  EXPECT_THAT(Refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4),
              HasSubstr("must be two numbers, got 1"));
  EXPECT_THAT(Refusal(R"({"a":7})", 0), HasSubstr("expected an object for 'a', got a number"));
  EXPECT_THAT(Refusal(R"({"__metadata__":{"a":1}})", 0), HasSubstr("a string for 'a'"));
  EXPECT_THAT(Refusal("{} {}", 0), HasSubstr("not JSON"));
  EXPECT_THAT(Refusal("[]", 0), HasSubstr("must start with '{'"));
}

TEST(ParseSafetensors, RefusesDeepNestingAtOnce) {
  EXPECT_THAT(Refusal("{\"a\":" + std::string(1'000'000, '['), 0), HasSubstr("got an array"));
}

class WriteSafetensorsTest : public ::testing::Test {
 protected:
  std::string Content(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

  testing_support::TempFolder folder_;
  std::vector<float> floats_ = {1, 2, 3, 4, 5, 6};
  std::vector<uint16_t> halves_ = {7, 8, 9};
  TensorView q_{Dtype::kF32, {2, 3}, std::as_bytes(std::span(floats_))};
  TensorView k_{Dtype::kBf16, {3}, std::as_bytes(std::span(halves_))};
};

TEST_F(WriteSafetensorsTest, ReadsBackWhatItWrote) {
  const std::string path = folder_.File("x.safetensors");
  ASSERT_TRUE(WriteSafetensors(path, {{"a", k_}, {"q \"\n", q_}}, {{"by", "test"}}).ok());
  const auto file = TensorFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto q = file->Find("q \"\n");
  ASSERT_TRUE(q.ok()) << q.status();
  EXPECT_EQ(q->shape, q_.shape);
  EXPECT_EQ(std::memcmp(q->bytes.data(), floats_.data(), q->bytes.size()), 0);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(q->bytes.data()) % 4, 0u);  // behind an odd BF16 tensor
  EXPECT_EQ(std::memcmp(file->Find("a")->bytes.data(), halves_.data(), 6), 0);
  const std::string content = Content(path);
  EXPECT_EQ(ParseSafetensors(Bytes(content))->metadata.at("by"), "test");
}

TEST_F(WriteSafetensorsTest, LeavesAnOlderFileWhenItFails) {
  const std::string path = folder_.File("x.safetensors");
  ASSERT_TRUE(WriteSafetensors(path, {{"k", k_}}).ok());
  const std::string before = Content(path);
  k_.shape = {4};
  EXPECT_EQ(WriteSafetensors(path, {{"k", k_}}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Content(path), before);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.path()), {}), 1);
}

TEST_F(WriteSafetensorsTest, RefusesTheReservedName) {
  EXPECT_EQ(WriteSafetensors(folder_.File("x.safetensors"), {{"__metadata__", k_}}).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace annulus::io
