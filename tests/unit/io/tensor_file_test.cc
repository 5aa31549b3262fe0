// SPDX-License-Identifier: Apache-2.0
#include "client/io/tensor_file.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "client/io/atomic_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace annulus::io {
namespace {

using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::UnorderedElementsAre;

class TensorFileTest : public ::testing::Test {
 protected:
  std::string Text(const absl::Status& status) { return std::string(status.message()); }
  size_t FilesInFolder() {
    return static_cast<size_t>(
        std::distance(std::filesystem::directory_iterator(folder_.path()), {}));
  }

  testing_support::TempFolder folder_;
  std::vector<float> values_ = {1, 2};
  TensorView f32_{Dtype::kF32, {2}, std::as_bytes(std::span(values_))};
  TensorView bf16_{Dtype::kBf16, {4}, std::as_bytes(std::span(values_))};
};

TEST_F(TensorFileTest, AFolderHoldsOneTensorPerFile) {
  ASSERT_TRUE(WriteTensors(folder_.path(), {{"q", f32_}, {"k", f32_}}).ok());
  ASSERT_TRUE(WriteFileAtomically(folder_.File("notes.txt"), "not a tensor").ok());
  const auto file = TensorFile::Open(folder_.path());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(file->tensors(), UnorderedElementsAre(Key("q"), Key("k")));
  EXPECT_EQ(std::memcmp(file->Find("k")->bytes.data(), values_.data(), 8), 0);
}

TEST_F(TensorFileTest, ViewsOutliveAMove) {
  ASSERT_TRUE(WriteTensors(folder_.File("x.npy"), {{"x", f32_}}).ok());
  auto first = TensorFile::Open(folder_.File("x.npy"));
  ASSERT_TRUE(first.ok());
  const TensorView view = *first->Find("x");
  const TensorFile second = std::move(*first);
  EXPECT_EQ(std::memcmp(view.bytes.data(), values_.data(), 8), 0);
}

TEST_F(TensorFileTest, SaysWhatItHasWhenATensorIsMissing) {
  const std::string path = folder_.File("x.safetensors");
  ASSERT_TRUE(WriteTensors(path, {{"k", f32_}, {"v", bf16_}}).ok());
  const auto file = TensorFile::Open(path);
  const absl::Status status = file->Find("q").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Text(status), HasSubstr("no tensor 'q', it has 'k', 'v'"));
}

TEST_F(TensorFileTest, NamesTensorAndTypeThatItDoesNotRead) {
  const std::string header = R"({"q":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})";
  std::string content(8, '\0');
  content[0] = static_cast<char>(header.size());
  const std::string path = folder_.File("x.safetensors");
  ASSERT_TRUE(WriteFileAtomically(path, content + header + "12345678").ok());
  const auto file = TensorFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(file->Has("q"));
  EXPECT_THAT(Text(file->Find("q").status()),
              HasSubstr("tensor 'q' is I64, expected F32, BF16 or F16"));
}

TEST_F(TensorFileTest, RefusesWhatItCannotOpen) {
  EXPECT_EQ(TensorFile::Open(folder_.File("no.npy")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(TensorFile::Open(folder_.path()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Text(TensorFile::Open(folder_.File("x.bin")).status()), HasSubstr(".safetensors"));
  const std::string pipe = folder_.File("pipe.npy");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(Text(TensorFile::Open(pipe).status()), HasSubstr("not a regular file"));
  ASSERT_TRUE(WriteFileAtomically(folder_.File("bad.npy"), "").ok());
  EXPECT_THAT(Text(TensorFile::Open(folder_.File("bad.npy")).status()), HasSubstr("bad.npy: npy:"));
}

TEST_F(TensorFileTest, TellsBeforehandWhatCannotBeWritten) {
  const std::map<std::string, Dtype> two = {{"a", Dtype::kF32}, {"b", Dtype::kF32}};
  const std::map<std::string, Dtype> bf16 = {{"a", Dtype::kBf16}};
  EXPECT_TRUE(CheckWritable(folder_.File("x.safetensors"), bf16).ok());
  EXPECT_TRUE(CheckWritable(folder_.path(), two).ok());
  EXPECT_THAT(Text(CheckWritable(folder_.File("x.npy"), two)), HasSubstr("one array, not 2"));
  EXPECT_THAT(Text(CheckWritable(folder_.File("x.npy"), bf16)), HasSubstr("bfloat16"));
  EXPECT_THAT(Text(CheckWritable(folder_.path(), {{"../a", Dtype::kF32}})), HasSubstr("'../a'"));
  EXPECT_EQ(CheckWritable(folder_.File("no/x.safetensors"), two).code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(FilesInFolder(), 0u);  // nothing is left of the attempts
}

TEST_F(TensorFileTest, NeverReplacesWhatIsNoFile) {
  const std::string device = folder_.File("device.npy");
  ASSERT_EQ(mkfifo(device.c_str(), 0600), 0);
  EXPECT_EQ(WriteTensors(device, {{"x", f32_}}).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CheckWritable("/dev/null").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CheckWritable(folder_.path()).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(TensorFileTest, WritesThroughALink) {
  const std::string target = folder_.File("target.npy");
  const std::string link = folder_.File("link.npy");
  ASSERT_TRUE(WriteFileAtomically(target, "old").ok());
  ASSERT_EQ(symlink("target.npy", link.c_str()), 0);
  ASSERT_TRUE(WriteTensors(link, {{"x", f32_}}).ok());
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_TRUE(TensorFile::Open(target).ok());
}

TEST_F(TensorFileTest, AnUncommittedFileLeavesNothing) {
  {
    auto file = AtomicFile::Create(folder_.File("x"));
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(file->Append("half").ok());
    EXPECT_EQ(FilesInFolder(), 1u);
    EXPECT_FALSE(std::filesystem::exists(folder_.File("x")));
  }
  EXPECT_EQ(FilesInFolder(), 0u);
}

TEST_F(TensorFileTest, AFullDiskIsReportedAndLeavesNothing) {
  // A limit on the size of files stands for a full disk: write fails in the same place.
  const auto previous = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit before = {};
  getrlimit(RLIMIT_FSIZE, &before);
  const struct rlimit small = {100, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const std::vector<float> many(1000);
  const absl::Status status = WriteTensors(
      folder_.File("x.npy"), {{"x", {Dtype::kF32, {1000}, std::as_bytes(std::span(many))}}});
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, previous);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(FilesInFolder(), 0u);
}

TEST(TensorBytesTest, IsExactAtTheEdges) {
  EXPECT_EQ(*TensorBytes(std::vector<int64_t>{}, 4), 4u);
  EXPECT_EQ(*TensorBytes(std::vector<int64_t>{int64_t{1} << 60}, 4), uint64_t{1} << 62);
  EXPECT_FALSE(TensorBytes(std::vector<int64_t>{(int64_t{1} << 60) + 1}, 4).ok());
  EXPECT_EQ(*TensorBytes(std::vector<int64_t>{int64_t{1} << 62, int64_t{1} << 62, 0}, 4), 0u);
  EXPECT_FALSE(TensorBytes(std::vector<int64_t>{0, -1}, 4).ok());
}

}  // namespace
}  // namespace annulus::io
