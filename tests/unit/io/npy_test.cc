// SPDX-License-Identifier: Apache-2.0
#include "client/io/npy.h"

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "client/io/tensor_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace annulus::io {
namespace {

using ::testing::HasSubstr;
using std::string_literals::operator""s;

std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string FileOf(const std::string& header, size_t data_bytes, int version = 1) {
  std::string file = "\x93NUMPY"s;
  file += static_cast<char>(version);
  file += '\0';
  file += static_cast<char>(header.size() & 0xff);
  file += static_cast<char>(header.size() >> 8);
  if (version == 2) file += "\0\0"s;
  return file + header + std::string(data_bytes, '\1');
}

std::string HeaderOf(const std::string& descr, const std::string& shape,
                     const std::string& fortran = "False") {
  return "{'descr': '" + descr + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }\n";
}

std::string Refusal(const std::string& file) {
  const auto parsed = ParseNpy(Bytes(file));
  if (parsed.ok()) return "";
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(parsed.status().message());
}

TEST(ParseNpy, TakesBothVersionsAndTypes) {
  const std::string first = FileOf(HeaderOf("<f4", "(2, 3)"), 24);
  const auto array = ParseNpy(Bytes(first));
  ASSERT_TRUE(array.ok()) << array.status();
  EXPECT_EQ(array->dtype, Dtype::kF32);
  EXPECT_EQ(array->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(array->bytes.size(), 24u);

  const std::string second = FileOf(HeaderOf("<f2", "(5,)"), 10, 2);
  const auto halves = ParseNpy(Bytes(second));
  ASSERT_TRUE(halves.ok()) << halves.status();
  EXPECT_EQ(halves->dtype, Dtype::kF16);
  EXPECT_EQ(halves->shape, (std::vector<int64_t>{5}));
  EXPECT_EQ(Refusal(FileOf(HeaderOf("<f4", "()"), 4)), "");
  EXPECT_EQ(Refusal(FileOf(HeaderOf("<f4", "(0, 7)"), 0)), "");
}

TEST(ParseNpy, SaysWhyItRefusesAType) {
  EXPECT_THAT(Refusal(FileOf(HeaderOf("|V2", "(2,)"), 4)), HasSubstr("no bfloat16"));
  EXPECT_THAT(Refusal(FileOf(HeaderOf("<V2", "(2,)"), 4)), HasSubstr(".safetensors"));
  EXPECT_THAT(Refusal(FileOf(HeaderOf("<f8", "(2,)"), 16)), HasSubstr("'<f8', expected '<f4'"));
  EXPECT_THAT(Refusal(FileOf(HeaderOf(">f4", "(2,)"), 8)), HasSubstr("'>f4'"));
  EXPECT_THAT(Refusal(FileOf(HeaderOf("<f4", "(2, 1)", "True"), 8)), HasSubstr("Fortran order"));
}

TEST(ParseNpy, RefusesEveryTruncationAndAnythingBehind) {
  for (int version : {1, 2}) {
    const std::string file = FileOf(HeaderOf("<f4", "(2,)"), 8, version);
    for (size_t size = 0; size < file.size(); ++size) {
      EXPECT_NE(Refusal(file.substr(0, size)), "") << size;
    }
    EXPECT_THAT(Refusal(file + "x"), HasSubstr("takes 8 bytes, the file has 9"));
  }
}

TEST(ParseNpy, RefusesWhatIsNotTheGrammar) {
  EXPECT_THAT(Refusal("PK\3\4 and more of a zip file"), HasSubstr("does not start as"));
  EXPECT_THAT(Refusal(FileOf(HeaderOf("<f4", "(2,)"), 8, 3)), HasSubstr("version 3"));
  EXPECT_THAT(Refusal(FileOf("{'descr': '<f4', 'descr': '<f4', }", 8)), HasSubstr("twice"));
  EXPECT_THAT(Refusal(FileOf("{'descr': '<f4', 'fortran_order': False}", 8)),
              HasSubstr("one is missing"));
  EXPECT_THAT(Refusal(FileOf(HeaderOf("<f4", "(2, -3)"), 8)), HasSubstr("expected an extent"));
  EXPECT_THAT(Refusal(FileOf(HeaderOf("<f4", "(99999999999999999999,)"), 8)),
              HasSubstr("below 2^63"));
  EXPECT_THAT(Refusal(FileOf(HeaderOf("<f4", "(4294967296, 4294967296)"), 8)), HasSubstr("2^62"));
  EXPECT_THAT(Refusal(FileOf(HeaderOf("<f4", "(2"), 8)), HasSubstr("expected"));
  EXPECT_THAT(Refusal(FileOf(HeaderOf("<f4", "(2,)") + "x", 8)), HasSubstr("end of the header"));
  EXPECT_THAT(Refusal(FileOf("{'descr': [('a', '<f4')], }", 8)), HasSubstr("a string"));
}

TEST(WriteNpy, WritesWhatNumPyWrites) {
  const testing_support::TempFolder folder;
  const std::string path = folder.File("x.npy");
  const std::vector<float> values = {1, 2, 3};
  ASSERT_TRUE(WriteNpy(path, {Dtype::kF32, {3}, std::as_bytes(std::span(values))}).ok());
  const auto file = TensorFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto array = file->Find("x");
  ASSERT_TRUE(array.ok()) << array.status();
  ASSERT_EQ(array->bytes.size(), 12u);
  EXPECT_EQ(std::memcmp(array->bytes.data(), values.data(), 12), 0);

  // numpy.save(path, numpy.array([1, 2, 3], 'float32')), byte for byte.
  const std::string text = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }";
  const std::string header =
      "\x93NUMPY\x01\x00\x76\x00"s + text + std::string(117 - text.size(), ' ') + "\n";
  EXPECT_EQ(std::memcmp(array->bytes.data() - header.size(), header.data(), header.size()), 0);
}

TEST(WriteNpy, RefusesBfloat16AndWrongSizes) {
  const testing_support::TempFolder folder;
  const std::vector<uint16_t> values = {1, 2};
  const auto bytes = std::as_bytes(std::span(values));
  EXPECT_THAT(std::string(WriteNpy(folder.File("x.npy"), {Dtype::kBf16, {2}, bytes}).message()),
              HasSubstr("no bfloat16"));
  EXPECT_FALSE(WriteNpy(folder.File("x.npy"), {Dtype::kF16, {3}, bytes}).ok());
}

}  // namespace
}  // namespace annulus::io
