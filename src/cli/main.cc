#include <signal.h>
#include <unistd.h>

#include <cstdio>

#include "cli/parse.h"
#include "io/thread_pool.h"

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  const int status = quarry::cli::parse_and_run(argc, argv);
  if (quarry::WorkApart::under_way() > 0) {  // the kernel holds threads in calls to a drive
    std::fflush(nullptr);
    _exit(status);
  }
  return status;
}
