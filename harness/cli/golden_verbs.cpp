#include <filesystem>
#include <functional>
#include <ostream>

#include "golden/golden_file.h"
#include "golden/second_evaluation.h"
#include "harness/cli/interrupt.h"
#include "harness/cli/judge.h"
#include "harness/cli/sealing.h"
#include "harness/cli/verbs.h"
#include "harness/generate/case_spec.h"
#include "harness/report/format.h"
#include "reference/core/error.h"
#include "reference/reference.h"

namespace attn::cli {
namespace {

using harness::ReportRow;
using harness::Status;

struct Order {
  std::string name;  ///< the file's stem and case_id
  harness::CaseSpec spec;
  std::uint64_t seed = 1;
};

Order order_of_config(const GoldenMakeOptions& options, const std::string& config) {
  Order order;
  const bool is_file = !is_json_text(config);
  if (is_file && std::filesystem::path(config).extension() == ".toml") {
    const harness::TomlCase toml = harness::load_toml_case(config);
    order.spec = toml.spec;
    order.seed = options.seed.value_or(toml.seed);
  } else {
    order.spec = harness::load_case_spec(config);
    order.seed = options.seed.value_or(1);
  }
  order.name = options.name;
  if (order.name.empty()) {
    order.name = is_file ? std::filesystem::path(config).stem().string()
                         : "case-" + std::to_string(order.seed);
  }
  return order;
}

std::vector<Order> orders_of(const GoldenMakeOptions& options) {
  if (!options.configs.empty() + !options.list.empty() + (options.random != 0) != 1) {
    throw Error(ErrorKind::kUsage, "give one of --config FILE, --list FILE and --random N");
  }
  if (!options.list.empty() && options.seed) {
    throw Error(ErrorKind::kUsage, "--seed: each case of a --list has its own", "--seed");
  }
  if (!options.name.empty() && options.configs.size() != 1) {
    throw Error(ErrorKind::kUsage, "--name names the file of a single --config", "--name");
  }
  std::vector<Order> orders;
  for (const std::string& config : options.configs) {
    orders.push_back(order_of_config(options, config));
  }
  if (!options.list.empty()) {
    for (harness::NamedCase& named : harness::load_case_list(options.list)) {
      orders.push_back({std::move(named.id), std::move(named.spec), named.seed});
    }
  }
  for (std::int64_t i = 0; i < options.random; ++i) {
    const std::uint64_t seed = options.seed.value_or(1) + static_cast<std::uint64_t>(i);
    orders.push_back({"random-" + std::to_string(seed), harness::random_small_spec(seed), seed});
  }
  return orders;
}

/// Nothing is begun when any of the files is in the way.
void check_targets(const GoldenMakeOptions& options, const std::vector<Order>& orders) {
  if (!std::filesystem::is_directory(options.folder)) {
    throw Error(ErrorKind::kUsage, "-o " + options.folder + ": no such folder", "-o");
  }
  if (options.force) return;
  for (const Order& order : orders) {
    const auto path = std::filesystem::path(options.folder) / (order.name + ".h5");
    if (std::filesystem::exists(path)) {
      throw Error(ErrorKind::kUsage, path.string() + ": the file exists; --force overwrites it");
    }
  }
}

void make_one(const Order& order, const GoldenMakeOptions& options, const Session& session,
              ReportRow& row) {
  Case c = harness::make_case(order.spec, order.seed);
  c.id = order.name;
  golden::WriteOptions write;
  write.force = options.force;
  write.command_line = session.command_line;
  write.seed = order.seed;
  write_when_agreed(c, write, WithoutSecond::kRefuse, row);
}

void seal_one(const std::string& path, ReportRow& row) {
  golden::GoldenFile file = golden::read(path);
  if (file.seal == golden::Seal::kSealed) {
    row.verdict.detail = "sealed already; digests are right";
    return;
  }
  const Case c = golden::to_case(file, PagingOptions{});
  const Trace expected = golden::expected(file, c);
  const Trace exact = reference::evaluate(c, reference::Mode::kExact);
  golden::Agreement agreement = golden::agree(exact, golden::evaluate_second(c, exact));
  std::string what = "the two evaluations";
  if (agreement.agreed(kAgreement)) {
    agreement = golden::agree(expected, golden::evaluate_second(c, expected));
    what = "the file and the second evaluation";
  }
  row.properties.emplace_back("agreement", agreement.worst);
  if (!agreement.agreed(kAgreement)) {
    row.verdict.status = Status::kFailed;
    row.verdict.detail = disagreement(agreement, what);
    return;
  }
  file.seal = golden::Seal::kSealed;
  golden::write(file, path, true);
  row.verdict.detail = "sealed; expected values agree to " + harness::format_short(agreement.worst);
}

/// Runs `body` for each of the files, prints a line each and the tally.
int for_each_file(Reporter& reporter, const Session& session, const std::vector<std::string>& names,
                  const std::vector<std::string>& files,
                  const std::function<void(std::size_t, ReportRow&)>& body) {
  const InterruptGuard guard;
  Progress progress(session.streams, static_cast<std::int64_t>(files.size()), "files");
  std::ostream& out = reporter.text();
  for (std::size_t i = 0; i < files.size() && !interrupted(); ++i) {
    ReportRow row;
    row.name = names[i];
    row.file = files[i];
    guarded(row, [&] { body(i, row); });
    progress.clear();
    const std::string state =
        row.verdict.status == Status::kPassed && row.trouble == harness::Trouble::kNone
            ? ""
            : std::string(outcome(row)) + ": ";
    out << harness::wrap(row.file + "  " + state + row.verdict.detail, 4) << std::endl;
    reporter.report().rows.push_back(std::move(row));
    progress.update(static_cast<std::int64_t>(i + 1), 0);
  }
  progress.clear();
  if (interrupted()) {
    session.streams.err << "interrupted: " << reporter.report().rows.size() << " of "
                        << files.size() << " files finished, no file is half written\n";
  }
  out << "\n" << to_string(reporter.report().tally()) << std::endl;
  return reporter.finish();
}

}  // namespace

int golden_make(const GoldenMakeOptions& options, const Session& session) {
  Reporter reporter(session, options.report, "golden make");
  const std::vector<Order> orders = orders_of(options);
  check_targets(options, orders);
  std::vector<std::string> names;
  std::vector<std::string> files;
  for (const Order& order : orders) {
    names.push_back(order.name);
    files.push_back((std::filesystem::path(options.folder) / (order.name + ".h5")).string());
  }
  return for_each_file(reporter, session, names, files, [&](std::size_t i, ReportRow& row) {
    make_one(orders[i], options, session, row);
  });
}

int golden_seal(const GoldenSealOptions& options, const Session& session) {
  Reporter reporter(session, options.report, "golden seal");
  std::vector<std::string> names;
  for (const std::string& file : options.files) {
    names.push_back(std::filesystem::path(file).stem().string());
  }
  return for_each_file(reporter, session, names, options.files,
                       [&](std::size_t i, ReportRow& row) { seal_one(options.files[i], row); });
}

}  // namespace attn::cli
