// SPDX-License-Identifier: Apache-2.0
#include "server/ring/names.h"

#include <iterator>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/ring/topology/facts.h"

namespace annulus::ring {
namespace {

constexpr absl::string_view kDeviceKinds[] = {"cpu", "cuda"};
constexpr absl::string_view kGpuLinks[] = {"none", "pcie", "nvlink"};
constexpr absl::string_view kNicDistances[] = {"switch", "numa", "across"};

template <typename Enum, size_t kCount>
std::optional<Enum> Find(const absl::string_view (&names)[kCount], absl::string_view name) {
  for (size_t i = 0; i < kCount; ++i) {
    if (names[i] == name) return static_cast<Enum>(i);
  }
  return std::nullopt;
}

}  // namespace

absl::string_view Name(DeviceKind value) { return kDeviceKinds[static_cast<size_t>(value)]; }
absl::string_view Name(GpuLink value) { return kGpuLinks[static_cast<size_t>(value)]; }
absl::string_view Name(NicDistance value) { return kNicDistances[static_cast<size_t>(value)]; }

template <>
std::optional<DeviceKind> FromName<DeviceKind>(absl::string_view name) {
  return Find<DeviceKind>(kDeviceKinds, name);
}
template <>
std::optional<GpuLink> FromName<GpuLink>(absl::string_view name) {
  return Find<GpuLink>(kGpuLinks, name);
}
template <>
std::optional<NicDistance> FromName<NicDistance>(absl::string_view name) {
  return Find<NicDistance>(kNicDistances, name);
}
template <>
std::string AllNames<DeviceKind>() {
  return absl::StrJoin(kDeviceKinds, ", ");
}
template <>
std::string AllNames<GpuLink>() {
  return absl::StrJoin(kGpuLinks, ", ");
}
template <>
std::string AllNames<NicDistance>() {
  return absl::StrJoin(kNicDistances, ", ");
}

}  // namespace annulus::ring
