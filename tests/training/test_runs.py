"""What a run directory holds is enough to use it, and what it lacks is told in a sentence."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil

import pytest

import jaxsft
from jaxsft.config.schema import Columns
from jaxsft.reports import ledger_facts
from jaxsft.rundir import read_json, write_json
from jaxsft.training import banner, loop
from tests import tiny
from tools import fuzz_run

ROWS = [
    {"text": f"{'good' if i % 2 else 'bad'} {i}", "y": i % 2, "w": 0.5 + i % 3} for i in range(12)
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    names = folder / "names.txt"
    names.write_text("negative\npositive\n")
    data = {
        "train": str(tiny.write_lines(folder / "a.jsonl", ROWS)),
        "validation": str(tiny.write_lines(folder / "b.jsonl", ROWS[:4])),
        "columns": Columns(label="y", label_names=str(names), weight="w"),
    }
    # so that the first of two steps is the best one
    every, slow = {"every": "2steps"}, tiny.AdamW(learning_rate=1e-5)
    train = {"duration": "4steps", "batch_size": 4}
    config = tiny.config(
        folder,
        folder / "run",
        "classify",
        data=data,
        train=train,
        checkpoint=every,
        evaluation=every,
        optim=slow,
    )
    return config, loop.train(config).run_dir


def test_the_names_of_the_classes_are_kept(made, tmp_path):
    config, run = made
    names, gone = config.data.columns.label_names, tmp_path / "gone.txt"
    assert read_json(run / "label_names.json") == ["negative", "positive"]
    shutil.move(names, gone)
    try:
        model = jaxsft.load(run)
        assert {line["prediction"] for line in model.predict(["good", "bad"])} <= {
            "negative",
            "positive",
        }
        assert (
            model.evaluate([{"text": "good", "y": 1}, {"text": "bad", "y": "negative"}])[
                "rows_read"
            ]
            == 2
        )
    finally:
        shutil.move(gone, names)
    other = tmp_path / "other.txt"
    other.write_text("positive\nnegative\n")
    assert jaxsft.load(
        run, f"data.columns.label_names={other}"
    ).config.data.columns.label_names == str(other)


def test_weights_of_rows_are_told(made, tmp_path, capfd):
    config, run = made
    ledger = read_json(run / "ledger.json")
    assert (
        ledger["train"]["weights"] == {"min": 0.5, "mean": pytest.approx(1.5), "max": 2.5}
        and "weights" not in ledger["validation"]
    )
    assert ledger_facts.accounts(run)[1]["weights of rows"] == {"train": "0.5 to 2.5, mean 1.5"}
    said = {
        "ledger": {"train": {**ledger["train"]}},
        **dict.fromkeys(("parameters", "trainable", "steps", "steps_per_epoch", "flops"), 1),
    }
    told = banner.banner(
        config, run, said | {"devices": "1 cpu", "memory": "", "peak": None, "notes": []}
    )
    assert (
        "weights    the loss of a row of train counts 0.5 to 2.5, on average 1.5 times (w)" in told
    )


@pytest.mark.parametrize("lost", ["labels", None])
def test_a_task_file_without_a_key_is_told(made, tmp_path, lost):
    run = tiny.unsealed(shutil.copytree(made[1], tmp_path / "run"))
    state = read_json(run / "task.json")
    (run / "task.json").write_text(
        json.dumps({k: v for k, v in state.items() if k != lost} if lost else [state])
    )
    with pytest.raises(
        jaxsft.CheckpointError,
        match=rf"task\.json{' has no .labels.' if lost else ': holds a list'}",
    ):
        jaxsft.load(run).predict(["good"])


def test_a_checkpoint_without_a_key_is_told(made, tmp_path):
    config, run = made
    run = tiny.unsealed(shutil.copytree(run, tmp_path / "run"))
    meta = run / "checkpoints" / "4" / "meta" / "metadata"
    stored = json.loads(meta.read_text())
    del stored["impatience"]
    meta.write_text(json.dumps(stored))
    longer = dataclasses.replace(
        config, run_dir=str(run), train=dataclasses.replace(config.train, duration="6steps")
    )
    with pytest.raises(jaxsft.CheckpointError, match=r"the meta of step 4 has no 'impatience'"):
        loop.train(longer)


# --- bound to itself
# --------------------------------------------------------------------------------------------------
TEXTS = ["good", "bad 3", "good bad"]


def swapped(a, b):
    a.rename(aside := a.with_name("aside")), b.rename(a), aside.rename(b)


EDITS = {
    "another activation": lambda run: edit(
        run / "config.yaml", "activation: ", "activation: relu #"
    ),
    "a comment": lambda run: edit(run / "config.yaml", "task:", "task: # mine"),
    "other labels": lambda run: edit(run / "task.json", "negative", "nagetive"),
    "other ids": lambda run: edit(run / "tokenizer/tokenizer.json", '": 101', '": 1001'),
    "a folder for a file": lambda run: (
        (run / "tokenizer/tokenizer_config.json").unlink(),
        (run / "tokenizer/tokenizer_config.json").mkdir(),
    ),
    "another file": lambda run: (run / "tokenizer/special_tokens_map.json").write_text("{}"),
    "a template": lambda run: (run / "tokenizer/chat_template.jinja").write_text("x"),
    "a prepared set": lambda run: (run / "prepared.json").write_text("{}"),
    "other names": lambda run: edit(run / "label_names.json", "negative", "nagetive"),
    "no names": lambda run: (run / "label_names.json").unlink(),
    "no manifest": lambda run: (run / "manifest.json").unlink(),
    "a manifest without files": lambda run: edit(run / "manifest.json", '"files"', '"filed"'),
    "a manifest of another run": lambda run: edit(run / "manifest.json", '"run": "', '"run": "0'),
    "a manifest of no run": lambda run: write_json(run / "manifest.json", {}),
    "the best step gone": lambda run: shutil.rmtree(
        run / "checkpoints" / str(read_json(run / "steps.json")["best"])
    ),
    "the newest step gone": lambda run: shutil.rmtree(run / "checkpoints/4"),
    "steps exchanged": lambda run: swapped(run / "checkpoints/2", run / "checkpoints/4"),
    "states exchanged": lambda run: swapped(
        run / "checkpoints/2/state", run / "checkpoints/4/state"
    ),
    "metas exchanged": lambda run: swapped(run / "checkpoints/2/meta", run / "checkpoints/4/meta"),
    "another best": lambda run: edit(run / "checkpoints/4/meta/metadata", '"step": 2', '"step": 4'),
    "another best of steps.json": lambda run: edit(run / "steps.json", '"best": ', '"best": 1'),
    "a cut meta": lambda run: os.truncate(run / "checkpoints/4/meta/metadata", 100),
    "nested without end": lambda run: (run / "steps.json").write_text("[" * 100_000),
}
NAMED = {
    "another activation": r"config\.yaml.*KEY=VALUE",
    "a manifest of another run": r"steps\.json: belongs to another run.*manifest\.json",
}


def edit(path, old, new):
    text = path.read_text()
    assert old in text, text[:3000]
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("name", EDITS)
def test_a_run_that_is_not_as_it_was_written_is_never_used_in_silence(made, tmp_path, name):
    run = shutil.copytree(made[1], tmp_path / "run")
    EDITS[name](run)
    with pytest.raises(jaxsft.CheckpointError, match=NAMED.get(name, str(run))) as caught:
        jaxsft.load(run)
    assert "\n" not in str(caught.value)


def test_another_step_is_opened_only_where_it_is_asked_for(made, tmp_path, capsys):
    run = shutil.copytree(made[1], tmp_path / "run")
    best = read_json(run / "steps.json")["best"]
    # any of them may hold weights
    for path in (run / "checkpoints" / str(best) / "state").rglob("d/*"):
        os.truncate(path, min(100, path.stat().st_size))
    with pytest.raises(
        jaxsft.CheckpointError,
        match=rf"checkpoints/{best}: damaged .*checkpoint=newest or checkpoint=STEP",
    ):
        jaxsft.load(run)
    other = jaxsft.load(run, f"checkpoint={6 - best}")
    assert (
        other.step == 6 - best
        and f"checkpoint={6 - best}: the weights of step {6 - best} are used"
        in capsys.readouterr().err
    )
    for asked in ("3", "best", ""):
        with pytest.raises(
            jaxsft.CheckpointError,
            match=rf"checkpoint={asked}: .* has no such step; there are \[2, 4\], or newest",
        ):
            jaxsft.load(run, f"checkpoint={asked}")


def test_a_copy_elsewhere_is_the_same_run(made, tmp_path):
    run = shutil.copytree(made[1], tmp_path / "deep" / "copy")
    # what predictions do not read
    for name in ("report.html", "result.json", "steps.json", "ledger.json"):
        (run / name).unlink(missing_ok=True)
    assert jaxsft.load(run).predict(TEXTS) == jaxsft.load(made[1]).predict(TEXTS)


def test_a_run_from_before_there_were_hashes_is_opened_and_said(made, tmp_path, capsys):
    run = tiny.unsealed(shutil.copytree(made[1], tmp_path / "run"))
    assert jaxsft.load(run).predict(TEXTS) == jaxsft.load(made[1]).predict(TEXTS)
    assert "was written before runs had checksums" in capsys.readouterr().err
    # its steps carry no name
    (run / "manifest.json").write_text((made[1] / "manifest.json").read_text())
    with pytest.raises(
        jaxsft.CheckpointError,
        match=r"damaged \(meta cannot be read: it is not as it was written\)",
    ):
        jaxsft.load(run)


def test_a_run_that_goes_on_writes_again_what_was_damaged_and_says_so(made, tmp_path, capsys):
    config, run = made
    run = shutil.copytree(run, tmp_path / "run")
    whole = (run / "task.json").read_bytes()
    edit(run / "task.json", "negative", "nagetive")
    (run / "tokenizer" / "tokenizer.json").unlink()
    again = dataclasses.replace(config, run_dir=str(run))
    numbers = (run / "result.json").read_bytes()
    loop.train(again)  # complete: nothing is trained
    assert (
        len([line for line in capsys.readouterr().err.splitlines() if "is written again" in line])
        == 2
    )
    assert (run / "task.json").read_bytes() == whole and jaxsft.load(run).step
    assert (run / "result.json").read_bytes() == numbers
    edit(run / "task.json", "negative", "nagetive")
    (run / "result.json").unlink()
    loop.train(again)
    assert (run / "task.json").read_bytes() == whole and jaxsft.load(run).step
    (run / "tokenizer" / "special_tokens_map.json").write_text("{}")
    with pytest.raises(
        jaxsft.CheckpointError,
        match=r"special_tokens_map\.json: is no file of this run .*remove it",
    ):
        loop.train(again)


@pytest.mark.parametrize("seed", range(4))
def test_an_edit_at_random_is_named_or_harmless(made, seed):
    """`python -m tools.fuzz_run` makes many more."""
    use = lambda run: jaxsft.load(run).predict(TEXTS)
    place, change = next(fuzz_run.edits(made[1], random.Random(seed)))
    assert fuzz_run.outcome(made[1], place, change, use, use(made[1]), seed)[0] in (
        "same",
        "named",
    ), place
