"""A cross-validation from the command line to its files: one program, every row held out once, no
word of what is held out in what is learnt, and an interrupted one that goes on.
"""

from __future__ import annotations

import dataclasses
import os
import signal

import jax
import numpy as np
import pytest

from jaxsft.config import compose, overrides
from jaxsft.data import fold_rows, synthetic
from jaxsft.errors import JaxsftError
from jaxsft.rundir import read_json, read_jsonl
from jaxsft.tasks.classify import Classify
from jaxsft.tasks.multilabel import MultiLabelTask
from jaxsft.tasks.regress import Regress
from jaxsft.training import cross_validation, loop, setup
from jaxsft.training.fold_session import FoldSession
from tests import tiny
from tests.compilations import compilations

ROWS = 36
OPTIONS = [
    "model.layers=1",
    "model.embed=8",
    "model.heads=1",
    "model.kv_heads=1",
    "model.head_dim=8",
    "model.mlp=8",
    "model.context=64",
    "model.dropout=0.1",
    "precision=fp32",
    "mesh.data=1",
    "tokenizer=bytes",
    "data.max_length=64",
    "train.batch_size=8",
    "train.duration=2epochs",
    "optim.learning_rate=1e-2",
    "crossval.replicates=50",
    "crossval.level=0.9",
]
MORE = [
    "crossval.folds=3",
    "crossval.groups=author",
    "crossval.choose=[optim.learning_rate=1e-5,optim.learning_rate=1e-2]",
    "crossval.nested=2",
    "crossval.fractions=[0.3,0.6,1]",
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Returns the file of the rows: labels that a byte decides, and numbers."""
    found = [
        {"text": r["prompt"], "label": r["language"], "author": f"a{i % 12}", "score": i % 7 + 0.5}
        for i, r in enumerate(synthetic.generate(0, ROWS))
    ]
    return tiny.write_lines(tmp_path_factory.mktemp("rows") / "rows.jsonl", found)


def composed(*more: str):
    return overrides.composed([*OPTIONS, *more])


@pytest.fixture(scope="module")
def whole(rows, tmp_path_factory):
    """Returns the directory of a cross-validation with all there is, and what was compiled."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    with compilations() as names:
        code, out, err = tiny.jaxsft(
            "crossval", "task=classify", f"data.path={rows}", f"run_dir={run_dir}", *OPTIONS, *MORE
        )
    assert code == 0, err
    return run_dir, names, out


def test_all_trainings_of_all_folds_are_one_program(whole):
    run_dir, names, out = whole
    assert len(list((run_dir / "folds").glob("*.json"))) == 3 * (2 * 2 + 1 + 2)
    assert names.count("step") == names.count("evaluate") == names.count("init_state") == 1, names
    content = read_json(run_dir / "figures" / "crossval.json")
    assert content["compiled"] == {"step": 1, "evaluation": 1}
    assert "compiled: step 1, evaluation 1" in out and "held out" in out


def test_each_row_is_predicted_once_and_groups_are_whole(whole, rows):
    lines = read_jsonl(whole[0] / "predictions" / "oof.jsonl")
    assert [line["row"] for line in lines] == list(range(ROWS))
    authors = [row["author"] for row in read_jsonl(rows)]
    assert len({(a, line["fold"]) for a, line in zip(authors, lines, strict=True)}) == 12
    numbers = read_json(whole[0] / "result.json")
    assert numbers["held_out/accuracy"] == pytest.approx(np.mean([x["correct"] for x in lines]))
    assert numbers["held_out/rows"] == ROWS
    found = read_json(whole[0] / "intervals.json")["held_out/accuracy"]
    assert found["clusters"] == 12 and found["level"] == 0.9
    assert found["low"] <= found["value"] <= found["high"]


def test_each_fold_chooses_by_its_training_rows_and_tells_the_curve_and_the_gaps(whole):
    content = read_json(whole[0] / "figures" / "crossval.json")
    for fold in content["folds"]:
        best = max(fold["candidates"], key=fold["candidates"].get)
        assert fold["candidates"][fold["choice"]] == fold["candidates"][best]
        assert fold["train_rows"] + fold["held_out_rows"] == ROWS
    points = content["learning_curve"]["points"]
    assert (
        len(points) == 9 and points[2]["numbers"]["loss"] == content["folds"][0]["loss"]["held_out"]
    )
    assert content["learning_curve"]["fits"]["loss"]["doubled"]["rows"] > 40
    gaps = read_json(whole[0] / "figures" / "gaps.json")
    of = {gap["number"]: gap for gap in gaps["gaps"]}
    held, train = (gaps["sets"][part]["loss"]["value"] for part in ("held_out", "train"))
    assert of["loss"]["gap"] == pytest.approx(held - train)


@pytest.mark.parametrize("packing", ["false", "true"])
def test_a_fold_is_a_run_on_its_rows_to_the_bit(rows, tmp_path, packing):
    """Without packing; packed texts share a row with room for other numbers of texts, so that sums
    are added in another order.
    """
    own = ["task=classify", f"data.packing={packing}", "crossval.folds=3"]
    config = composed(*own, f"data.path={rows}", f"run_dir={tmp_path / 'folds'}")
    cross_validation.cross_validate(config)
    lines, all_rows = read_jsonl(tmp_path / "folds" / "predictions" / "oof.jsonl"), read_jsonl(rows)
    held = [line["row"] for line in lines if line["fold"] == 1]
    parts = {
        "train": [row for i, row in enumerate(all_rows) if i not in held],
        "validation": [all_rows[i] for i in held],
    }
    files = [
        f"data.{name}={tiny.write_lines(tmp_path / f'{name}.jsonl', part)}"
        for name, part in parts.items()
    ]
    every = ["evaluation.every=1000steps", "checkpoint.every=1000steps", "evaluation.on_train=true"]
    result = loop.train(composed(*own[:2], *files, *every, f"run_dir={tmp_path / 'solo'}"))
    solo = read_jsonl(tmp_path / "solo" / "predictions" / "validation.jsonl")
    ours = [line["probability"] for line in lines if line["fold"] == 1]
    fold = read_json(tmp_path / "folds" / "folds" / "repeat0-fold1.json")
    table = read_json(tmp_path / "solo" / "figures" / "gaps.json")
    gap = result.numbers["validation/loss"] - result.numbers["train/loss"]
    bounds = {name: table["gaps"][0].pop(name) for name in ("low", "high", "se")}
    assert bounds["low"] < gap < bounds["high"] and bounds["se"] > 0
    assert table["gaps"][0] == {
        "number": "loss", "from": "train", "to": "validation", "gap": gap, "worse": gap > 0
    }  # fmt: skip
    assert fold["steps"] == result.numbers["train/steps"]
    if packing == "false":
        assert ours == [line["probability"] for line in solo]
        assert fold["losses"]["held_out"] == result.numbers["validation/loss"]
    else:
        assert ours == pytest.approx([line["probability"] for line in solo], abs=1e-5)


def test_an_interrupted_one_goes_on_with_the_folds_that_are_not_finished(
    whole, rows, tmp_path, monkeypatch
):
    trained, train = [], FoldSession.train

    def interrupted(self, config, part, stopped):
        trained.append(len(part))
        if len(trained) == 9:
            os.kill(os.getpid(), signal.SIGINT)
        return train(self, config, part, stopped)

    monkeypatch.setattr(FoldSession, "train", interrupted)
    words = ["crossval", "task=classify", f"data.path={rows}", f"run_dir={tmp_path / 'run'}"]
    code, _, err = tiny.jaxsft(*words, *OPTIONS, *MORE)
    assert code == 130 and "goes on with the folds" in err and len(trained) == 9
    assert not (tmp_path / "run" / "result.json").exists()
    (tmp_path / "run" / "folds" / "repeat0-fold0.npz").write_bytes(b"damaged")
    code, _, err = tiny.jaxsft(*words, *OPTIONS, *MORE)
    assert code == 0, err
    assert len(trained) == 9 + (21 - 8) + 1  # what is damaged is trained again
    for name in ("result.json", "intervals.json", "predictions/oof.jsonl", "figures/gaps.json"):
        assert (tmp_path / "run" / name).read_bytes() == (whole[0] / name).read_bytes(), name
    code, _, err = tiny.jaxsft(*words, *OPTIONS, *MORE)
    assert code == 0 and "is complete" in err and len(trained) == 23
    code, _, err = tiny.jaxsft(*words, *OPTIONS, *MORE, "crossval.folds=4")
    assert code == 1 and "crossval.folds=3" in err


def test_nothing_of_the_rows_that_are_held_out_is_learnt(rows):
    """Their numbers may be anything: the weights of the fold stay the same, to the bit."""
    config = composed("task=regress", f"data.path={rows}", "data.columns.targets=[score]")
    config = setup.resolve(config)
    given = fold_rows.read_fold_rows(config, Regress)
    train = np.arange(ROWS) % 3 != 0
    moved = [
        record if mine else dataclasses.replace(record, targets=(1e3 * i + 7,))
        for i, (record, mine) in enumerate(zip(given.records.records, train, strict=True))
    ]
    states, sessions = [], []
    for records in (given.records.records, moved):
        session = FoldSession(
            config, given._replace(records=given.records._replace(records=records))
        )
        session.make_room([np.flatnonzero(train)], [np.flatnonzero(~train)])
        model = session.train(session.config, np.flatnonzero(train))
        states.append(jax.device_get(model.state.trainable))
        sessions.append((session, model))
    assert all(map(np.array_equal, *map(jax.tree.leaves, states)))
    session, model = sessions[0]
    scores = [
        record.targets[0] for record, mine in zip(given.records.records, train, strict=True) if mine
    ]
    assert model.task.state["mean"] == [pytest.approx(np.mean(scores))]
    assert session.task.state["mean"] != model.task.state["mean"]
    _, columns = session.columns(model, model.split, np.flatnonzero(~train))
    # the same rows as a set beside
    session.others["test"] = given.records
    _, beside = session.columns(model, session.encoded(model.task, "test"))
    # packed with other rows
    assert beside["predicted"][~train] == pytest.approx(columns["predicted"][~train], abs=1e-5)
    assert (columns["predicted"][train] == 0).all() and (beside["predicted"] != 0).all()
    assert session.compiled == {"step": 1, "evaluation": 1} and columns


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["crossval.groups=nobody"], "no value of 'nobody', which crossval.groups names"),
        (["evaluation.patience=2"], "a fold has no validation split"),
        (["train.until=validation/loss<1"], "a fold has no validation split"),
        (["crossval.choose=[model.layers=2]"], "crossval.choose: model.layers=2: model.layers"),
        (["crossval.nested=2"], "crossval.nested=2: is read"),
        (["crossval.folds=37"], "take fewer folds"),
        (["crossval.level=0.999"], "level=0.999 needs 2000 of them"),
        (["evaluation.slices=[author]"], "evaluation.slices: crossval does not read it"),
        (["data.columns.cluster=author"], "crossval.groups keeps rows together"),
    ],
)
def test_what_it_cannot_do_is_an_error(rows, tmp_path, words, message):
    with pytest.raises(JaxsftError, match=message):
        run_dir = tmp_path / "run"
        cross_validation.cross_validate(
            composed("task=classify", f"data.path={rows}", f"run_dir={run_dir}", *words)
        )


@pytest.mark.parametrize(
    "word", ["evaluation.metric=validation/exact_match", "evaluation.metrics=[exact_match]"]
)
def test_a_metric_of_answers_is_refused(rows, tmp_path, word):
    words = ["task=chat", "evaluation.generate=always", word]
    config = composed(*words, f"data.path={rows}", f"run_dir={tmp_path / 'run'}")
    with pytest.raises(JaxsftError, match="crossval generates no answers"):
        cross_validation.cross_validate(config)
    assert not (tmp_path / "run").exists()


def test_a_longer_training_is_not_complete(whole):
    config = compose.read(whole[0] / "config.yaml")
    assert cross_validation.complete(whole[0], config) == read_json(whole[0] / "result.json")
    longer = dataclasses.replace(config.train, duration="3epochs")
    assert cross_validation.complete(whole[0], dataclasses.replace(config, train=longer)) is None


def test_counts_of_labels_are_those_of_the_training_rows_and_are_compiled_in(tmp_path):
    found = [
        {"text": r["prompt"], "labels": ["even"] * (i % 2 == 0) + ["rare"] * (i == 0)}
        for i, r in enumerate(synthetic.generate(0, ROWS))
    ]
    path = tiny.write_lines(tmp_path / "rows.jsonl", found)
    config = composed("task=multilabel", "task.positive_weight=balanced", f"data.path={path}")
    config = setup.resolve(config)
    session = FoldSession(config, fold_rows.read_fold_rows(config, MultiLabelTask))
    task = session.learnt(np.arange(1, 11))
    assert task.labels == session.task.labels == ["even", "rare"]
    assert task.state["counts"] == [5, 0] and task.state["rows"] == 10
    assert session.task.state["counts"] == [18, 1] and task.numbers_in_program


def test_a_repeat_has_folds_and_seeds_of_its_own(rows):
    config = setup.resolve(composed("task=classify", f"data.path={rows}", "crossval.repeats=2"))
    session = FoldSession(config, fold_rows.read_fold_rows(config, Classify))
    plan = cross_validation.Plan(session, None)
    assert [(fold.repeat, fold.fold) for fold in plan.folds] == [
        (r, k) for r in (0, 1) for k in range(5)
    ]
    first, second = plan.folds[:5], plan.folds[5:]
    for folds in (first, second):
        held = np.concatenate([fold.job.held for fold in folds])
        assert sorted(held) == list(range(ROWS))
    assert any(set(a.job.held) != set(b.job.held) for a, b in zip(first, second, strict=True))
    assert first[0].job.config.seeds == session.config.seeds
    assert second[0].job.config.seeds.init == session.config.seeds.init + 1
