// SPDX-License-Identifier: Apache-2.0
#include "server/base/plugin_library.h"

#include <dlfcn.h>
#include <limits.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_join.h"

namespace annulus {
namespace {

constexpr char kStatic[] = "STATIC_PLUGIN";

// Folder of the running program, without the last slash; "" if it cannot be told.
std::string ProgramFolder() {
  char path[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof(path));
  if (length <= 0 || static_cast<size_t>(length) == sizeof(path)) return "";
  const std::string program(path, static_cast<size_t>(length));
  return program.substr(0, program.rfind('/'));
}

bool IsPluginName(absl::string_view name) {
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_';
  });
}

std::string VariableOf(absl::string_view kind) {
  return absl::StrCat("ANNULUS_", absl::AsciiStrToUpper(kind), "_PLUGIN");
}

std::vector<std::string> Candidates(absl::string_view kind, absl::string_view selection) {
  if (absl::StrContains(selection, "/")) return {std::string(selection)};
  const std::string file = absl::StrCat("libannulus-", kind, "-", selection, ".so");
  std::vector<std::string> paths;
  if (const std::string folder = ProgramFolder(); !folder.empty()) {
    paths.push_back(absl::StrCat(folder, "/../lib/", file));
    paths.push_back(absl::StrCat(folder, "/", file));
  }
  paths.push_back(file);
  return paths;
}

}  // namespace

absl::StatusOr<PluginLibrary> PluginLibrary::Load(absl::string_view kind,
                                                  absl::string_view selection) {
  const std::string variable = VariableOf(kind);
  std::string chosen(selection);
  if (chosen.empty()) {
    const char* value = std::getenv(variable.c_str());
    if (value != nullptr) chosen = value;
  }
  if (chosen == kStatic) {
    void* program = dlopen(nullptr, RTLD_NOW);
    if (program == nullptr) return absl::NotFoundError(dlerror());
    return PluginLibrary(program, kStatic);
  }
  if (!absl::StrContains(chosen, "/") && !IsPluginName(chosen)) {
    return absl::InvalidArgumentError(absl::StrCat("\"", chosen, "\" names no ", kind,
                                                   " plugin: expected a name, a path or ", kStatic,
                                                   ", as a flag or in ", variable));
  }
  std::vector<std::string> failures;
  for (const std::string& path : Candidates(kind, chosen)) {
    // Local: what a plugin links in must not be seen by others. Now: a missing symbol is an error
    // of the start, not of some later call.
    if (void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
      return PluginLibrary(handle, path);
    }
    failures.emplace_back(dlerror());
  }
  return absl::NotFoundError(absl::StrCat("no ", kind, " plugin \"", chosen,
                                          "\"; tried: ", absl::StrJoin(failures, "; ")));
}

absl::StatusOr<PluginLibrary::Table> PluginLibrary::FindNewest(
    absl::Span<const char* const> symbols) const {
  if (handle_ == nullptr) return absl::FailedPreconditionError("no plugin is loaded");
  for (size_t version = 0; version < symbols.size(); ++version) {
    if (const void* data = dlsym(handle_, symbols[version])) return Table{data, version};
  }
  return absl::NotFoundError(
      absl::StrCat("plugin ", path_, " exports none of: ", absl::StrJoin(symbols, ", ")));
}

}  // namespace annulus
