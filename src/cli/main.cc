#include <signal.h>

#include "cli/parse.h"

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  return quarry::cli::parse_and_run(argc, argv);
}
