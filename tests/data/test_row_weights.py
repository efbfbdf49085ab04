"""Weights of rows: `data.columns.weight`."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxsft.config.schema import Columns
from jaxsft.data import encode, encoded_split
from jaxsft.data.formats import Row
from jaxsft.data.records import label_record
from jaxsft.data.row_weights import weighted
from jaxsft.data.split_notes import data_digest
from jaxsft.errors import ConfigError, DataError
from jaxsft.training import components
from tests import tiny
from tests.conftest import assert_close, bench, distance, make_records


def row(**fields):
    return Row({"text": "a", "label": "x", **fields}, "rows.csv", 2)


def test_a_weight_is_read_from_its_column_only():
    record = label_record(row(), Columns())
    assert weighted(record, row(w="0.5"), Columns(weight="w")).weight == 0.5
    assert (
        weighted(record, row(weight=3), Columns(weight="none"))
        == weighted(record, row(), Columns())
        == record
    )
    assert repr(weighted(record, row(w=2), Columns(weight="w"))) == repr(record)
    with pytest.raises(
        DataError, match=r"rows.csv:2: column 'weight' is there; set data.columns.weight=weight"
    ):
        weighted(record, row(weight=3), Columns())
    with pytest.raises(DataError, match=r"missing column 'w'"):
        weighted(record, row(), Columns(weight="w"))
    for bad in (
        0,
        -1,
        "nan",
        "heavy",
        None,
        True,
        float("inf"),
        "1_000",
        "２",
        "1e200",
        1e200,
        1e-200,
        10**400,
    ):
        with pytest.raises(DataError, match=r"rows.csv:2: .*expected a finite weight above 0"):
            weighted(record, row(w=bad), Columns(weight="w"))
    with pytest.raises(ConfigError, match=r"carry no weight"):
        weighted(("no", "record"), row(w=1), Columns(weight="w"))


def test_what_has_no_loss_to_be_weighted_is_refused():
    with pytest.raises(ConfigError, match=r"data.columns.weight=none"):
        encoded_split.weighted(encode.Encoded(np.array([1, 2], np.int32)), 2.0)
    assert encoded_split.weighted("empty", 2.0) == "empty"


def weights_of(task, weights, rows=7):
    records, where = make_records(task, rows)
    return [dataclasses.replace(r, weight=w) for r, w in zip(records, weights, strict=True)], where


@pytest.mark.parametrize("task", ["chat", "classify"])
def test_a_row_of_weight_three_is_the_row_three_times(task, x64):
    weights = [1.0, 3.0, 1.0, 2.0, 1.0, 1.0, 1.0]
    once, where = weights_of(task, weights)
    plain, _ = weights_of(task, [1.0] * 7)
    copies = [(r, w) for r, w, n in zip(plain, where, weights, strict=True) for _ in range(int(n))]
    options = {"train": {"batch_size": 16}, "data": {"packing": False}}
    one = bench(task, records=(once, where), **options)
    many = bench(task, records=([r for r, _ in copies], [w for _, w in copies]), **options)
    assert len(one.batches) == len(many.batches) == 1
    (a, sums), (b, more) = one.run(), many.run()
    assert_close(a.trainable, b.trainable, atol=1e-9)
    assert float(next(iter(sums.terms.values()))) == pytest.approx(
        float(next(iter(more.terms.values())))
    )
    if task == "classify":
        unweighted = bench(task, records=(plain, where), **options).run()[0]
        assert distance(a.trainable, unweighted.trainable) > 1e-6


@pytest.mark.parametrize("task", ["chat", "classify"])
def test_metrics_do_not_see_weights(task):
    states = []
    for weights in ([1.0] * 7, [0.1, 5.0, 1.0, 2.0, 1.0, 1.0, 9.0]):
        b = bench(task, records=weights_of(task, weights), train={"batch_size": 16})
        (_, _, found), columns = b.evaluate(*b.apart, b.put(b.batches[0]), b.hyper)
        # the terms of the loss are weighted, and beside what metrics see
        seen = {k: v for k, v in columns.items() if not k.startswith(("loss.", "weight."))}
        states.append((jax.tree.map(np.asarray, found), seen))
    assert_close(states[0], states[1], rtol=1e-5, atol=1e-6)


def test_weights_of_training_rows_reach_the_run_and_those_of_others_do_not(tmp_path):
    rows = [{"text": f"row {i}", "label": "ab"[i % 2], "w": 1 + i} for i in range(8)]
    file, held = (
        tiny.write_lines(tmp_path / "a.jsonl", rows),
        tiny.write_lines(tmp_path / "b.jsonl", [{"text": "new", "label": "a"}]),
    )
    data = {"train": str(file), "validation": str(held), "columns": Columns(weight="w")}
    config = tiny.config(tmp_path, tmp_path / "run", task="classify", data=data)
    _, records = components.prepare(config)
    assert [r.weight for r in records["train"][0]] == [1.0 + i for i in range(8)] and records[
        "validation"
    ][0][0].weight == 1
    other = components.prepare(
        dataclasses.replace(
            config, data=dataclasses.replace(config.data, columns=Columns(label="label"))
        )
    )[1]
    assert data_digest(records["train"]) != data_digest(other["train"])
    whole = {"path": str(file), "train": None, "validation": None, "columns": Columns(weight="w")}
    split = components.prepare(
        tiny.config(tmp_path, tmp_path / "run", task="classify", data=whole)
    )[1]
    assert any(r.weight != 1 for r in split["train"][0]) and all(
        r.weight == 1 for name in ("validation", "test") for r in split[name][0]
    )
