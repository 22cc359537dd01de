#pragma once

#include <string>
#include <vector>

namespace attn::test {

/// What Google Benchmark would have written: one benchmark with these times (us) of its
/// repetitions.
struct Timed {
  std::string name;
  std::vector<double> times;
  std::string more;  ///< further members of every row: ", \"GB/s\": 800.0"
};

inline std::string google_json(const std::string& date, const std::vector<Timed>& benchmarks,
                               const std::string& context = "") {
  std::string text = R"({"context": {"host_name": "box", "executable": "./bin/attn-bench",
 "num_cpus": 16, "mhz_per_cpu": 2100, "load_avg": [0.5],
 "caches": [{"type": "Data", "level": 1, "size": 49152, "num_sharing": 1}],
 "date": ")" + date;
  text += "\"" + context + "}, \"benchmarks\": [";
  const char* comma = "";
  for (const Timed& b : benchmarks) {
    for (std::size_t i = 0; i < b.times.size(); ++i) {
      text.append(comma).append("\n {\"name\": \"").append(b.name).append("\", \"run_name\": \"");
      text.append(b.name).append("\", \"run_type\": \"iteration\", \"repetitions\": ");
      text.append(std::to_string(b.times.size())).append(", \"repetition_index\": ");
      text.append(std::to_string(i)).append(", \"threads\": 1, \"iterations\": 5, ");
      text.append("\"real_time\": ").append(std::to_string(b.times[i]));
      text.append(", \"cpu_time\": 3.0, \"time_unit\": \"us\"").append(b.more).append("}");
      comma = ",";
    }
  }
  return text + "\n]}\n";
}

}  // namespace attn::test
