"""The task of docs/add_a_task.md stands in a package of its own, taken from the page and installed
as the page says; every command works with it, and nothing of jaxsft is changed for it.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from jaxsft import plugins, rundir
from tests import outside, tiny
from tests.docs import pages

COLUMN = "data.columns.label=stars"


def rows(count: int = 80) -> list[dict]:
    rng = np.random.default_rng(0)
    return [
        {"text": "a" * int(n) + "b" * int(8 - n), "stars": int(n)}
        for n in rng.integers(1, 8, count)
    ]


@pytest.fixture
def package(tmp_path):
    """The folder with the package, not installed."""
    blocks = pages.blocks("add_a_task.md")
    files = {name: text for name, text in blocks.items() if name.startswith("rate_task/")}
    folder = outside.write(tmp_path / "site", files)
    with outside.importable(folder):
        yield folder


@pytest.fixture
def installed(package):
    outside.by_pyproject(package, pages.blocks("add_a_task.md")["pyproject.toml"])
    plugins.forget()
    return package


def ok(*arguments) -> str:
    code, out, err = tiny.jaxsft(*map(str, arguments))
    assert code == 0, err
    return out


def test_the_task_of_the_page(installed, tmp_path):
    data, run = tiny.write_lines(tmp_path / "rows.jsonl", rows()), tmp_path / "run"
    assert "rate-task 0.1" in ok("plugins") and "\n  rate " in ok("train", "--help")
    checked = ok("check", "task=rate", *tiny.FAST, f"data.path={data}", COLUMN)
    assert "good to train: 0 errors" in checked
    options = [
        "model=encoder",
        *tiny.FAST,
        "model.dropout=0.1",
        "train.duration=40steps",
        "evaluation.every=10steps",
        "optim.learning_rate=1e-2",
        f"run_dir={run}",
        f"data.path={data}",
    ]
    ok("train", "task=rate", *options, COLUMN)
    result = rundir.read_json(run / "result.json")
    guess = np.mean([abs(row["stars"] - np.mean([r["stars"] for r in rows()])) for row in rows()])
    assert result["test/mae"] < guess / 2, "it learnt nothing"
    lines = rundir.read_jsonl(run / "predictions" / "test.jsonl")
    assert result["test/mae"] == pytest.approx(
        np.mean([abs(x["target"] - x["prediction"]) for x in lines])
    )
    config = rundir.read_json(run / "manifest.json")
    assert [(p["name"], p["package"]) for p in config["plugins"]] == [("rate", "rate-task 0.1")]
    assert "gives a number to a text" in (run / "README.md").read_text("utf-8")

    new, out = (
        tiny.write_lines(tmp_path / "new.jsonl", [{"text": "aaaaaaab"}, {"text": "abbbbbbb"}]),
        tmp_path / "out.jsonl",
    )
    ok("predict", f"run={run}", f"input={new}", f"output={out}")
    many, few = (line["prediction"] for line in rundir.read_jsonl(out))
    assert many > few
    ok("export", f"run={run}", f"to={tmp_path / 'folder'}", "export.head=body")
    assert (tmp_path / "folder" / "model.safetensors").is_file()

    bad = tiny.write_lines(tmp_path / "bad.jsonl", [{"text": "a", "stars": "many"}])
    code, _, err = tiny.jaxsft("eval", f"run={run}", f"data.path={bad}")
    assert code == 1 and "bad.jsonl:1" in err and "expected a text and a finite number" in err


def test_by_the_option_alone(package, tmp_path):
    """Prepared data, training and prediction, with the module named in every command; a run
    directory alone has nothing imported."""
    data, run = tiny.write_lines(tmp_path / "rows.jsonl", rows(40)), tmp_path / "run"
    sets, given = tmp_path / "sets", "plugins=[rate_task]"
    ok(
        "prepare",
        given,
        f"data.path={data}",
        "stages=[clean,{split:{fractions:[0.8,0.1,0.1]}}]",
        f"output.dir={sets}",
    )
    arguments = ["task=rate", *tiny.FAST, f"run_dir={run}", f"data.path={sets}", COLUMN]
    plugins.forget()  # as in a new process
    code, _, err = tiny.jaxsft("train", *arguments)
    assert code == 1 and "task=rate" in err and "unknown" in err
    ok("train", given, *arguments)
    assert rundir.read_json(run / "manifest.json")["plugins"][0]["package"] is None

    new, out = tiny.write_lines(tmp_path / "new.jsonl", rows(3)), tmp_path / "out.csv"
    predict = ["predict", f"run={run}", f"input={new}", f"output={out}"]
    ok(*predict, given)
    plugins.forget()
    del sys.modules["rate_task"], sys.modules["rate_task.model"]
    code, _, err = tiny.jaxsft(*predict)
    assert code == 1 and "give plugins=[rate_task] again" in err and "never imported" in err
    assert "rate_task" not in sys.modules
    ok(*predict, given)


def test_what_does_not_fit_is_refused(installed, tmp_path):
    data = tiny.write_lines(tmp_path / "rows.jsonl", rows(40))
    for option, told in (
        ("data.too_long=window", "task=rate has no windows"),
        (
            "task.loss=cross_entropy",
            "task.loss=cross_entropy: expected one of mse, huber, mae, quantile",
        ),
        ("data.columns.answers=x", "task=rate never reads it"),
        ("evaluation.metric=validation/accuracy", "task=rate has validation/loss"),
    ):
        code, _, err = tiny.jaxsft("train", "task=rate", *tiny.FAST, f"data.path={data}", option)
        assert code == 1 and told in err


def test_packed_equals_unpacked(installed, tmp_path):
    """The page's promise that packing follows: the loss of the same weights does not depend on
    it."""
    data, run = (
        tiny.write_lines(
            tmp_path / "rows.jsonl",
            [{"text": "ab" * (1 + i % 5), "label": i % 3} for i in range(24)],
        ),
        tmp_path / "run",
    )
    ok("train", "task=rate", *tiny.FAST, f"run_dir={run}", f"data.train={data}")
    losses = []
    for packing in ("true", "false"):
        out = ok(
            "eval",
            f"run={run}",
            f"data.path={data}",
            f"data.packing={packing}",
            f"output={tmp_path / packing}",
        )
        losses.append(json.loads(out)["rows/loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
