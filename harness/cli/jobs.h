#pragma once

namespace attn::cli {

/// How many things a verb does at a time: `wanted`, or one for each core where that is 0. Processes
/// that are started from now on get an equal share of the cores for the threads of their libraries
/// (OMP_NUM_THREADS and those of BLAS libraries, where the environment does not set them): with a
/// thread for each core in every one of them, they fight. Call it before backends are opened and
/// threads are started.
int use_jobs(int wanted);

}  // namespace attn::cli
