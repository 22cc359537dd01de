#pragma once

#include <string>
#include <vector>

#include "harness/relations/relations.h"
#include "harness/report/report.h"

namespace attn::cli {

/// The relations of "a,b", in the order of the battery; all of them for "" and "all". Throws
/// Error(kUsage) with the nearest known name.
std::vector<harness::Relation> chosen_relations(const std::string& names);

/// Makes the row that of a broken relation.
void set_broken(harness::ReportRow& row, const harness::Broken& broken, double worst_ratio);

/// " --relations NAME" and what else names the check of one relation again.
std::string relation_repro(const std::string& case_words, const std::string& backend,
                           std::string_view relation);

}  // namespace attn::cli
