import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.data.formats import Row, read
from jaxsft.data.split_rule import keys, normalise, split_rows, text_key
from jaxsft.errors import ConfigError
from tests.realdata import real


def rows_of(pairs):
    return [
        Row({"text": text, "label": label}, "a.csv", line)
        for line, (text, label) in enumerate(pairs, start=2)
    ]


def label(row):
    return row.fields["label"]


pairs = st.lists(st.tuples(st.text(max_size=3), st.sampled_from("xyz")), max_size=40)


@settings(max_examples=60, deadline=None)
@given(pairs, st.integers(0, 3), st.randoms(use_true_random=False), st.booleans())
def test_no_row_is_lost_and_order_does_not_matter(pairs, seed, rng, stratified):
    rows = rows_of(pairs)
    stratify = label if stratified else None
    parts = split_rows(rows, seed=seed, stratify=stratify)
    assert sorted(row.line for part in parts for row in part) == [row.line for row in rows]
    assert all([row.line for row in part] == sorted(row.line for row in part) for part in parts)
    shuffled = list(rows)
    rng.shuffle(shuffled)
    again = split_rows(shuffled, seed=seed, stratify=stratify)
    assert [{row.line for row in part} for part in again] == [
        {row.line for row in part} for part in parts
    ]
    contents = [{(row.fields["text"], row.fields["label"]) for row in part} for part in parts]
    assert not (contents[0] & contents[1] or contents[0] & contents[2] or contents[1] & contents[2])
    if stratified:
        for name in "xyz":
            distinct = {pair for pair in pairs if pair[1] == name}
            assert len(distinct) < 3 or all(
                any(pair[1] == name for pair in part) for part in contents
            )


def test_fractions_are_exact_and_the_seed_counts():
    rows = rows_of((str(number), "x") for number in range(200))
    sizes = [len(part) for part in split_rows(rows)]
    assert sizes == [140, 30, 30]
    assert [len(part) for part in split_rows(rows, (0.8, 0.2, 0.0))] == [160, 40, 0]
    assert split_rows(rows, seed=0) != split_rows(rows, seed=1)
    assert {row.line for row in split_rows(rows)[2]} != set(range(172, 202))


def test_one_text_with_two_labels_does_not_leak():
    rows = rows_of([(str(number // 2), "xy"[number % 2]) for number in range(60)])
    parts = split_rows(rows, stratify=label, key=lambda row: row.fields["text"])
    texts = [{row.fields["text"] for row in part} for part in parts]
    assert sum(map(len, texts)) == 30


spellings = st.sampled_from(
    ["caf\u00e9", "cafe\u0301", "CAFÉ ", " café", "tea", "TEA", "te a", "", " "]
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(spellings, st.sampled_from("xyz")), min_size=1, max_size=40),
    st.integers(0, 3),
)
def test_rows_that_are_equal_after_normalisation_share_a_split(pairs, seed):
    rows = rows_of(pairs)
    key = dict(
        zip(
            map(id, rows), keys(rows, [text_key([row.fields["text"]]) for row in rows]), strict=True
        )
    )
    parts = split_rows(rows, seed=seed, stratify=label, key=lambda row: key[id(row)])
    said = [{normalise(row.fields["text"]) for row in part} for part in parts]
    assert not (said[0] & said[1] or said[0] & said[2] or said[1] & said[2])


def test_a_file_without_equal_rows_is_split_by_its_contents():
    rows = rows_of((f"text {number}", "xy"[number % 2]) for number in range(60))
    key = dict(
        zip(
            map(id, rows), keys(rows, [text_key([row.fields["text"]]) for row in rows]), strict=True
        )
    )
    assert split_rows(rows, key=lambda row: key[id(row)]) == split_rows(rows)
    assert len(set(keys(rows, ["x", "y"] * 30))) == 2


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5), (0.9, 0.2, -0.1), (0.5, 0.2, 0.2), (float("nan"), 0.5, 0.5)]
)
def test_impossible_fractions(fractions):
    with pytest.raises(ConfigError, match=r"data.fractions"):
        split_rows([], fractions)


def test_real_intents_stay_balanced():
    rows = read(real("banking77/train.csv"))
    random.Random(0).shuffle(rows)
    train, validation, test = split_rows(rows, stratify=lambda row: row.fields["category"])
    counts = [Counter(row.fields["category"] for row in part) for part in (train, validation, test)]
    assert all(len(count) == 77 for count in counts)
    assert abs(len(train) / len(rows) - 0.7) < 0.01
