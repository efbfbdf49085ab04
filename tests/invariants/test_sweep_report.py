"""The report of a sweep notices trials that are the same, and counts them once."""

import dataclasses

import pytest

from jaxsft.rundir import read_jsonl
from jaxsft.sweeps import analysis
from jaxsft.sweeps.run_numbers import stream_digest
from jaxsft.sweeps.sweep_findings import analyse
from tests.sweeps.fake_sweep import Made, make

MADE = Made({"model.dropout": [0.1, 0.5]}, seeds=(0, 1, 2), rows=100)


def found(folder, how):
    return analyse(analysis.read_sweep(make(folder, how)), replicates=200)


def test_a_seed_that_nothing_reads_is_told(tmp_path):  # guards I6
    """Its trials logged the same numbers, however fast they went; other seeds are fine."""
    same = found(tmp_path / "same", dataclasses.replace(MADE, unused_seed=True))
    told = [line for line in same.warnings if "logged the same numbers at every step" in line]
    assert [line.partition(" logged")[0] for line in told] == ["Trials 0, 1, 2", "Trials 3, 4, 5"]
    assert all("they differ in seed" in line and "unused seed" in line for line in told)
    text = analysis.write_report(tmp_path / "same").read_text("utf-8")
    assert "Trials 0, 1, 2 logged the same numbers at every step" in text
    differ = found(tmp_path / "differ", MADE)
    assert not [line for line in differ.warnings if "same numbers" in line]


def test_trials_that_are_the_same_count_once(tmp_path):  # guards I6
    """Three copies of a run are one seed: no spread, no verdict."""
    same = found(
        tmp_path, dataclasses.replace(MADE, unused_seed=True, quality=lambda o: o["model.dropout"])
    )
    assert [len(group.trials) for group in same.groups] == [1, 1]
    (pair,) = same.family.pairs
    assert (pair.seeds, pair.verdict) == (1, "needs seeds")


def test_an_option_that_changes_nothing_is_told(tmp_path):  # guards I6
    """Two settings with the same stream: the option is read by nothing in these runs."""
    make(tmp_path, dataclasses.replace(MADE, seeds=(0,)))
    one, other = sorted(tmp_path.glob("jobs/*/metrics.jsonl"))
    other.write_bytes(one.read_bytes())
    warnings = analyse(analysis.read_sweep(tmp_path), replicates=200).warnings
    assert any("Trials 0, 1" in line and "differ in model.dropout" in line for line in warnings)


@pytest.mark.parametrize("key", ["loss", "accuracy", "step"])
def test_a_stream_is_all_that_was_logged_but_speed(tmp_path, key):  # guards I6
    make(tmp_path, dataclasses.replace(MADE, seeds=(0,)))
    rows = read_jsonl(next(tmp_path.glob("jobs/000-*/metrics.jsonl")))
    faster = [row | {"tokens_per_second": 1.0, "mfu": 0.5} for row in rows]
    assert stream_digest(faster) == stream_digest(rows) != ""
    last = next(row for row in reversed(rows) if key in row)
    assert stream_digest(
        [row | {key: row[key] + 1e-12 + (key == "step")} if row is last else row for row in rows]
    ) != stream_digest(rows)
