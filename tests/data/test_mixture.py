"""Mixtures: shares, the end of an epoch, and that every row of a source is read once before any is
read again.
"""

import math

import numpy as np
import pytest

from jaxsft.config import schema
from jaxsft.data import mixture
from jaxsft.errors import ConfigError
from jaxsft.rundir import read_json
from tests import tiny
from tests.conftest import assert_same, make_config

ROWS, STARTS = [100, 40], [0, 100, 140]


def test_the_worked_example():
    half = np.array([0.5, 0.5])
    assert (
        mixture.counts(ROWS, half, "stop").tolist()
        == mixture.counts(ROWS, half, "error").tolist()
        == [40, 40]
    )
    assert mixture.counts(ROWS, half, "repeat").tolist() == [100, 100]


def test_shares_by_weight_or_temperature():
    assert mixture.shares(ROWS, [3, 1], 1.0).tolist() == [0.75, 0.25]
    np.testing.assert_allclose(mixture.shares(ROWS, [None, None], 1.0), [100 / 140, 40 / 140])
    np.testing.assert_allclose(
        mixture.shares(ROWS, [None, None], 2.0), np.sqrt(ROWS) / np.sqrt(ROWS).sum()
    )
    np.testing.assert_allclose(mixture.shares(ROWS, [None, None], math.inf), [0.5, 0.5])
    for how in ("stop", "repeat", "error"):  # proportional: everything is read once
        assert mixture.counts(ROWS, mixture.shares(ROWS, [None, None], 1.0), how).tolist() == ROWS
    with pytest.raises(ConfigError, match="source 2 has a share of"):
        mixture.counts([100, 40], np.array([0.9999, 0.0001]), "stop")


@pytest.mark.parametrize("count, size", [(40, 100), (100, 40), (7, 7), (3, 2), (1, 5)])
def test_every_row_is_read_before_any_is_read_again(count, size):  # guards F1, F8
    read = np.concatenate([mixture.rows_of(count, size, 5, 1, epoch) for epoch in range(6)])
    assert len(read) == 6 * count
    for start in range(0, len(read) - size + 1, size):
        assert sorted(read[start : start + size]) == list(range(size))
    # in any order of asking
    again = [mixture.rows_of(count, size, 5, 1, epoch) for epoch in reversed(range(6))]
    np.testing.assert_array_equal(np.concatenate(again[::-1]), read)
    if size > 5:
        assert (mixture.rows_of(count, size, 6, 1, 0) != read[:count]).any() and (
            mixture.rows_of(count, size, 5, 2, 0) != read[:count]
        ).any()


def test_an_epoch_has_its_share_of_each_source():
    for epoch in range(3):
        found = mixture.order(STARTS, [30, 60], 0, epoch)
        assert [(found < 100).sum(), (found >= 100).sum()] == [30, 60]
        assert found.tolist() != sorted(found)


# --- in a run
# --------------------------------------------------------------------------------------------------
@pytest.fixture
def files(tmp_path):
    for name, count in (("a", 30), ("b", 6)):
        tiny.write_lines(
            tmp_path / f"{name}.jsonl",
            [{"text": f"{name} text {i}", "label": "xy"[i % 2]} for i in range(count)],
        )
    return tmp_path


def mixed(files, **options):
    sources = tuple(
        schema.MixtureSource(str(files / f"{name}.jsonl"), weight)
        for name, weight in (("a", 1.0), ("b", 1.0))
    )
    return make_config(
        "classify",
        data={
            "train": None,
            "validation": None,
            "packing": False,
            "mixture": schema.Mixture(sources, **options),
        },
        train={"batch_size": 4},
    )


def batches_of(config):
    from jaxsft.training import components

    parts, records = components.prepare(config)
    return parts.batches(parts.split("train", records["train"]), training=True)


def names(batches, steps):
    texts = [
        batches.split.records[e].text
        for k in steps
        for e in batches.example_ids(k).ravel()
        if e >= 0
    ]
    return [text.split()[0] for text in texts], texts


@pytest.mark.parametrize("how, taken", [("stop", 6), ("repeat", 30)])
def test_batches_of_a_mixture_are_a_function_of_their_step(files, how, taken):  # guards F1, B14
    batches = batches_of(mixed(files, exhausted=how))
    assert len(batches) == -(-2 * taken // 4) and batches.examples == 2 * taken
    of, texts = names(batches, range(len(batches)))
    assert of.count("a") == of.count("b") == taken
    assert len(set(texts)) == (12 if how == "stop" else 36)
    others = names(batches, range(len(batches), 5 * len(batches)))[1] + texts
    assert len(set(others)) == 36  # what one epoch leaves out is read in the next ones
    fresh = batches_of(mixed(files, exhausted=how))
    for k in (7, 0, 3):
        assert_same(fresh[k], batches[k])


@pytest.mark.parametrize(
    "option, sources, options",
    [
        ("excludes data.train", ("a", "b"), {"data": {"train": "c.jsonl"}}),
        ("at least two", ("a",), {}),
        ("at least two", ("a", "a"), {}),
        ("a weight for each", (("a", 1.0), "b"), {}),
        ("sources[1].weight=-1", (("a", 1.0), ("b", -1.0)), {}),
        ("data.mixture.temperature", (("a", 1.0), ("b", 1.0)), {"mixture": {"temperature": 2.0}}),
        (
            "data.mixture.exhausted",
            (),
            {"mixture": {"exhausted": "repeat"}, "data": {"train": "c.jsonl"}},
        ),
        ("data.mixture.exhausted", ("a", "b"), {"mixture": {"exhausted": "never"}}),
    ],
)
def test_a_mixture_that_cannot_work_is_refused(option, sources, options):  # guards H5
    made = tuple(schema.MixtureSource(*((s,) if isinstance(s, str) else s)) for s in sources)
    with pytest.raises(ConfigError) as error:
        make_config(
            "classify",
            data={"train": None, "mixture": schema.Mixture(made, **options.get("mixture", {}))}
            | options.get("data", {}),
        )
    assert option in str(error.value)


def test_from_the_command_line(files):
    a, b = files / "a.jsonl", files / "b.jsonl"
    given = f"data.mixture.sources=[{{path:{a},weight:1}},{{path:{b},weight:1}}]"
    train = [
        "train",
        "task=classify",
        *tiny.FAST,
        "model.layers=1",
        "tokenizer=bytes",
        "train.batch_size=4",
        "data.packing=false",
        given,
    ]
    code, _, err = tiny.jaxsft(
        *train,
        "train.duration=2epochs",
        "data.mixture.exhausted=error",
        f"run_dir={files / 'refused'}",
    )
    assert code != 0 and "a source of data.mixture is used up after 3" in err
    code, _, err = tiny.jaxsft(*train, "train.duration=2epochs", f"run_dir={files / 'run'}")
    assert code == 0, err
    told = read_json(files / "run" / "ledger.json")["train"]["mixture"]
    assert [(one["examples"], one["rows_per_epoch"], one["share"]) for one in told] == [
        (30, 6, 0.5),
        (6, 6, 0.5),
    ]
    assert read_json(files / "run" / "result.json")["train/steps"] == 6
    code, out, err = tiny.jaxsft("check", "task=classify", given)
    assert code == 0 and "(18 each)" in out, out + err  # of both sources together
