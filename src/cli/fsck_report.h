#pragma once
#include <string>

namespace quarry::cli {
// Prints the document of POST /v1/fsck; exit status 1 if it names a violation.
int print_fsck_report(const std::string& report, bool as_json);
}  // namespace quarry::cli
