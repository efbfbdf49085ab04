"""The studies of `experiments/` in miniature: their rows are written, all of their trials are
composed and checked, and one of each is trained for two steps.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
from pathlib import Path

import pytest

from jaxsft.rundir import read_json, read_jsonl
from jaxsft.sweeps import command_grid, preflight, study_file
from jaxsft.sweeps.command_grid import SweepCommand
from jaxsft.training import loop

ROOT = Path(study_file.__file__).parents[2] / "experiments"
TINY = [
    *("model.layers=1", "model.embed=8", "model.heads=1", "model.kv_heads=1", "model.head_dim=8"),
    *("model.mlp=16", "model.context=128", "train.duration=2steps", "precision=fp32"),
    *("train.log_every=1steps", "evaluation.every=2steps", "checkpoint.every=2steps"),
]


def module_of(name: str):
    """The script of a study, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / name / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def configs_of(name: str, *words: str) -> list:
    study = study_file.read(ROOT / name)
    return command_grid.of_study(SweepCommand.of_arguments(list(words)), study).configs


def train(config, folder: Path) -> dict:
    loop.train(dataclasses.replace(config, run_dir=str(folder)))
    return read_json(folder / "result.json")


def test_how_much_is_trained(tmp_path):
    script = module_of("how_much_is_trained")
    for name in ("train", "test"):
        with open(tmp_path / f"{name}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "category"])
            for label in script.LABELS:
                writer.writerows([f"{label} {name} {i}", label] for i in range(30))
    rows = tmp_path / "rows"
    script.write_rows(tmp_path, rows)
    counts = {name: len((rows / f"{name}.csv").read_text().splitlines()) for name in script.SPLITS}
    assert counts == {"train": 241, "validation": 121, "test": 241}
    texts = [set((rows / f"{name}.csv").read_text().splitlines()[1:]) for name in script.SPLITS]
    assert not texts[0] & texts[1] and not texts[0] & texts[2]
    places = [f"data.{name}={rows / name}.csv" for name in script.SPLITS]
    configs = configs_of("how_much_is_trained", *places, *TINY)
    assert len(configs) == 25
    for config in configs[:20:5]:  # the frozen one needs a pretrained model
        preflight.check(config)
    found = train(configs[5], tmp_path / "run")
    assert configs[5].adapter.rank == 2 and found["train/steps"] == 2
    assert 0 <= found["validation/accuracy"] <= 1


def test_packing_and_schedule(tmp_path):
    script = module_of("packing_and_schedule")
    rows = tmp_path / "rows"
    script.write_rows(rows)
    splits = {name: read_jsonl(rows / f"{name}.jsonl") for name in script.SPLITS}
    assert {name: len(found) for name, found in splits.items()} == script.SPLITS
    prompts = [{row["prompt"] for row in found} for found in splits.values()]
    assert sum(map(len, prompts)) == len(set.union(*prompts)) == 720
    places = [f"data.{name}={rows / name}.jsonl" for name in script.SPLITS]
    template = f"task.template={ROOT / 'packing_and_schedule' / 'turns.jinja'}"
    configs = configs_of("packing_and_schedule", *places, template, *TINY)
    assert len(configs) == 36
    for config in configs[::3]:
        preflight.check(config)
    kinds = {(c.data.packing, c.train.batch_size, c.schedule.name) for c in configs}
    assert len(kinds) == 6 and {kind[:2] for kind in kinds} == {(True, 4), (False, 16)}
    found = train(configs[0], tmp_path / "run")
    assert found["train/steps"] == 2 and found["validation/loss"] > 0


@pytest.mark.parametrize("name", [path.parent.name for path in ROOT.glob("*/run.py")])
def test_a_study_has_a_page_with_a_figure(name):
    text = (ROOT / name / "README.md").read_text(encoding="utf-8")
    assert "![" in text and (ROOT / name / "figure.png").is_file()
    assert f"python experiments/{name}/run.py" in text


def test_frozen_bits(tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\none,a\ntwo,b\n", encoding="utf-8")
    configs = configs_of(
        "frozen_bits", f"data.path={rows}", "model.pretrained=null", "model.dropout=0"
    )
    kinds = [config.model.frozen_dtype for config in configs]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(
        ("float", "int8", "nf4", "int4"), 3
    )
