"""The task of docs/add_a_task.md, taken from the page and registered as the page says, trains, is
scored and predicts.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys

import numpy as np
import pytest

from jaxsft import rundir, tasks
from jaxsft.commands import hydra_app
from jaxsft.config import compose, overrides, schema
from tests import tiny
from tests.docs import pages


def load(name: str, source: str, folder, monkeypatch):
    path = folder / f"{name.rsplit('.', 1)[-1]}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def registered(tmp_path, monkeypatch):
    blocks, known = pages.blocks("add_a_task.md"), tasks.get
    imports = (
        "from dataclasses import dataclass\n\nfrom jaxsft.config.tasks import TaskConfig\n\n\n"
    )
    options = load(
        "page_options", imports + blocks["jaxsft/config/tasks.py"], tmp_path, monkeypatch
    )
    task = load("jaxsft.tasks.rate", blocks["jaxsft/tasks/rate.py"], tmp_path, monkeypatch)
    shutil.copytree(overrides.config_folder(), tmp_path / "conf")
    (tmp_path / "conf" / "task" / "rate.yaml").write_text(
        blocks["conf/task/rate.yaml"], encoding="utf-8"
    )
    for module in (hydra_app, overrides):
        monkeypatch.setattr(module, "config_folder", lambda: tmp_path / "conf")
    monkeypatch.setitem(schema.GROUPS["task"], "rate", options.RateTask)
    monkeypatch.setattr(tasks, "get", lambda name: task.Rate if name == "rate" else known(name))
    compose.string_keys.cache_clear()
    yield task.Rate
    compose.string_keys.cache_clear()


def test_the_task_of_the_page(registered, tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"text": "a" * int(n) + "b" * int(8 - n), "stars": int(n)} for n in rng.integers(1, 8, 80)
    ]
    data, run = tiny.write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "run"
    options = [
        *tiny.FAST,
        "model.dropout=0.1",
        "train.duration=60steps",
        "optim.learning_rate=1e-2",
        f"run_dir={run}",
        f"data.path={data}",
    ]
    code, _, err = tiny.jaxsft("train", "task=rate", *options, "data.columns.label=stars")
    assert code == 0, err
    result = rundir.read_json(run / "result.json")
    guess = np.mean([abs(row["stars"] - np.mean([r["stars"] for r in rows])) for row in rows])
    assert result["test/mae"] < guess / 2, "it learnt nothing"
    lines = rundir.read_jsonl(run / "predictions" / "test.jsonl")
    assert result["test/mae"] == pytest.approx(
        np.mean([abs(x["target"] - x["prediction"]) for x in lines])
    )

    new, out = (
        tiny.write_lines(tmp_path / "new.jsonl", [{"text": "aaaaaaab"}, {"text": "abbbbbbb"}]),
        tmp_path / "out.jsonl",
    )
    code, _, err = tiny.jaxsft("predict", f"run={run}", f"input={new}", f"output={out}")
    assert code == 0, err
    many, few = (line["prediction"] for line in rundir.read_jsonl(out))
    assert many > few

    bad = tiny.write_lines(tmp_path / "bad.jsonl", [{"text": "a", "stars": "many"}])
    code, _, err = tiny.jaxsft("eval", f"run={run}", f"data.path={bad}")
    assert code == 1 and "bad.jsonl:1" in err and "expected a text and a finite number" in err


def test_packed_equals_unpacked(registered, tmp_path):
    """The page's promise that packing follows: the loss of the same weights does not depend on
    it."""
    rows = [{"text": "ab" * (1 + i % 5), "label": i % 3} for i in range(24)]
    data, run = tiny.write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "run"
    assert (
        tiny.jaxsft("train", "task=rate", *tiny.FAST, f"run_dir={run}", f"data.train={data}")[0]
        == 0
    )
    losses = []
    for packing in ("true", "false"):
        code, out, err = tiny.jaxsft(
            "eval",
            f"run={run}",
            f"data.path={data}",
            f"data.packing={packing}",
            f"output={tmp_path / packing}",
        )
        assert code == 0, err
        losses.append(json.loads(out)["rows/loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
