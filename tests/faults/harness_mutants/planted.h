#pragma once

#include <string_view>

/// Whether the mistake of this id is in the harness just now.
bool planted(std::string_view id);
