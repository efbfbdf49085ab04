import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.config.schema import Columns
from jaxsft.data.formats import Row, read
from jaxsft.data.split_rule import split_rows
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.stage import Context
from tests.prepare.harness import make, rows_of, run, texts
from tests.realdata import real

PARTS = ("train", "validation", "test")


def split(rows, **options):
    out, reports = run(make("split", **options), {"all": rows})
    return out, reports["all"]


def numbered(n, **columns):
    return [
        Row(
            {"text": f"text {i}", **{name: column(i) for name, column in columns.items()}},
            "rows.jsonl",
            i + 1,
        )
        for i in range(n)
    ]


def homes(out):
    return {row.line: name for name, rows in out.items() for row in rows}


def test_the_plain_case_is_the_split_of_data():
    rows = numbered(200, label=lambda i: "ab"[i % 2])
    for options, stratify in (({}, None), ({"stratify": "label"}, lambda row: row.fields["label"])):
        out, report = split(rows, **options)
        assert [out[name] for name in PARTS] == list(
            split_rows(rows, stratify=stratify, key=lambda row: row.fields["text"])
        )
        assert report.facts["rows"] == {"train": 140, "validation": 30, "test": 30}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("uvwxyz"), st.integers(0, 5)),
        min_size=25,
        max_size=60,
    ),
    st.sampled_from(
        [
            {},
            {"group": "group"},
            {"by": "time", "time": "time"},
            {"by": "hash"},
            {"stratify": "label", "tiny": "allow", "group": "group"},
            {"near": 0.9},
        ]
    ),
    st.randoms(use_true_random=False),
)
def test_order_never_matters_and_equal_rows_and_groups_share_a_split(contents, options, rng):
    rows = [
        Row({"text": f"{t} {g}", "group": g, "time": n, "label": t}, "a.csv", i)
        for i, (t, g, n) in enumerate(contents)
    ]
    stage = {"fractions": [0.5, 0.25, 0.25], **options}
    try:
        out, _ = split(rows, **stage)
    except DataError as error:
        assert "leave none for" in str(error)
        return
    shuffled = list(rows)
    rng.shuffle(shuffled)
    assert homes(split(shuffled, **stage)[0]) == homes(out)
    for column in ("text", *(["group"] if "group" in options else [])):
        sets = [set(texts(found, column)) for found in out.values()]
        assert sum(map(len, sets)) == len(set().union(*sets))


def test_groups_keep_the_fractions_of_rows():
    rows = numbered(1000, group=lambda i: f"g{i % 90 if i < 500 else i % 7}")
    out, _ = split(rows, group="group")
    assert abs(len(out["train"]) - 700) < 90


def test_time_puts_the_latest_into_test():
    rows = numbered(100, time=lambda i: f"2024-01-{1 + (i * 37) % 25:02d}")
    out, _ = split(rows, by="time", time="time")
    times = [texts(out[name], "time") for name in PARTS]
    assert max(times[0]) < min(times[1]) and max(times[1]) < min(times[2])
    assert 60 <= len(times[0]) <= 80
    rows = numbered(40, time=lambda i: i, group=lambda i: i % 10)
    out, _ = split(rows, by="time", time="time", group="group")
    latest = [max(texts(out[name], "time")) for name in PARTS]
    assert latest == sorted(latest)
    with pytest.raises(DataError, match=r"rows.jsonl:1: column 'time' holds 'soon'"):
        split(numbered(3, time=lambda i: "soon"), by="time", time="time")
    mixed = numbered(9, time=lambda i: i if i else "2024-01-01")
    with pytest.raises(DataError, match="numbers and dates"):
        split(mixed, by="time", time="time")


def test_time_zones_are_compared_as_moments():
    rows = [
        Row({"text": t, "time": w}, "a", i)
        for i, (t, w) in enumerate(
            [
                ("late", "2024-01-01T09:00-05:00"),
                ("early", "2024-01-01T10:00+02:00"),
                ("mid", "2024-01-01T10:00"),
            ]
        )
    ]
    out, _ = split(rows, by="time", time="time", fractions=[0.34, 0.33, 0.33])
    assert [texts(out[name]) for name in PARTS] == [["early"], ["mid"], ["late"]]


def test_by_hash_a_row_keeps_its_split_as_the_data_grows():
    rows = numbered(900, group=lambda i: i // 3)
    for options in ({"by": "hash"}, {"by": "hash", "group": "group"}):
        small, _ = split(rows[:300], **options)
        large, _ = split(rows, **options)
        assert homes(small).items() <= homes(large).items()
        assert abs(len(large["train"]) - 630) < 60


def test_near_duplicates_never_cross():
    base = "a sentence of some length about the number {0} and about nothing else at all really"
    rows = [
        Row(
            {
                "text": (
                    base.format(i // 2)
                    + (" indeed" if i % 2 else "")
                    + f" {i // 2 * 7919} {i // 2 * 104729} x{i // 2}y"
                )
            },
            "a",
            i,
        )
        for i in range(200)
    ]
    out, _ = split(rows, near=0.7)
    where = homes(out)
    assert sum(where[i] != where[i + 1] for i in range(0, 200, 2)) == 0
    where = homes(split(rows)[0])
    assert sum(where[i] != where[i + 1] for i in range(0, 200, 2)) > 10


def test_several_labels_are_spread_evenly():
    """Rows of GoEmotions: every frequent label has nearly its share in each split."""
    rows = read(
        real(
            "goemotions/"
            + next(
                path.name for path in sorted(real("goemotions").iterdir()) if path.suffix == ".tsv"
            )
        ),
        header="false",
    )[:4000]
    rows = [
        Row({"text": row.fields["0"], "labels": row.fields["1"]}, row.file, row.line)
        for row in rows
    ]
    out, report = split(rows, stratify="labels", separator=",", tiny="allow")
    total = Counter(label for row in rows for label in row.fields["labels"].split(","))
    for name, share in zip(PARTS, (0.7, 0.15, 0.15), strict=True):
        counts = Counter(label for row in out[name] for label in row.fields["labels"].split(","))
        assert all(
            abs(counts[label] - share * n) <= max(3, 0.06 * n * share)
            for label, n in total.items()
            if n >= 20
        )
        assert abs(len(out[name]) - share * len(rows)) < 60
    assert set(report.facts["labels missing"]) == set(PARTS)


def test_iterative_beats_chance_with_groups():
    rows = numbered(
        600,
        group=lambda i: i // 4,
        labels=lambda i: ["rare"] if i % 97 < 4 else ["a", "b"] if i % 3 else [],
    )
    out, _ = split(rows, group="group", stratify="labels")
    shares = [np.mean(["a" in row.fields["labels"] for row in out[name]]) for name in PARTS]
    assert max(shares) - min(shares) < 0.05
    assert all(any("rare" in row.fields["labels"] for row in out[name]) for name in PARTS)


def test_groups_of_every_size_are_in_every_split():
    rows = numbered(
        1500, group=lambda i: i if i < 700 else 1000 + i // 3, label=lambda i: "ab"[i % 2]
    )
    out, _ = split(rows, group="group", stratify="label", tiny="allow")
    for name in PARTS:
        sizes = Counter(Counter(texts(out[name], "group")).values())
        assert abs(sum(n for size, n in sizes.items() if size > 1) / len(out[name]) - 0.18) < 0.06


def test_tiny_classes_are_loud():
    rows = numbered(40, label=lambda i: "rare" if i < 2 else "b")
    with pytest.raises(DataError, match="label 'rare' has 2 different texts, expected at least 3"):
        split(rows, stratify="label")
    assert {homes(split(rows, stratify="label", tiny="train")[0])[i] for i in (1, 2)} == {"train"}
    out, report = split(rows, stratify="label", tiny="allow")
    assert report.facts["labels missing"] == {
        n: [] if any(r.fields["label"] == "rare" for r in out[n]) else ["rare"] for n in PARTS
    }
    with pytest.raises(DataError, match="label 'rare' has 2 groups"):
        split(
            numbered(40, label=lambda i: "rare" if i < 4 else "b", group=lambda i: i // 2),
            stratify="label",
            group="group",
        )


def test_folds_as_column_and_as_pairs():
    rows = numbered(50, label=lambda i: "ab"[i % 5 == 0])
    out, _ = split(rows, folds=5, stratify="label")
    assert Counter(texts(out["all"], "fold")) == dict.fromkeys(range(5), 10)
    assert all(
        sum(row.fields["label"] == "b" for row in out["all"] if row.fields["fold"] == fold) == 2
        for fold in range(5)
    )
    pairs, report = split(rows, folds=5, stratify="label", folds_as="pairs")
    assert list(pairs) == [f"fold{i}_{part}" for i in range(5) for part in ("train", "validation")]
    for fold in range(5):
        validation = {row.line for row in pairs[f"fold{fold}_validation"]}
        assert validation == {row.line for row in out["all"] if row.fields["fold"] == fold}
        assert {row.line for row in pairs[f"fold{fold}_train"]} == {
            row.line for row in rows
        } - validation
    assert report.added.total() == 200


def test_what_is_split_is_split_again_only_when_asked():
    sets = {"train": rows_of(*"abcdefgh"), "test": rows_of(*"ijkl")}
    with pytest.raises(
        ConfigError, match=r"split already, into train, test; set stages.split.merge=true"
    ):
        run(make("split"), sets)
    out, _ = run(make("split", merge=True), sets)
    assert sorted(text for rows in out.values() for text in texts(rows)) == list("abcdefghijkl")
    out, _ = run(make("split", fractions=[0.8, 0.2, 0.0]), {"train": rows_of(*"abcdefghij")})
    assert {name: len(rows) for name, rows in out.items()} == {"train": 8, "validation": 2}


def test_a_split_without_rows_is_an_error():
    with pytest.raises(DataError, match="leave none for"):
        split(numbered(10, group=lambda i: i % 2), group="group")
    with pytest.raises(DataError, match="there are no rows"):
        split([])


def test_chats_are_split_by_all_columns():
    rows = [
        Row({"messages": [{"role": "user", "content": str(i % 30)}]}, "a", i) for i in range(60)
    ]
    out, _ = split(rows)
    random.Random(0).shuffle(rows)
    assert homes(split(rows)[0]) == homes(out)
    assert all(homes(out)[i] == homes(out)[i + 30] for i in range(30))


@pytest.mark.parametrize(
    "options",
    [
        {"by": "label"}, {"fractions": [0.5, 0.5]}, {"fractions": [0.5, 0.4, 0.2]}, {"by": "time"},
        {"time": "t"}, {"folds": 1},
        {"by": "hash", "near": 0.8}, {"by": "hash", "stratify": "l"},
        {"by": "time", "time": "t", "folds": 3}, {"separator": ","},
        {"folds": 3, "tiny": "train"}, {"near": 1.5},
    ],
)  # fmt: skip
def test_impossible_options(options):
    with pytest.raises(ConfigError, match=r"stages.split"):
        make("split", **options)


@pytest.mark.parametrize("options", [{}, {"by": "hash"}, {"group": "g"}])
def test_the_seed_of_the_preparation_is_that_of_the_split_unless_it_has_its_own(options):
    rows = numbered(60, g=lambda i: i)
    home = lambda whole, **own: homes(
        run(make("split", Context(seed=whole), **options, **own), {"all": rows})[0]
    )
    assert home(0) != home(7) == home(0, seed=7) and home(7, seed=0) == home(0)


@pytest.mark.parametrize("near", [2, 0, 1e-9])
def test_an_error_of_near_names_near(near):
    with pytest.raises(
        ConfigError, match=rf"stages.split.near={near:g}: expected a number above 0"
    ):
        make("split", near=near)


def test_too_many_folds_are_told_as_such():
    with pytest.raises(
        DataError, match=r"leave none for fold \d; set fewer folds than stages.split.folds=9"
    ):
        split(numbered(4), folds=9)


SPELLINGS = ("Caf\u00e9 number {}", "Cafe\u0301 number {}", "caf\u00e9  NUMBER\n{}")


@pytest.mark.parametrize(
    "fields",
    [
        lambda said: {"text": said},
        lambda said: {"prompt": said, "completion": "yes"},
        lambda said: {"source": said, "target": "hello"},
        lambda said: {"tokens": said.split()},
        lambda said: {"ask": said, "completion": [{"role": "assistant", "content": "Yes"}]},
    ],
)
@pytest.mark.parametrize("options", [{}, {"by": "hash"}, {"near": 0.99}])
def test_one_text_spelled_otherwise_never_crosses_splits(fields, options):
    rows = [
        Row({**fields(form.format(i)), "id": f"{i} {form}"}, "a.jsonl", i)
        for i in range(40)
        for form in SPELLINGS
    ]
    context = Context(columns=Columns(prompt="ask") if "ask" in rows[0].fields else Columns())
    out, _ = run(make("split", context, fractions=[0.5, 0.25, 0.25], **options), {"all": rows})
    lines = {name: {row.line for row in part} for name, part in out.items()}
    assert (
        all(lines.values())
        and sum(map(len, lines.values())) == 40
        and all(len(part) % 3 == 0 for part in out.values())
    )
