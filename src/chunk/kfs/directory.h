// Making, recognising and describing a kfs directory. docs/formats/kfs.md, "Files".
#pragma once
#include <optional>
#include <string>

#include "chunk/kfs/files.h"
#include "chunk/kfs/format.h"

namespace quarry::chunk::kfs {

// Errors: not_found (no directory, or no descriptor in it), incompatible, corrupt, io_error.
Result<Descriptor> read_descriptor(Files& files, const std::string& directory);

// One sentence about what lies in the directory; none: missing or empty (what an interrupted creation left counts as empty).
Result<std::optional<std::string>> content_of(Files& files, const std::string& directory);

// Makes the directory if it is missing and an empty store in it; an old one, or a half-made one, is removed first. The caller has decided
// that this is right. Durable when it returns. Errors: busy, invalid_argument (not a directory, or no parent), io_error.
Result<void> create_store(Files& files, const std::string& directory, const Descriptor& descriptor);

}  // namespace quarry::chunk::kfs
