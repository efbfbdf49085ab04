"""The trust suite of the tasks on whole texts: a text does not know its row, its mates, the
padding, its micro-batch or its device.
"""

import dataclasses
import functools
import math

import jax
import numpy as np
import pytest

from jaxsft import losses, tasks
from jaxsft.config import schema
from jaxsft.data.pipeline import Batches
from jaxsft.data.records import Pair, Regression
from jaxsft.errors import ConfigError, DataError
from jaxsft.tasks.pair import split_pairs
from tests.conftest import LABELS, assert_close, bench, distance, make_records
from tests.invariants.test_packing import left_padded
from tests.measuring import numbers_of

pytestmark = pytest.mark.usefixtures("x64")
KINDS = {  # name: task, its options
    "multilabel": ("multilabel", {"positive_weight": "balanced", "pool": "max"}),
    "brier": ("multilabel", {"loss": "mse", "head": "dense", "positive_weight": 3.0}),
    "regress": ("regress", {"pool": "attention", "head": "dense", "activation": "gelu"}),
    "huber": (
        "regress",
        {"loss": "huber", "huber_delta": 0.5, "standardize": False, "bias": False},
    ),
    "cross": ("pair", {"head": "dense", "activation": "relu", "pool": "first"}),
    "cross scores": ("pair", {"loss": "mse"}),
    "bi": ("pair", {"encoder": "bi", "pool": "attention"}),
    "bi scores": ("pair", {"encoder": "bi", "loss": "mse"}),
    "cosine": (
        "pair",
        {
            "encoder": "bi",
            "loss": "cosine_embedding",
            "positive": "good",
            "margin": -0.5,
            "labels": ("bad", "good"),
        },
    ),
    "columns": ("multilabel", {}),
    "contrastive": (
        "pair",
        {"encoder": "bi", "loss": "contrastive", "head": "dense", "temperature": 0.5},
    ),
}


def records_of(name):
    task, options = KINDS[name]
    found, where = make_records(task, 13, longest=28)
    if task == "pair":
        loss = options.get("loss", "cross_entropy")
        made = {
            "mse": lambda i, p: Pair(p.text_a, p.text_b, score=float(i % 5)),
            "contrastive": lambda i, p: Pair(p.text_a, p.text_b),
        }
        made |= {
            "cosine_embedding": lambda i, p: dataclasses.replace(p, label=("bad", "good")[i % 2])
        }
        found = [made.get(loss, lambda i, p: p)(i, p) for i, p in enumerate(found)]
    if name == "columns":
        found = [
            dataclasses.replace(r, features=(None if i % 4 == 3 else str(i * i), "ab"[i % 2]))
            for i, r in enumerate(found)
        ]
    return found, where


COLUMNS = schema.Columns(features=("number", "kind"), missing="mask")


# the others differ from these in the loss alone
STEPS = ("multilabel", "columns", "regress", "cross", "bi", "contrastive")


@functools.cache
def made(name, packing=True, accumulate=1, mesh=(), causal=False):
    """All rows are one batch, packed or one text a row; rows are longer where they are not
    packed."""
    task, options = KINDS[name]
    return bench(
        task,
        records=records_of(name),
        task=options,
        data={"packing": packing, "max_length": 40 if packing else 64}
        | ({"columns": COLUMNS} if name == "columns" else {}),
        train={"batch_size": 16, "accumulate": accumulate},
        mesh=dict(mesh),
        model={"layers": 1, "causal": causal},
    )


def same_update(a, b, k=0):
    (one, sums), (two, other) = a.run([k]), b.run([k])
    assert distance(one.trainable, a.params) > 1e-4 and not sums.skipped
    assert_close(
        (sums.terms, sums.totals, sums.states, sums.grad_norm),
        (other.terms, other.totals, other.states, other.grad_norm),
        rtol=1e-11,
    )
    assert_close(one.trainable, two.trainable, atol=1e-11)


FAST = ("columns", "regress", "contrastive")


def some(names):
    """The tasks, of which all but a few are slow: each compiles programs of its own."""
    return [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", some(STEPS))
def test_packing_changes_no_sum_and_no_gradient(name):  # guards B1, B9
    packed, plain = made(name), made(name, packing=False)
    assert (
        packed.batches.plan.texts > 1
        and packed.batches.plan.rows < plain.batches.plan.rows
        and len(plain.batches) == 1
    )
    same_update(packed, plain)


@pytest.mark.parametrize("name", some(name for name in STEPS if name != "contrastive"))
def test_micro_batches_give_the_same_step(name):  # guards A1, A2, A5
    """The last ones have empty rows."""
    same_update(made(name, packing=False), made(name, packing=False, accumulate=8))


@pytest.mark.parametrize("name", ["contrastive"])
def test_devices_do_not_matter(name):  # guards A3
    """The pairs of all devices are compared with each other; three rows are empty."""
    same_update(made(name, packing=False), made(name, packing=False, mesh=(("data", 8),)))


@pytest.mark.parametrize(
    "name, causal",
    [
        *(
            pytest.param(name, False, marks=() if name in FAST else pytest.mark.slow)
            for name in KINDS
        ),
        *(
            pytest.param(name, True, marks=pytest.mark.slow)
            for name in ("regress", "multilabel", "bi")
        ),
    ],
)
def test_a_text_does_not_know_its_mates(name, causal):  # guards E11, B1
    """What is said of it: packed, alone, padded left and right, in longer rows."""

    def said(b, batch):
        found = b.evaluate(*b.apart, batch, b.hyper)[1]
        # beside the terms of its loss
        (values,) = (v for k, v in found.items() if not k.startswith(("loss.", "weight.")))
        return {
            int(e): np.asarray(values[i]) for i, e in np.ndenumerate(batch.example_ids) if e >= 0
        }

    in_order = lambda b: dataclasses.replace(
        b, batches=Batches(b.batches.split, b.batches.plan, 16, None)
    )
    packed, wide = (
        in_order(made(name, causal=causal)),
        in_order(made(name, packing=False, causal=causal)),
    )
    expected = said(wide, wide.batches[0])
    assert len(expected) == 13 and np.ptp(np.stack(list(expected.values())), axis=0).max() > 1e-3
    for batch in (packed.batches[0], left_padded(packed.batches[0])):
        assert_close(said(packed, batch), expected)


def test_texts_of_a_pair_are_read_apart():  # guards B2
    """Other ids in the second text change no bit of the first one's vector; positions begin at 0 in
    both.
    """
    b = made("bi scores")
    read = jax.jit(lambda batch: b.parts.task.read(b.parts.model, b.params, batch, None))
    batch = b.batches[0]
    other = batch._replace(
        tokens=np.where(batch.types == 1, (batch.tokens + 7) % 250, batch.tokens)
    )
    before, after = np.asarray(read(batch)), np.asarray(read(other))
    there = batch.example_ids >= 0
    np.testing.assert_array_equal(before[there][:, 0], after[there][:, 0])
    assert (np.abs(before - after)[there][:, 1].max(-1) > 1e-6).all()
    where = split_pairs(batch)
    for i, g in np.argwhere(there):
        for k in (0, 1):
            mine = np.asarray(where.segment_ids)[i] == 2 * g + 1 + k
            np.testing.assert_array_equal(
                np.asarray(where.positions)[i][mine], np.arange(mine.sum())
            )
            np.testing.assert_array_equal(
                mine, (batch.segment_ids[i] == g + 1) & (batch.types[i] == k)
            )


# --- what the losses are
# --------------------------------------------------------------------------------------------------
def evaluated(name):
    b = made(name)
    sums, columns = b.evaluate(*b.apart, b.batches[0], b.hyper)
    return b, sums, columns, b.batches[0].example_ids


def by_row(ids, values):
    return np.stack([np.asarray(values)[tuple(np.argwhere(ids == e)[0])] for e in range(13)])


def test_losses_of_several_labels_by_hand():
    b, ((loss,), (total,), _), columns, ids = values_of("multilabel")
    z, records = by_row(ids, columns["logits"]), records_of("multilabel")[0]
    gold = np.array([[label in r.labels for label in b.parts.task.labels] for r in records])
    weight = (len(gold) - gold.sum(0)) / gold.sum(0)
    expected = np.where(gold, weight * np.logaddexp(0, -z), np.logaddexp(0, z)).mean(1).sum()
    assert loss == pytest.approx(expected, rel=1e-6) and total == 13
    b, ((loss,), _, _), columns, ids = values_of("brier")
    p = 1 / (1 + np.exp(-by_row(ids, columns["logits"])))
    assert loss == pytest.approx((np.where(gold, 3, 1) * (p - gold) ** 2).mean(1).sum(), rel=1e-9)


def values_of(name):
    b, (terms, totals, states), columns, ids = evaluated(name)
    return (
        b,
        ([float(x) for x in terms.values()], [float(x) for x in totals.values()], states),
        columns,
        ids,
    )


def known(b, columns):
    """Evaluation gives the numbers whose names the task knows before it has seen any data."""
    return set(b.parts.task.metric_names(b.config)) == {
        "loss",
        *numbers_of(b.parts.task, b.batches.split, columns),
    }


def test_missing_targets_are_left_out():  # guards A5, E8
    b, ((loss,), (total,), _), columns, ids = values_of("regress")
    gold = np.array([r.targets for r in records_of("regress")[0]])
    there, task = np.isfinite(gold), b.parts.task
    assert total == there.sum() < gold.size
    scaled = (gold - np.nanmean(gold, 0)) / np.nanstd(gold, 0)
    assert loss == pytest.approx(
        np.square(by_row(ids, columns["predicted"]) - scaled)[there].sum(), rel=1e-5
    )
    columns = {"predicted": by_row(ids, columns["predicted"])}
    numbers = numbers_of(task, b.batches.split, columns)
    predicted = columns["predicted"] * np.nanstd(gold, 0) + np.nanmean(gold, 0)
    error = np.where(there, predicted - gold, math.nan)
    assert numbers["mae"] == pytest.approx(np.mean(np.nanmean(np.abs(error), 0)))
    assert (
        numbers["mae_x"] == pytest.approx(np.nanmean(np.abs(error[:, 0]))) and numbers["rows"] == 13
    )
    assert known(b, columns) and [
        task.sign(name) for name in ("loss", "rmse", "rmse_x", "mae_y", "r2_x", "pearson")
    ] == [-1, -1, -1, -1, 1, 1]
    lines = list(task.predictions(b.batches.split, columns, None))
    assert lines[1]["label"][task.targets[0]] is None and lines[0]["prediction"][
        task.targets[1]
    ] == pytest.approx(predicted[0, 1])


def test_contrast_by_hand():  # guards E8
    b, ((loss,), (total,), _), columns, ids = values_of("contrastive")
    vectors = by_row(ids, columns["vectors"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, rtol=1e-9)
    scores = vectors[:, 0] @ vectors[:, 1].T / 0.5
    log_p = lambda s: np.diag(s) - np.log(np.exp(s).sum(1))
    assert (
        loss == pytest.approx(-(log_p(scores) + log_p(scores.T)).sum() / 2, rel=1e-6)
        and total == 13
    )
    assert "head" in b.params  # the dense layer
    assert known(b, {"vectors": vectors})


def test_cosines_by_hand():
    b, ((loss,), _, _), columns, ids = values_of("cosine")
    cosine = by_row(ids, columns["predicted"])
    together = np.array([r.label == "good" for r in records_of("cosine")[0]])
    assert loss == pytest.approx(
        np.where(together, 1 - cosine, np.maximum(cosine + 0.5, 0)).sum(), rel=1e-9
    )
    assert "head" not in b.params  # nothing to learn there
    assert known(b, {"predicted": cosine})
    for threshold in (-1.0, 1.0):
        task = dataclasses.replace(b.config.task, threshold=threshold)
        told = tasks.get("pair")(
            dataclasses.replace(b.config, task=task), b.parts.tokenizer, b.parts.task.state
        )
        lines = list(told.predictions(b.batches.split, {"predicted": cosine}, None))
        assert {line["prediction"] for line in lines} == {"good" if threshold < 0 else "bad"}
    b, ((loss,), _, _), columns, ids = values_of("bi scores")
    gold = np.array([r.score for r in records_of("bi scores")[0]])
    assert loss == pytest.approx(
        np.square(by_row(ids, columns["predicted"]) - gold / 4).sum(), rel=1e-6
    )
    assert known(b, {"predicted": by_row(ids, columns["predicted"])})


def test_columns_stand_in_front_of_their_text():
    """Two places behind the special tokens; another number or class changes what is said of its own
    text alone.
    """
    b, batch = made("columns"), made("columns").batches[0]
    start = b.parts.tokenizer.wrap([], None).head
    read = jax.jit(lambda batch: b.parts.task.read(b.parts.model, b.params, batch, None))
    before = np.asarray(read(batch))
    for name in ("numbers", "classes"):
        other = np.array(batch.segment[name])
        other[0, 0] = 1 - other[0, 0]
        changed = np.abs(
            np.asarray(read(batch._replace(segment={**batch.segment, name: other}))) - before
        ).max(-1)
        assert changed[0, 0] > 1e-6 and not changed.ravel()[1:].any()
    ids = np.where((batch.positions >= start) & (batch.positions < start + 2), 77, batch.tokens)
    # no token is read there
    np.testing.assert_array_equal(read(batch._replace(tokens=ids)), before)
    records = records_of("columns")[0]
    for i, g in np.argwhere(batch.example_ids >= 0):
        text = batch.tokens[i][batch.segment_ids[i] == g + 1]
        frame = b.parts.tokenizer.wrap(
            b.parts.tokenizer.encode(records[batch.example_ids[i, g]].text), None
        ).ids
        assert text.tolist() == [*frame[:start], 0, 0, *frame[start:]]
    table = np.asarray(b.params["head"]["features"]["table"])
    # number: there, missing; kind: another, a, b
    assert not table[[0, 2]].any() and table[[1, 3, 4]].any(1).all()


@pytest.mark.parametrize("how", ["window", "sentence"])
def test_the_parts_of_a_long_text_weigh_as_much_as_a_short_one(how):  # guards D6
    """Their weights add to 1, and what is said of the row is the mean of what is said of them."""
    records = [
        dataclasses.replace(r, text=f"{r.text[:9]}. {r.text[9:]}")
        for r in make_records("multilabel", 13, longest=40)[0]
    ]
    b = bench(
        "multilabel",
        records=(records, [f"a:{i}" for i in range(13)]),
        data={"too_long": how, "max_length": 20},
        train={"batch_size": 16},
        model={"layers": 1},
    )
    split = b.batches.split
    weight = np.bincount(split.arrays["row"], split.arrays["segment.weight"])
    np.testing.assert_allclose(weight, 1, rtol=1e-6)
    parts = np.bincount(split.arrays["row"])
    assert (
        parts.max() > 1
        and parts.min() == 1
        and split.ledger["tokens"]["kept"] == sum(len(r.text) + 2 for r in records)
    )
    total = sum(
        float(b.parts.task.totals(b.batches[k])["binary_cross_entropy"])
        for k in range(len(b.batches))
    )
    assert total == pytest.approx(13)
    logits = np.random.default_rng(0).normal(size=(split.examples, 3))
    lines = list(b.parts.task.predictions(split, {"logits": logits}, None))
    long = int(parts.argmax())
    expected = 1 / (1 + np.exp(-logits[split.arrays["row"] == long].mean(0)))
    assert len(lines) == 13 and list(lines[long]["probability"].values()) == pytest.approx(
        expected, abs=1e-6
    )


OPTIONS = {  # option: another value, and what must be set for it to be read
    "pool": ("last", {}),
    "head": ("dense", {}),
    "activation": ("relu", {"head": "dense"}),
    "bias": (False, {}),
    "features": ("text", {}),
    "feature_template": ("{value} ", {"features": "text"}),
    "labels": (("good", "fair", "bad"), {}),
    "loss": ("mse", {}),
    "positive_weight": (2.0, {}),
    "threshold": (0.3, {}),
    "standardize": (False, {}),
    "encoder": ("bi", {}),
    "positive": (
        "bad",
        {
            "encoder": "bi",
            "loss": "cosine_embedding",
            "labels": ("bad", "good"),
            "positive": "good",
        },
    ),
    "margin": (
        0.2,
        {
            "encoder": "bi",
            "loss": "cosine_embedding",
            "labels": ("bad", "good"),
            "positive": "good",
        },
    ),
    "temperature": (1.0, {"encoder": "bi", "loss": "contrastive"}),
    "ordinal": (True, {"labels": ("bad", "fair", "good")}),
    "supervised_contrastive": (0.5, {}),
    "contrast_temperature": (0.5, {"supervised_contrastive": 0.5}),
    "prior_correction": (0.5, {}),
}


def of_a_loss(name):
    """Another value of an option that one loss declares, and that loss."""
    (of,) = (loss for loss in losses.LOSSES if name in losses.get(loss).own_options)
    default = losses.get(of).own_options[name].default
    if isinstance(default, str):  # a duration
        return "50%", {"loss": of}
    return default / 2 if default else 0.5, {"loss": of}


def fingerprint(task, options):
    """Weights, examples, traced values and the lowered step."""
    records, where = make_records(task, 6, longest=12)
    loss = options.get("loss")
    if task == "pair" and losses.get(loss or "cross_entropy").targets != "labels":
        kinds = {"cosine_embedding": {"label": "good"}, "contrastive": {"label": None}}.get(
            loss, {"label": None, "score": 1.0}
        )
        records = [
            dataclasses.replace(
                r,
                **(kinds | ({"label": LABELS[2 * (i % 2)]} if loss == "cosine_embedding" else {})),
            )
            for i, r in enumerate(records)
        ]
        records = [
            dataclasses.replace(r, score=float(i)) if r.score is not None else r
            for i, r in enumerate(records)
        ]
    columns = {}
    if task != "pair":
        records = [dataclasses.replace(r, features=(str(i),)) for i, r in enumerate(records)]
        columns = {
            "columns": schema.Columns(
                features=("number",), targets=("x", "y") if task == "regress" else ()
            )
        }
    b = bench(task, records=(records, where), task=options, data=columns, model={"layers": 1})
    batch = b.batches[0]
    return [
        jax.tree.map(lambda x: x.shape, b.params),
        repr(jax.tree.leaves(batch)),
        repr(b.hyper),
        b.evaluate.lower(*b.apart, batch, b.hyper).as_text(),
    ]


@pytest.mark.parametrize(
    "task, kind",
    [
        ("regress", schema.RegressTask),
        *(
            pytest.param(kind.name, kind, marks=pytest.mark.slow)
            for kind in (schema.ClassifyTask, schema.MultiLabelTask, schema.PairTask)
        ),
    ],
)
def test_every_option_of_a_task_acts(task, kind):  # guards H5
    plain = {}
    for field in dataclasses.fields(kind):
        # what cosines and metrics decide is decided on the host: see below, and the metrics; a file
        # of transitions, and two passes with dropout, have tests of their own in losses/; how
        # windows are joined too, in tasks/
        elsewhere = ("name", "out_of_scope", "transition", "r_drop", "windows")
        if field.name in elsewhere or (task == "pair" and field.name == "threshold"):
            continue
        value, needed = OPTIONS.get(field.name) or of_a_loss(field.name)
        if field.name == "loss" and task == "regress":
            value = "mae"
        key = repr(needed)
        plain[key] = plain.get(key) or fingerprint(task, needed)
        assert fingerprint(task, {**needed, field.name: value}) != plain[key], field.name


# --- what is refused
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "task, option, groups",
    [
        ("multilabel", "task.loss", {"task": {"loss": "cross_entropy"}}),
        ("multilabel", "task.threshold", {"task": {"threshold": 1.5}}),
        (
            "multilabel",
            "task.threshold=tuned",
            {"task": {"threshold": "tuned"}, "data": {"validation": None}},
        ),
        ("multilabel", "task.positive_weight", {"task": {"positive_weight": -1}}),
        ("multilabel", "task.positive_weight", {"task": {"positive_weight": "many"}}),
        ("multilabel", "task.activation", {"task": {"activation": "relu"}}),
        ("regress", "task.loss", {"task": {"loss": "binary_cross_entropy"}}),
        ("regress", "loss.label_smoothing", {"loss": {"label_smoothing": 0.1}}),
        ("regress", "model.tied", {"model": {"tied": False}}),
        ("regress", "task.huber_delta", {"task": {"huber_delta": 2.0}}),
        (
            "regress",
            "validation/rmse_x, validation/mae_x",
            {"evaluation": {"metric": "validation/rmse_z"}},
        ),
        (
            "pair",
            "evaluation.metric=validation/f1_macro",
            {"task": {"loss": "mse"}, "evaluation": {"metric": "validation/f1_macro"}},
        ),
        ("pair", "evaluation.metric=validation/mrr", {"evaluation": {"metric": "validation/mrr"}}),
        ("pair", "task.encoder=bi", {"task": {"loss": "contrastive"}}),
        (
            "pair",
            "train.accumulate",
            {"task": {"loss": "contrastive", "encoder": "bi"}, "train": {"accumulate": 2}},
        ),
        ("pair", "task.positive", {"task": {"loss": "cosine_embedding", "encoder": "bi"}}),
        ("pair", "task.temperature", {"task": {"temperature": 0.0}}),
        ("pair", "task.margin", {"task": {"margin": 0.1}}),
        ("pair", "task.pool=first", {"task": {"pool": "first"}, "model": {"causal": True}}),
        (
            "pair",
            "data.too_long=window",
            {"task": {"encoder": "bi"}, "data": {"too_long": "window"}},
        ),
    ],
)
def test_an_option_that_cannot_work_is_refused(task, option, groups):  # guards H5
    from tests.conftest import make_config

    with pytest.raises(ConfigError) as error:
        make_config(task, **groups)
    assert option in str(error.value) and "\n" not in str(error.value)


def test_data_that_a_loss_cannot_read_are_refused():  # guards D9, D12
    fit = lambda name, records, **task: tasks.get(name).fit(
        schema.Config(task={"pair": schema.PairTask, "regress": schema.RegressTask}[name](**task)),
        None,
        records,
        ["a.jsonl:1", "a.jsonl:2"],
    )
    both = [Pair("a", "b", label="x"), Pair("a", "b", score=1.0)]
    with pytest.raises(
        DataError,
        match=r"^a\.jsonl:2: this pair has a score, but task\.loss=cross_entropy expects a label",
    ):
        fit("pair", both)
    with pytest.raises(DataError, match="every pair has the score 2"):
        fit("pair", [Pair("a", "b", score=2.0)] * 2, loss="mse")
    with pytest.raises(DataError, match="knows two labels"):
        fit(
            "pair",
            [Pair("a", "b", label=x) for x in LABELS[:2]],
            loss="cosine_embedding",
            encoder="bi",
            positive="none",
        )
    with pytest.raises(DataError, match="target 'label': every row of training has 1"):
        fit("regress", [Regression("a", None, (1.0,))] * 2)
