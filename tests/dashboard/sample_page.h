#pragma once

#include <cstddef>

#include "harness/bench/dashboard/page.h"

namespace attn::test {

struct SampleSize {
  std::size_t runs = 40;
  std::size_t shapes = 8;
  bool is_plain = false;  ///< one machine, ours only
};

/// A page without a database: runs on a GPU machine (ours and two peers) and some on a CPU; decode
/// becomes 8 % slower at three quarters of the runs; a subject and a name hold HTML. The same bytes
/// every time.
dashboard::Page sample_page(const SampleSize& size = {});

/// The subject of one of its runs, as it would be run by a page that forgot to escape it.
extern const char* const kHostileText;

}  // namespace attn::test
