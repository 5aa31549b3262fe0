// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/cuda/emulated_tensor_map.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "tests/unit/cuda/emulator_rules.h"

namespace annulus::kernels::cuda {
namespace {

constexpr uint64_t kMagic = 0x616e6e756c757321;

struct Fields {
  uint64_t magic;
  const char* base;
  int64_t counts[4];  // columns, rows, heads, batches
  int64_t stride_bytes[3];
  int64_t box_rows;
};
static_assert(sizeof(Fields) <= sizeof(TensorMap));

Fields FieldsOf(const TensorMap& map) {
  Fields fields;
  std::memcpy(&fields, map.bytes, sizeof(fields));
  if (reinterpret_cast<uintptr_t>(&map) % alignof(TensorMap) != 0) {
    BreakRule("a tensor map that does not lie on 64 bytes");
  }
  if (fields.magic != kMagic) BreakRule("a tensor map that nobody encoded");
  return fields;
}

}  // namespace

absl::StatusOr<TensorMap> EncodeEmulatedMap(const TensorMapSpec& spec) {
  const annulusTensor& t = spec.tensor;
  Fields fields = {kMagic,
                   static_cast<const char*>(t.data),
                   {t.head_dim, t.rows, t.heads, t.batch},
                   {},
                   spec.box_rows};
  if (reinterpret_cast<uintptr_t>(t.data) % 16 != 0) {
    return absl::InvalidArgumentError("the base of a tensor map is not on 16 bytes");
  }
  for (int i = 0; i < 3; ++i) {
    fields.stride_bytes[i] = MapStrideBytes(t, i + 1);
    if (fields.stride_bytes[i] <= 0 || fields.stride_bytes[i] % 16 != 0 ||
        fields.stride_bytes[i] >= int64_t{1} << 40) {
      return absl::InvalidArgumentError(
          absl::StrCat("stride ", fields.stride_bytes[i], " bytes of a tensor map"));
    }
  }
  for (const int64_t count : fields.counts) {
    if (count < 1 || count > int64_t{1} << 32) {
      return absl::InvalidArgumentError(absl::StrCat("size ", count, " of a tensor map"));
    }
  }
  if (spec.box_rows < 1 || spec.box_rows > 256) {
    return absl::InvalidArgumentError(absl::StrCat("box of ", spec.box_rows, " rows"));
  }
  TensorMap map = {};
  std::memcpy(map.bytes, &fields, sizeof(fields));
  return map;
}

int BoxRows(const TensorMap& map) { return static_cast<int>(FieldsOf(map).box_rows); }

std::vector<uint16_t> ReadPanel(const TensorMap& map, int column, int row, int head, int batch) {
  const Fields fields = FieldsOf(map);
  std::vector<uint16_t> panel(fields.box_rows * kPanelColumns, 0);
  if (head < 0 || head >= fields.counts[2] || batch < 0 || batch >= fields.counts[3]) return panel;
  for (int64_t i = 0; i < fields.box_rows; ++i) {
    if (row + i < 0 || row + i >= fields.counts[1]) continue;
    const char* from = fields.base + (row + i) * fields.stride_bytes[0] +
                       head * fields.stride_bytes[1] + batch * fields.stride_bytes[2];
    for (int64_t j = 0; j < kPanelColumns; ++j) {
      if (column + j < 0 || column + j >= fields.counts[0]) continue;
      std::memcpy(&panel[i * kPanelColumns + j], from + 2 * (column + j), 2);
    }
  }
  return panel;
}

}  // namespace annulus::kernels::cuda
