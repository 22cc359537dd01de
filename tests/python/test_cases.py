import os
import time

import pytest

import attn_compare as ac

import planted

STARTED = time.process_time()


@ac.cases("attention", n=40)
def test_forty_cases(case):
    case.check(planted.right)


def test_they_took_less_than_20_seconds_of_cpu():
    slower = float(os.environ.get("ATTN_TEST_TIMEOUT_FACTOR", 1))  # as a sanitized build is
    assert time.process_time() - STARTED < 20 * slower


@ac.cases("decode and gqa", n=5)
def test_words_select(case):
    config = case.spec["config"]
    assert config["num_attention_heads"] > config["num_key_value_heads"]
    rows = case.spec["rows"]
    attention = config["entry_point"] == "attention"
    assert max(row[0] if attention else row[1] for row in rows) == 1


@ac.cases("fp8kv and not causal and head_dim > 16", n=5, seed=2)
def test_words_and_keys_mix(case):
    config = case.spec["config"]
    assert config["kv_cache"]["dtype"] == "float8_e4m3fn"
    assert config["mask"]["variant"] != "causal" and config["head_dim"] > 16


def test_the_same_request_gives_the_same_cases():
    assert ac.generate("gqa", 5, seed=3) == ac.generate("gqa", 5, seed=3)
    assert ac.generate("gqa", 5, seed=3) != ac.generate("gqa", 5, seed=4)


def test_what_is_asked_wrongly_is_said():
    with pytest.raises(ac.Error, match='nothing is called "head_dims"; did you mean "head_dim"'):
        ac.generate("head_dims > 3")
    with pytest.raises(ac.Error, match="0 of .* generated cases match"):
        ac.generate("head_dim == 7777", n=1)
