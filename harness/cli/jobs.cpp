#include "harness/cli/jobs.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <thread>

namespace attn::cli {

int use_jobs(int wanted) {
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const int jobs = wanted > 0 ? wanted : cores;
  if (jobs == 1) return jobs;
  const std::string threads = std::to_string(std::max(1, cores / jobs));
  for (const char* const name : {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"}) {
    ::setenv(name, threads.c_str(), 0);  // NOLINT(concurrency-mt-unsafe): there are no threads yet
  }
  return jobs;
}

}  // namespace attn::cli
