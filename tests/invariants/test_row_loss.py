"""The loss of a split is a function of weights of its rows, as every other number of it."""

import numpy as np
import pytest

from jaxsft.data import pipeline
from jaxsft.data.records import Pair
from jaxsft.evaluation import evaluate as evaluation
from jaxsft.evaluation import passes
from jaxsft.evaluation.results import intervals_of
from jaxsft.tasks.loss_terms import objective_value
from tests.conftest import TASKS, bench

pytestmark = pytest.mark.usefixtures("x64")
TOKENS = {"loss": {"label_smoothing": 0.1, "z_loss": 0.01}}
CASES = {task: TOKENS if task in ("chat", "lm") else {} for task in TASKS if task != "span"} | {
    "seq2seq": {"model": {"context": 128}},
    "classify smoothed": {"loss": {"label_smoothing": 0.1}},
    "classify focal": {"task": {"loss": "focal"}},
    "classify in windows": {"data": {"too_long": "window"}, "model": {"context": 24}},
    "multilabel balanced": {"task": {"positive_weight": "balanced"}},
    "tag chain": {"task": {"crf": True}},
    "tag every piece": {"task": {"align": "all"}},
    "joint weighed": {"task": {"tags": 0.3}},
    "parse with parts of speech": {"task": {"upos": 0.5}},
}


@pytest.mark.parametrize("case", CASES)
def test_the_loss_of_some_rows_is_that_of_these_rows_alone(case):
    """Of all rows, and of two of them."""
    b = bench(case.partition(" ")[0], 13, **CASES[case])
    # windows share the weight of a row, as float32
    tolerance = {"rel": 1e-7 if "windows" in case else 1e-11}
    split, weights = b.batches.split, b.hyper["terms"]
    run = lambda batch: b.evaluate(*b.apart, batch, b.hyper)
    batches = lambda chosen: pipeline.make_batches(split, b.config.data, 4, None, chosen=chosen)
    found = evaluation.evaluate(run, b.parts.task, batches(None), weights)
    one = found.measured["loss"]
    assert one.numbers()["loss"] == pytest.approx(found.numbers["loss"], **tolerance)
    few = np.isin(one.rows, [2, 5])
    examples = np.flatnonzero(np.isin(split.arrays["row"], [2, 5]))
    assert few.sum() == 2 and len(examples) >= 2
    (terms, totals, _), _ = passes.run_pass(run, batches(examples), b.parts.task.decoded)
    alone = objective_value(terms, totals, weights)
    assert one.numbers(few.astype(float))["loss"] == pytest.approx(alone, **tolerance)
    assert abs(alone / found.numbers["loss"] - 1) > 1e-6


def test_in_batch_contrast_has_no_loss_of_a_row():
    b = bench("pair", 13, task={"loss": "contrastive", "encoder": "bi"}, records=_pairs())
    run = lambda batch: b.evaluate(*b.apart, batch, b.hyper)
    batches = pipeline.make_batches(b.batches.split, b.config.data, 4, None)
    found = evaluation.evaluate(run, b.parts.task, batches, b.hyper["terms"])
    assert "loss" not in found.measured and np.isfinite(found.numbers["loss"])
    entry = intervals_of(found, None, b.config)["loss"]
    assert entry["low"] is None and "compared with the others of its batch" in entry["reason"]
    assert entry["value"] == found.numbers["loss"]


def _pairs():
    return [Pair(f"a{i}", f"the b{i}") for i in range(13)], [f"rows.jsonl:{i}" for i in range(13)]
