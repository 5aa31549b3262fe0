// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace annulus {

// A plugin: a shared library libannulus-<kind>-<name>.so that exports versioned C tables.
//
//   ANNULUS_ASSIGN_OR_RETURN(auto library, PluginLibrary::Load("compute", "cpu"));
//   ANNULUS_ASSIGN_OR_RETURN(const annulusComputeV1* table,
//                            library.Find<annulusComputeV1>(ANNULUS_COMPUTE_V1_SYMBOL));
//
// Once loaded a library stays loaded for the life of the process, so tables and whatever threads
// they start never lose their code; a PluginLibrary is a copyable name for it. Thread safe.
class PluginLibrary {
 public:
  PluginLibrary() = default;

  // `selection` is
  //   a path (anything with a slash): that file and no other;
  //   "STATIC_PLUGIN": a table linked into the program itself, which must export it;
  //   a name: libannulus-<kind>-<name>.so in ../lib of the program's folder, in that folder, then
  //   where the dynamic loader looks;
  //   "": what the environment variable ANNULUS_<KIND>_PLUGIN says, in the same forms.
  // INVALID_ARGUMENT for a name that is no plugin name or an empty choice; NOT_FOUND with all that
  // was tried and why it failed.
  static absl::StatusOr<PluginLibrary> Load(absl::string_view kind, absl::string_view selection);

  // The table exported as `symbol`. T begins with `size_t struct_size`. NOT_FOUND if it is not
  // there; FAILED_PRECONDITION if it is smaller than T, that is, built against an older header.
  template <typename T>
  absl::StatusOr<const T*> Find(const char* symbol) const {
    const char* const symbols[] = {symbol};
    absl::StatusOr<Table> table = FindNewest(symbols);
    if (!table.ok()) return table.status();
    const auto* typed = static_cast<const T*>(table->data);
    if (typed->struct_size < sizeof(T)) {
      return absl::FailedPreconditionError(absl::StrCat("plugin ", path_, ": ", symbol, " has ",
                                                        typed->struct_size,
                                                        " bytes, this program needs ", sizeof(T)));
    }
    return typed;
  }

  // Negotiation: the first of `symbols`, newest first, that the library exports. NOT_FOUND lists
  // them all.
  struct Table {
    const void* data = nullptr;
    size_t version = 0;  // index into `symbols`
  };
  absl::StatusOr<Table> FindNewest(absl::Span<const char* const> symbols) const;

  // Where it was found; "STATIC_PLUGIN" for one linked in.
  const std::string& path() const { return path_; }

 private:
  PluginLibrary(void* handle, std::string path) : handle_(handle), path_(std::move(path)) {}

  void* handle_ = nullptr;
  std::string path_;
};

}  // namespace annulus
