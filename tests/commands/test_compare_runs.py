"""`jaxsft compare` and `jaxsft power`, from files to what is printed."""

import json

import pytest

from jaxsft.commands import compare_runs
from tests.evaluation import two_runs
from tests.tiny import jaxsft


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, share, seed in (("a", 0.7, 1), ("b", 0.9, 2), ("c", 0.7, 3), ("d", 0.9, 4)):
        two_runs.write(tmp_path / name, two_runs.labels(300, share, seed))
    two_runs.write(tmp_path / "lines", two_runs.labels(300, 0.8, 5), statistics=False)
    return tmp_path


def test_compare_prints_a_table_and_writes_it(runs):
    code, out, err = jaxsft("compare", "a", "b", "metrics=[accuracy,f1_macro]", "output=out")
    assert code == 0 and not err
    assert "McNemar" in out and "a → b" in out and "▲" in out and "300 rows" in out
    page = (runs / "out" / "compare.md").read_text()
    found = json.loads((runs / "out" / "compare.json").read_text())
    assert page.count("\n| ") == 3 and "| f1_macro |" in page
    assert [e["number"] for e in found["comparisons"]] == ["accuracy", "f1_macro"]
    assert found["arms"][0]["numbers"]["accuracy"]["low"] < 0.7 and found["rows"] == 300


def test_compare_in_json_and_the_same_again(runs):
    code, out, _ = jaxsft("compare", "a", "c", "--json", "replicates=200")
    found = json.loads(out)
    assert code == 0 and found["tied"]["accuracy"] and found["chosen"] == "accuracy"
    assert jaxsft("compare", "a", "c", "--json", "replicates=200")[1] == out
    assert all(e["p_bh"] >= e["p"] for e in found["comparisons"])


def test_compare_groups_of_seeds(runs):
    code, out, _ = jaxsft("compare", "a,c", "b,d", "metrics=accuracy")
    assert code == 0 and "t of rows and seeds" in out and "a (+1 seeds) → b (+1 seeds)" in out


def test_compare_columns_of_predictions(runs):
    code, out, _ = jaxsft("compare", "a", "lines")  # one has no statistics
    assert code == 0 and "correct" in out and "McNemar" in out
    files = [f"{name}/predictions/test.jsonl" for name in ("a", "b")]
    code, out, _ = jaxsft("compare", *files, "columns=score")
    assert code == 0 and "score" in out and "permutation" in out and "a → b" in out


def test_power_says_what_a_difference_needs(runs):
    code, out, _ = jaxsft("power", "run=a", "effect=0.02")
    assert code == 0 and "upper estimate" in out and "rows" in out
    code, out, _ = jaxsft("power", "run=a,c", "against=b,d", "effect=0.02", "--json")
    found = json.loads(out)
    assert code == 0 and found["metric"] == "accuracy" and found["needed"]["rows"] > 300
    assert found["seed_variance"] is not None and found["paired"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare"], "give two runs"),
        (["compare", "a"], "give two runs"),
        (["compare", "a", ",,"], "give two runs"),
        (["compare", "a", "a"], "is given twice"),
        (["compare", "a", "none"], "none: is no run directory"),
        (["compare", "a", "b", "split=validation"], "has no predictions of the split"),
        (["compare", "a", "b", "metric=x"], "metric=: unknown"),
        (["compare", "a", "b", "metrics=x"], "metrics=x: is no number"),
        (["compare", "a", "b", "--wrong"], "--wrong: unknown"),
        (["compare", "a", "b", "level=x"], "level=x: expected a number"),
        (["compare", "a", "b", "level=2"], "level=2"),
        (["compare", "a", "b", "seed=-1"], "seed=-1"),
        (["compare", "a", "b", "seed=1", "seed=2"], "give it once"),
        (["compare", "a", "b", "columns=label"], "'label' is "),
        (["compare", "a", "b", "columns=gone"], "'gone' is None"),
        (["compare", "a", "empty.jsonl"], "empty.jsonl: has no row"),
        (["compare", "a", "broken"], "is damaged"),
        (["power", "run=a"], "missing effect="),
        (["power", "run=a", "effect=0"], "effect=0"),
        (["power", "run=a", "effect=0.1", "power=2"], "power=2"),
        (["power", "run=a", "effect=0.1", "optim.x=2"], "optim.x=: unknown"),
        (["power", "run=a", "effect=0.1", "metric=bleu"], "bleu"),
    ],
)
def test_what_is_refused(runs, words, message):
    (runs / "empty.jsonl").write_text('{"row": 0, "dropped": "empty"}\n')
    broken = two_runs.write(runs / "broken", two_runs.labels(300)) / "predictions" / "test.npz"
    content = bytearray(broken.read_bytes())
    at = content.index(b"digests.npy") + 200
    content[at] ^= 1
    broken.write_bytes(content)
    code, out, err = jaxsft(*words)
    assert code == 1 and not out and err.count("\n") == 1
    assert message in err or (message == "is damaged" and "not a file of statistics" in err)


def test_names_of_arms():
    assert compare_runs.short_names([["x/a"], ["y/b", "y/c"]]) == ["a", "b (+1 seeds)"]
    assert compare_runs.short_names([["x/a"], ["y/a"]]) == ["x/a", "y/a"]
    assert compare_runs.short_names([["x/predictions/test.jsonl"], ["y/b"]]) == ["x", "b"]
    assert len(set(compare_runs.short_names([["a"], ["a/predictions/test.jsonl"]]))) == 2
