#pragma once

#include <memory>
#include <string>

#include "harness/backends/attn_plugin.h"
#include "harness/backends/capacity.h"
#include "harness/backends/exec_mode.h"
#include "harness/backends/plugin_operands.h"
#include "reference/core/case.h"
#include "reference/core/trace.h"

namespace attn::harness {

/// Why a plug-in with these ATTN_MODE_... cannot be called in a mode, "" when it can.
std::string mode_not_declared(ExecMode mode, std::uint32_t modes);

/// Operands in tensors with room for more. Beyond the case's own, sequences have no rows and no
/// keys, rows and pages hold NaN, entries of the page table name no page.
struct RoomyOperands {
  Case c;  ///< what `operands` refers to
  PluginOperands operands;
};

/// `room` must hold the case.
std::unique_ptr<RoomyOperands> make_roomy(const PluginOperands& operands, const Capacity& room);

/// What the calls of a mode are made of: a plan, calls that only leave something behind, and the
/// judged one. Null: no such call, or planned as the judged one.
struct ModeCalls {
  std::unique_ptr<RoomyOperands> planned, before, judged;
};

/// kGraph: the same call twice on one plan. kGraphReplay: planned for the longer of both cases'
/// rows and keys, called with `other` first. kPadded: one call of a batch padded to a bucket.
ModeCalls make_mode_calls(ExecMode mode, const Case& c, const Case* other, const Task& task);

/// Takes what was added out of the results of a roomy call again. Throws BackendFailure when it
/// does not hold what is declared.
void remove_room(const Case& c, std::int32_t padding_rows, Trace& trace);

}  // namespace attn::harness
