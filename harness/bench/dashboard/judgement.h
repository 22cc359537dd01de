#pragma once

#include "harness/bench/dashboard/page.h"
#include "harness/bench/history/database.h"

namespace attn::dashboard {

/// Fills Page::changes from the series, the latest first.
void add_changes(Page& page);

/// Fills Page::gate: the newest run of each machine and program against the one before it.
void add_gate(Page& page, history::Database& database);

}  // namespace attn::dashboard
