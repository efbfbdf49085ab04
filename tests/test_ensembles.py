"""Several runs as one: the mean of their predictions is that computed by hand, soups are means of
weights, and what has no mean is refused.
"""

import copy
import dataclasses
import os

import jax
import numpy as np
import pytest
import safetensors.numpy
import scipy.special
from sklearn.metrics import accuracy_score, log_loss

from jaxsft import ensembles, inference
from jaxsft.commands import ensemble_of_runs
from jaxsft.config.adapters import LoRA
from jaxsft.config.schema import Seeds
from jaxsft.errors import ConfigError, DataError
from jaxsft.metrics.base import Outputs
from jaxsft.rundir import read_json, read_jsonl
from jaxsft.sharding.weights import flatten
from jaxsft.tasks import specs
from jaxsft.tasks.multilabel import MultiLabelTask
from jaxsft.tasks.regress import Regress
from jaxsft.training import loop
from tests import tiny


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny.data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def runs(files, tmp_path_factory):
    """Two short runs from the same start, in another order of rows."""
    folder = tmp_path_factory.mktemp("runs")
    steps = {"duration": "3steps", "batch_size": 4}
    for name, seed in (("a", 0), ("b", 1)):
        seeds = {"init": 0, "data": seed, "dropout": seed}
        loop.train(tiny.config(files, folder / name, "classify", train=steps, seeds=seeds))
    return folder


def asked(runs, files, *more):
    given = f"runs=[{runs / 'a'},{runs / 'b'}]"
    return tiny.jaxsft("ensemble", given, f"data.path={files / 'labels_held.jsonl'}", *more)


def test_the_ensemble_is_the_mean_of_the_probabilities(runs, files, tmp_path):
    code, _, err = asked(
        runs,
        files,
        f"output={tmp_path}",
        "evaluation.metrics=[log_loss]",
        "evaluation.probabilities=true",
    )
    assert code == 0, err
    found = {
        n: read_jsonl(tmp_path / n / "predictions" / "test.jsonl") for n in ("a", "b", "ensemble")
    }
    labels = sorted(found["a"][0]["probabilities"])
    table = lambda lines: np.array([[line["probabilities"][x] for x in labels] for line in lines])
    mean = (table(found["a"]) + table(found["b"])) / 2
    assert np.abs(table(found["a"]) - table(found["b"])).max() > 1e-3  # of two models
    np.testing.assert_allclose(table(found["ensemble"]), mean, atol=2e-6)
    gold = [line["label"] for line in found["a"]]
    numbers = read_json(tmp_path / "ensemble" / "result.json")
    assert numbers["test/accuracy"] == accuracy_score(gold, np.array(labels)[mean.argmax(1)])
    assert numbers["test/log_loss"] == pytest.approx(log_loss(gold, mean, labels=labels), rel=1e-4)
    bounds = read_json(tmp_path / "ensemble" / "intervals.json")["test/log_loss"]
    assert bounds["low"] < bounds["value"] < bounds["high"]
    # convex: no worse than the mean of the members, whatever they are
    alone = [read_json(tmp_path / n / "result.json")["test/log_loss"] for n in ("a", "b")]
    assert numbers["test/log_loss"] <= np.mean(alone)


def test_a_terminal_shows_a_column_for_each_model(capsys):
    bounds = {"accuracy": {"low": 0.25, "high": 0.75}}
    models = {name: ({"accuracy": 0.5, "loss": 1.5}, bounds) for name in ("a", "b", "ensemble")}
    ensemble_of_runs._show(models, "accuracy", True)
    heads, first, *_ = capsys.readouterr().out.splitlines()
    assert heads.split() == ["a", "b", "ensemble"]
    assert first.split()[0] == "accuracy" and first.count("0.5 [0.25, 0.75]") == 3


def test_a_soup_has_the_mean_of_the_weights(runs, files, tmp_path):
    models = {name: inference.load(runs / name) for name in ("a", "b")}
    soup = ensembles.soup(models)
    weights = {name: flatten(model.run.weights) for name, model in {**models, "soup": soup}.items()}
    for path, value in weights["soup"].items():
        np.testing.assert_allclose(value, (weights["a"][path] + weights["b"][path]) / 2, atol=1e-7)
    kept = ensembles.greedy_soup(models, str(files / "labels.jsonl"), "loss", True)
    value = lambda model: model.scored(str(files / "labels.jsonl"), "select")[2]["loss"]
    best = value(ensembles.soup(kept))
    assert best <= min(map(value, models.values()))
    if len(kept) == 1:  # with the other one it is worse
        assert value(soup) > best
    given = ["soup=uniform", f"export={tmp_path / 'out'}", "export.head=body"]
    code, out, err = asked(runs, files, *given)
    assert code == 0, err
    assert "soup/accuracy" in out
    written = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors").values()
    words = next(x for path, x in weights["soup"].items() if path.startswith("embed"))
    assert any(x.shape == words.shape and np.array_equal(x, words) for x in written)


def test_weights_of_other_models_make_no_soup(runs, files, tmp_path):
    other = {"layers": 1, "embed": 16, "heads": 2, "kv_heads": 2, "head_dim": 8, "mlp": 16}
    loop.train(
        tiny.config(
            files,
            tmp_path / "c",
            "classify",
            model=other,
            train={"duration": "1steps", "batch_size": 4},
        )
    )
    models = {"a": inference.load(runs / "a"), "c": inference.load(tmp_path / "c")}
    with pytest.raises(ConfigError, match="of c is trained and not as in a"):
        ensembles.soup(models)
    found = ensembles.score(models, str(files / "labels_held.jsonl"), "test")
    mean = ensembles.ensemble(
        models["a"], list(found.values()), None
    )  # of predictions there is one
    assert 0 <= mean.evaluation.numbers["accuracy"] <= 1


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["soup=greedy"], "soup=greedy: chooses on select=FILE"),
        (["soup=best"], "soup=best: expected one of uniform, greedy"),
        (["export=x"], "export=: writes a soup"),
        (
            ["soup=uniform", "evaluation.metrics=[ece]"],
            "evaluation.metrics=[ece]: unknown; there are",
        ),
    ],
)
def test_what_does_not_go_together_is_told(more, sentence, runs, files):
    code, _, err = asked(runs, files, *more)
    assert code == 1 and sentence in err and "Traceback" not in err


def test_rows_that_one_run_leaves_out_are_named(runs, files):
    class Leaves:
        task = inference.load(runs / "a").task

        def __init__(self, drop):
            self.drop = drop

        def scored(self, file, name):
            split, result, numbers = inference.load(runs / "a").scored(file, name)
            keep = np.arange(len(result.outputs.rows)) != self.drop
            rows = result.outputs.rows[keep]
            object.__setattr__(result.outputs, "rows", rows)
            return split, result, numbers

    with pytest.raises(DataError, match=r"labels_held.jsonl:3: is scored by a and left out by b"):
        ensembles.score({"a": Leaves(-1), "b": Leaves(2)}, str(files / "labels_held.jsonl"), "test")


def test_means_of_label_sets_and_numbers():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 5, 4)) * 30  # far beyond where a sigmoid is 0 or 1
    of = lambda **arrays: Outputs(np.arange(5), arrays, [])
    mixed = MultiLabelTask.mixed(None, [of(logits=z) for z in logits])["logits"]
    wanted = scipy.special.logit(scipy.special.expit(logits.astype(np.longdouble)).mean(0))
    inner = np.isfinite(wanted)
    np.testing.assert_allclose(mixed[inner], wanted[inner].astype(float), rtol=1e-6, atol=1e-9)
    assert np.isfinite(mixed).all()

    class Numbers:
        spread, scale = False, (np.array([10.0]), np.array([2.0]))

    values = [rng.normal(size=(5, 1)) for _ in range(3)]
    found = Regress.mixed(Numbers, [of(predictions=v) for v in values])["predicted"]
    np.testing.assert_allclose(found * 2 + 10, np.mean(values, 0))


def test_every_task_has_a_mean_or_says_that_it_has_none():
    from jaxsft import tasks

    for name in specs.SPECS:
        task = tasks.get(name)
        if task.mixed.__qualname__.startswith("PredictionLines"):
            with pytest.raises(ConfigError, match=f"task={name}: its predictions have no mean"):
                task.mixed(task.__new__(task), [])


def read_as(model, task=None, model_options=None, **groups):
    """Returns a model whose config differs."""
    config = dataclasses.replace(model.config, **groups)
    for name, change in (("task", task), ("model", model_options)):
        if change:
            group = dataclasses.replace(getattr(config, name), **change)
            config = dataclasses.replace(config, **{name: group})
    of_task = copy.copy(model.task)
    of_task.config = config
    parts = dataclasses.replace(model.run.parts, config=config, task=of_task)
    return inference.Model(dataclasses.replace(model.run, parts=parts))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"adapter": LoRA()}, r"soup=: b has an adapter \(LoRA\), and the mean of adapters is not"),
        ({"seeds": Seeds(init=5)}, r"what it started from, of b and a: 'seeds.init=5' and"),
        ({"task": {"pool": "max"}}, r"soup=: task.pool of b and a: 'max' and"),
        ({"model_options": {"rope_base": 77.0}}, r"soup=: model.rope_base of b and a: 77.0 and"),
    ],
    ids=str,
)
def test_weights_that_mean_something_else_make_no_soup(change, sentence, runs):
    models = {name: inference.load(runs / name) for name in ("a", "b")}
    models["b"] = read_as(models["b"], **change)
    with pytest.raises(ConfigError, match=sentence):
        ensembles.soup(models)


def test_a_greedy_soup_by_no_number_is_told(runs, files):
    models = {name: inference.load(runs / name) for name in "ab"}
    with pytest.raises(ConfigError, match=r"evaluation.metric: there is no best of .*accuracy"):
        ensembles.greedy_soup(models, str(files / "labels.jsonl"), "best", True)


def test_numbers_in_other_units_make_no_soup(runs):
    models = {name: inference.load(runs / name) for name in ("a", "b")}
    for name, mean in (("a", 1.0), ("b", 2.0)):
        models[name].task.state = {"targets": ["x"], "mean": [mean], "deviation": [1.0]}
    with pytest.raises(ConfigError, match=r"the mean of training of b and a: \[2.0\] and \[1.0\]"):
        ensembles.soup(models)


def test_votes_of_windows_are_counted_once(runs, files):
    """The mean of the shares of several runs is not put to the vote again."""
    models = {name: read_as(inference.load(runs / name), {"windows": "vote"}) for name in "ab"}
    found = list(ensembles.score(models, str(files / "labels_held.jsonl"), "test").values())
    mean = ensembles.ensemble(models["a"], found, None)
    likely = lambda one: scipy.special.softmax(one.outputs["logits"], -1)
    np.testing.assert_allclose(likely(mean), (likely(found[0]) + likely(found[1])) / 2, atol=1e-9)
    lines = mean.task.predictions(mean.split, mean.evaluation.columns, None)
    shares = [line["probability"] for line in lines]
    np.testing.assert_allclose(shares, likely(mean).max(-1), atol=1e-6)


def test_thresholds_are_those_of_the_mean_and_of_the_soup(tmp_path):
    """What is written and the numbers are of one threshold: neither that of the first run."""
    rng = np.random.default_rng(0)
    words = [" ".join(rng.choice(["red", "cat", "sun"], 3)) for _ in range(24)]
    rows = [{"text": text, "labels": sorted(set(text.split()))} for text in words]
    names = {"train": rows[:12], "select": rows[12:18], "test": rows[18:]}
    for name, some in names.items():
        tiny.write_lines(tmp_path / f"{name}.jsonl", some)
    file = lambda name: str(tmp_path / f"{name}.jsonl")
    tiny.train(
        "task=multilabel",
        *tiny.FAST[: len(tiny.MODEL) + 1],
        "train.duration=1steps",
        "mesh.data=1",
        f"data.train={file('train')}",
        f"data.validation={file('select')}",
        "task.threshold=tuned",
        "data.columns.label=labels",
        f"run_dir={tmp_path / 'a'}",
    )
    one = inference.load(tmp_path / "a")
    one.task.state["thresholds"] = [0.999, 0.999, 0.999]  # of no use to another model
    weights = jax.tree.map(lambda w: w * 1.5, one.run.weights)
    models = {"a": one, "b": inference.Model(dataclasses.replace(one.run, weights=weights))}
    mine = {"data.path": file("test"), "select": file("select"), "soup": "uniform"}
    found, _ = ensemble_of_runs._scored(models, mine)
    for name in ("ensemble", "soup"):
        scored = found[name][1]
        assert scored.outputs.beside["threshold"].max() < 0.999
        ensemble_of_runs._bounds(scored, tmp_path / name)
        lines = read_jsonl(tmp_path / name / "predictions" / "test.jsonl")
        given = [[x in line["prediction"] for x in scored.task.labels] for line in lines]
        np.testing.assert_array_equal(given, scored.outputs["given"])
        assert np.any(given)
    with pytest.raises(ConfigError, match=r"thresholds of the runs are not those of their soup"):
        ensembles.soup(models)


def test_results_take_no_place_of_a_run(runs, files, tmp_path):
    os.link(files / "labels_held.jsonl", tmp_path / "other.jsonl")
    for more, sentence in {
        (f"output={runs}",): "a is a run, whose results would be lost",
        (f"runs={{../x: {runs}/a, b: {runs}/b}}", "output=x"): "../x names no folder in output=x",
        (f"runs=[{runs}/a,{runs}/b/../a]",): "are one run, which would count twice",
        (f"select={tmp_path / 'other.jsonl'}",): "select= is the file that is scored",
    }.items():
        given = [f"runs=[{runs}/a,{runs}/b]"] if not more[0].startswith("runs=") else []
        path = f"data.path={files / 'labels_held.jsonl'}"
        code, _, err = tiny.jaxsft("ensemble", *given, path, *more)
        assert code == 1 and sentence in err, err
