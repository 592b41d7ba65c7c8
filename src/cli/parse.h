// Parses the command line and runs the command. The only file that knows the parsing library.
#pragma once

namespace quarry::cli {

// Exit status: 0 done, 1 the command failed, 2 the command line is wrong.
int parse_and_run(int argc, char** argv);

}  // namespace quarry::cli
