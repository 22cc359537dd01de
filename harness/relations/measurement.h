#pragma once

// Internal to harness/relations: answers as numbers that may be moved about, each with how far it
// may lie from the exact one.

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "harness/relations/relations.h"

namespace attn::harness {

/// The allowance of an element that is not compared.
inline constexpr double kLeftOut = -1.0;

/// The values of one stage, row-major; none where an answer lacks the stage.
struct Measured {
  std::vector<double> values;
  std::vector<double> allowed;

  bool empty() const { return values.empty(); }
  void leave_out(std::size_t size) {
    values.assign(size, 0.0);
    allowed.assign(size, kLeftOut);
  }
};

struct Measurement {
  std::array<Measured, kNumStages> stages;

  Measured& operator[](Stage s) { return stages[static_cast<std::size_t>(s)]; }
  const Measured& operator[](Stage s) const { return stages[static_cast<std::size_t>(s)]; }
};

/// What a subject keeps: its answer, once it was asked for.
struct Subject::State {
  const Case& c;
  const Backend& backend;
  RelationOptions options;
  std::optional<Trace> trace;
  std::optional<Measurement> measurement;
};

/// Asks the backend. Throws BackendFailure when a stage has the wrong shape.
Trace answer(const Subject& subject, const Case& c);
/// The stages that the backend computed itself, the table left out.
Measurement measure(const Subject& subject, const Case& c, const Trace& trace);
/// Of the subject's own case, made once.
const Trace& own_answer(const Subject& subject);
const Measurement& own_measurement(const Subject& subject);

/// "" when the backend takes the counterpart, else why not: its config breaks a rule of ours, or
/// the backend does not support it.
std::string refusal(const Subject& subject, const Case& counterpart);

/// Elements of a stage in one row: heads * width.
std::int64_t row_width(const AttentionConfig& config, Stage stage);
/// Channels of a head in a row of the stage; 0 where a row has no heads.
std::int64_t channel_count(const AttentionConfig& config, Stage stage);
/// Whether the stage has a row for each key rather than for each token.
bool is_cache(Stage stage);

/// Which element of a counterpart's answer belongs to element (row, column) of the case's own; a
/// negative row: none.
struct Place {
  std::int64_t row = -1;
  std::int64_t column = 0;
  double sign = 1.0;  ///< or another power of two, times the counterpart's value
};
using Mapping = std::function<Place(Stage stage, std::int64_t row, std::int64_t column)>;

/// Where the rows of `c` lie in a batch of its sequences `order`, in that order.
Mapping sequence_mapping(const Case& c, std::span<const std::int64_t> order);

/// The counterpart's answer in the order of the case's own.
Measurement rearrange(const Measurement& answer, const Case& counterpart, const Case& c,
                      const Mapping& mapping);

/// Whether two answers to `c` are equal: within the sum of their allowances, or `bitwise`. Only
/// stages that both have. `counterpart` says what `other` is.
RelationResult compare_answers(const Subject& subject, std::string_view relation,
                               const Measurement& one, const Measurement& other,
                               const std::string& counterpart, bool bitwise = false);

}  // namespace attn::harness
