"""Few rows show every label where they can, and a note tells what they cannot show."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from jaxsft import tasks
from jaxsft.data import few_rows
from jaxsft.data.file_records import Records
from jaxsft.data.records import LabelledText, MultiLabel, Pair, Regression, Tags


def limited(task, records, rows):
    part = Records(records, [f"a:{i}" for i in range(1, len(records) + 1)])
    return few_rows.limit(part, rows, tasks.get(task))


def test_ten_rows_have_every_label():
    records = [LabelledText(f"t{i}", None, "spam" if i == 33 else "ham") for i in range(100)]
    out = limited("classify", records, 10)
    assert (
        len(out.records) == 10
        and {r.label for r in out.records} == {"ham", "spam"}
        and not out.notes
    )
    assert [out.records[i] for i in range(9)] != records[:9] and out.where == sorted(
        out.where, key=lambda w: int(w[2:])
    )


def test_rare_labels_come_first_and_no_label_is_lost_for_another():
    records = [LabelledText(f"t{i}", None, f"l{min(i // 3, 7)}") for i in range(60)]
    out = limited("classify", records, 8)
    assert {r.label for r in out.records} == {f"l{i}" for i in range(8)} and not out.notes


def test_more_labels_than_rows_are_told():
    records = [LabelledText(f"t{i}", None, f"l{i % 77}") for i in range(200)]
    out = limited("classify", records, 10)
    assert (
        len({r.label for r in out.records}) == 10
        and "10 of 77 labels have a row in train" in out.notes[0]
    )


def test_tags_and_sets_of_labels():
    words = [
        Tags(("a", "b"), ("B-X" if i == 41 else "O", "I-Y" if i == 7 else "O"), "iob2")
        for i in range(50)
    ]
    assert {tag for r in limited("tag", words, 5).records for tag in r.tags} == {"B-X", "I-Y", "O"}
    sets = [MultiLabel(f"t{i}", None, ("x",) if i != 5 else ()) for i in range(50)]
    assert {r.labels for r in limited("multilabel", sets, 5).records} == {("x",), ()}


@pytest.mark.parametrize("task", ["regress", "pair"])
def test_numbers_are_high_and_low(task):
    value = lambda i: 9.0 if i == 33 else 1.0
    records = [
        (
            Regression(f"t{i}", None, (value(i),))
            if task == "regress"
            else Pair("a", f"t{i}", score=value(i))
        )
        for i in range(100)
    ]
    out = limited(task, records, 10)
    assert {(r.targets[0] if task == "regress" else r.score) for r in out.records} == {
        1.0,
        9.0,
    } and not out.notes


def test_one_label_shows_nothing():
    records = [LabelledText(f"t{i}", None, "ham") for i in range(20)]
    assert "learning them by heart shows nothing" in limited("classify", records, 5).notes[0]
    assert few_rows.limit(SimpleNamespace(records=records), None) is not None
