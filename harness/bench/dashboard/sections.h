#pragma once

#include <string>

#include "harness/bench/dashboard/page.h"

/// The sections of the page as HTML that needs no script: each returns its tables, or a paragraph
/// that says why there is nothing to show. Rows carry data-s (series), data-m (machine), which the
/// page's script filters by.
namespace attn::dashboard {

/// The verdict in one sentence and a few figures.
std::string banner_html(const Page& page);
std::string gate_html(const Page& page);
std::string changes_html(const Page& page);
/// Shape by implementation, once for the fraction of the roofline and once for the ratio to the
/// best peer.
std::string heat_maps_html(const Page& page);
/// The last point of every series.
std::string latest_html(const Page& page);
/// Machines, and the environment of their runs.
std::string environments_html(const Page& page);
std::string scores_html(const Page& page);

/// "decode B1 ctx2048 32/8, cuda".
std::string series_name(const Page& page, std::size_t series);
/// "2026-11-22 23:42, c3ea3592".
std::string run_name(const history::Run& run);

}  // namespace attn::dashboard
