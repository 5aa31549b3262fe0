// SPDX-License-Identifier: Apache-2.0
#include "server/transport/host/shm_ring.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "gtest/gtest.h"

namespace annulus::transport {
namespace {

TEST(ShmRingTest, WhatOneSidePutsOutTheOtherFindsIn) {
  UniqueFd fd;
  const std::unique_ptr<ShmRing> creator = ShmRing::Create(&fd);
  ASSERT_NE(creator, nullptr);
  const std::unique_ptr<ShmRing> receiver = ShmRing::Adopt(fd);
  ASSERT_NE(receiver, nullptr);
  for (size_t slot = 0; slot < kRingSlots; ++slot) {
    creator->out(slot)[0] = static_cast<uint8_t>(10 + slot);
    creator->out(slot)[kChunkBytes - 1] = static_cast<uint8_t>(20 + slot);
    receiver->out(slot)[0] = static_cast<uint8_t>(30 + slot);
  }
  for (size_t slot = 0; slot < kRingSlots; ++slot) {
    EXPECT_EQ(receiver->in(slot)[0], 10 + slot);
    EXPECT_EQ(receiver->in(slot)[kChunkBytes - 1], 20 + slot);
    EXPECT_EQ(creator->in(slot)[0], 30 + slot);
  }
}

TEST(ShmRingTest, TheMemoryCannotBeShrunkUnderAReader) {
  UniqueFd fd;
  const std::unique_ptr<ShmRing> ring = ShmRing::Create(&fd);
  EXPECT_NE(::ftruncate(fd.get(), 0), 0);
}

TEST(ShmRingTest, OnlyASealedRingOfTheRightSizeIsAdopted) {
  EXPECT_EQ(ShmRing::Adopt(UniqueFd()), nullptr);
  const UniqueFd unsealed(::memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(unsealed.get(), static_cast<off_t>(2 * kRingSlots * kChunkBytes)), 0);
  EXPECT_EQ(ShmRing::Adopt(unsealed), nullptr);
  const UniqueFd small(::memfd_create("small", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(small.get(), 4096), 0);
  ASSERT_EQ(::fcntl(small.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
  EXPECT_EQ(ShmRing::Adopt(small), nullptr);
  EXPECT_EQ(ShmRing::Adopt(UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC))), nullptr);
}

}  // namespace
}  // namespace annulus::transport
