#pragma once

#include <cstdint>

#include "reference/core/case.h"

namespace attn::bench {

/// What a call must at least do: operations of its matrix products (a multiplication and an
/// addition each), and bytes that memory must give or take once.
struct Work {
  double operations = 0.0;
  double bytes = 0.0;
};

/// Of a case's attention: 2 (D + Dv) operations for each head of each query row and each key that
/// the mask shows it; bytes of the queries and the output, and of the keys and values that any row
/// of their sequence sees, with their scales.
Work attention_work(const Case& c);

/// Of the projections: 2 rows in out operations each; bytes of the weights as they are stored, of
/// the layer's input and output, and of the keys and values that are stored.
Work projection_work(const Case& c);

/// Of the entry point: attention alone, or the layer. Intermediates cost nothing: a layer that
/// never writes them would be right too.
Work work_of(const Case& c);

/// Seconds below which no device with these ceilings (per second) can do it.
double floor_seconds(const Work& work, double operations_per_second, double bytes_per_second);

}  // namespace attn::bench
