// A bench fails if a step on one of its loops was too long (io/ring_executor.h): all others on that loop waited, whatever the rates say.
#pragma once
#include <cstdio>

#include "io/ring_executor.h"

namespace quarry {
inline int status_with_loop_steps(int status) {
  const LoopSteps steps = loop_steps();
  if (steps.too_long == 0) return status;
  std::fprintf(stderr, "%llu steps on a loop were too long, the longest took %.1f ms of CPU time\n",
               static_cast<unsigned long long>(steps.too_long), static_cast<double>(steps.longest.count()) / 1e6);
  return status == 0 ? 1 : status;
}
}  // namespace quarry
