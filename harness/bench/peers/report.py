"""What was timed, as the JSON of Google Benchmark: `attn-compare history import` reads it."""
import datetime
import json


def short(value):
    """Six digits: more than a clock can tell."""
    return float(f"{value:.6g}")


class Report:
    def __init__(self, context):
        self.context = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(),
                        "program": "peers", "json_schema_version": 1, **context}
        self.rows = []

    def add(self, case, who, times_us, replays, label, parameters, counters):
        """One implementation of one case. `times_us`: microseconds of a call, one for each
        repetition; `counters`: of work per second {"TFLOP/s": work in 1e6 operations, ...}, divided
        by each time, and plain ones {"error_bound": value}."""
        name = f"{case} | {who}"
        for index, time in enumerate(times_us):
            row = {"name": name, "run_name": name, "run_type": "iteration",
                   "repetitions": len(times_us), "repetition_index": index, "threads": 1,
                   "iterations": replays, "real_time": short(time), "cpu_time": short(time),
                   "time_unit": "us",
                   "label": label, "parameters": parameters}
            for key, value in counters.items():
                if value is not None:
                    row[key] = short(value / time if key.endswith("/s") else value)
            self.rows.append(row)

    def add_error(self, case, who, message, parameters):
        name = f"{case} | {who}"
        self.rows.append({"name": name, "run_name": name, "run_type": "iteration",
                          "repetitions": 1, "repetition_index": 0, "threads": 1,
                          "error_occurred": True, "error_message": message, "iterations": 0,
                          "real_time": 0.0, "cpu_time": 0.0, "time_unit": "us",
                          "parameters": parameters})

    def write(self, path):
        with open(path, "w", encoding="utf-8") as file:
            file.write('{"context": ' + json.dumps(self.context) + ',\n"benchmarks": [\n')
            file.write(",\n".join(json.dumps(row, separators=(",", ":")) for row in self.rows))
            file.write("\n]}\n")


def parameters_of(case, is_paged=False):
    """The columns that the history keeps, from a case of `attn-bench --list`."""
    config, rows = case["case"]["config"], case["case"]["rows"]
    is_attention = config.get("entry_point") == "attention"
    new = [r[0] if is_attention else r[1] for r in rows]
    keys = [r[1] if is_attention else r[0] + r[1] for r in rows]
    mask = config.get("mask", {}).get("variant", "causal")
    window = f"window {config.get('mask', {}).get('window_size')}"
    mask = {"null": "full", "sliding_window_causal": window}.get(mask, mask)
    out = {"kind": case["group"], "batch": len(rows), "heads": config["num_attention_heads"],
           "kv_heads": config["num_key_value_heads"], "head_dim": config["head_dim"],
           "dtype": config["dtype"], "mask": mask}
    if len(set(new)) == 1 and len(set(keys)) == 1:
        out["q_len"], out["kv_len"] = new[0], keys[0]
    if not is_attention:
        out["hidden_size"] = config["hidden_size"]
    if config.get("quant"):
        out["weights"] = config["quant"]["encoding"]
    if config["kv_cache"].get("dtype", config["dtype"]) != config["dtype"]:
        out["kv_dtype"] = config["kv_cache"]["dtype"]
    if is_paged:
        out["page_size"] = config["kv_cache"]["page_size"]
    return out
