"""One definition of the text of a row: what a check counts as repeated, `dedup` drops, and a split
keeps together, for every task.
"""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from jaxsft import tasks
from jaxsft.check.findings import Findings
from jaxsft.check.load import CheckedSplit
from jaxsft.check.overlap import find_overlap
from jaxsft.config.schema import Columns
from jaxsft.data.file_records import Records
from jaxsft.data.formats import Row
from jaxsft.data.split_notes import in_training_too
from jaxsft.data.split_rule import split_file
from jaxsft.errors import DataError
from jaxsft.prepare.stage import Context
from jaxsft.tasks.specs import SPECS
from tests.prepare.harness import make, run

SAID = ("It rains.", "it  RAINS.", "A dog", "A dog ", "Nobody came", "caf\u00e9", "cafe\u0301")
pick = lambda rng: rng.choice(SAID)


def turns(rng, kind):
    names = (
        ("from", "value", "human", "gpt")
        if kind == "conversations"
        else ("role", "content", "user", "assistant")
    )
    said = [(names[2], pick(rng)), (names[3], rng.choice("ab"))]
    said = (
        said if rng.random() < 0.5 else [*said, (names[2], pick(rng)), (names[3], rng.choice("ab"))]
    )
    return {kind: [{names[0]: who, names[1]: what} for who, what in said]}


ROWS = {  # by task: how a row is made, and data.columns
    "chat": [
        (lambda rng: turns(rng, "messages"), {}),
        (lambda rng: turns(rng, "conversations"), {}),
        (lambda rng: {"prompt": pick(rng), "completion": rng.choice("ab")}, {}),
        (
            lambda rng: {
                "instruction": pick(rng),
                "input": rng.choice(["", "x"]),
                "output": rng.choice("ab"),
            },
            {},
        ),
        (lambda rng: {"q": pick(rng), "a": rng.choice("ab")}, {"prompt": "q", "completion": "a"}),
    ],
    "lm": [(lambda rng: {"text": pick(rng), "id": rng.random()}, {})],
    "classify": [
        (lambda rng: {"text": pick(rng), "label": rng.choice("ab")}, {}),
        (
            lambda rng: {"a": pick(rng), "b": pick(rng), "label": "x"},
            {"text": "a", "text_pair": "b"},
        ),
    ],
    "multilabel": [(lambda rng: {"text": pick(rng), "labels": ["x"]}, {})],
    "regress": [(lambda rng: {"text": pick(rng), "label": rng.random()}, {})],
    "tag": [
        (
            lambda rng: {"tokens": (w := pick(rng).split()), "tags": [rng.choice("NV") for _ in w]},
            {},
        ),
        (
            lambda rng: {"w": (w := pick(rng).split()), "t": ["N"] * len(w)},
            {"tokens": "w", "tags": "t"},
        ),
        (lambda rng: {"text": pick(rng), "spans": []}, {}),
        (
            lambda rng: {
                "tokens": (w := list("\u4e0a\u6d77")),
                "tags": ["N"] * len(w),
                "text": str(rng.random()),
            },
            {},
        ),
    ],
    "joint": [
        (
            lambda rng: {
                "tokens": (w := pick(rng).split()),
                "tags": ["O"] * len(w),
                "label": rng.choice("ab"),
            },
            {},
        )
    ],
    "parse": [
        (
            lambda rng: {
                "form": (w := pick(rng).split()),
                "head": [0, *[1] * (len(w) - 1)],
                "deprel": ["x"] * len(w),
                "text": str(rng.random()),
            },
            {},
        )
    ],
    "seq2seq": [
        (lambda rng: {"source": pick(rng), "target": rng.choice("ab")}, {}),
        (lambda rng: {"en": pick(rng), "de": rng.choice("ab")}, {"source": "en", "target": "de"}),
    ],
    "pair": [
        (lambda rng: {"text": pick(rng), "text_pair": pick(rng), "label": "x"}, {}),
        (
            lambda rng: {"text": "It rains.", "other": pick(rng), "score": rng.random()},
            {"text_pair": "other", "score": "score"},
        ),
    ],
    "span": [
        (
            lambda rng: {
                "question": pick(rng),
                "context": pick(rng),
                "answers": {"text": [], "answer_start": []},
            },
            {},
        )
    ],
}
CASES = [(task, i) for task, forms in ROWS.items() for i in range(len(forms))]


def made(task, form, seed, count=24):
    make_row, given = ROWS[task][form]
    rng, columns = random.Random(seed), Columns(**given)
    rows = [Row(make_row(rng), "a.jsonl", line) for line in range(1, count + 1)]
    return rows, columns, [SPECS[task].records.record(row, columns) for row in rows]


@pytest.mark.parametrize(("task", "form"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_what_a_check_counts_dedup_drops(task, form, seed):
    rows, columns, records = made(task, form, seed)
    part = CheckedSplit("train", records, [row.where for row in rows], [], len(rows))
    counted = find_overlap({"train": part}, SPECS[task].records, 0, Findings(5))["train"][
        "repeated"
    ]
    stage = make("dedup", Context(columns=columns), method="exact", conflict="keep")
    out, reports = run(stage, {"all": rows})
    assert counted == len(reports["all"].dropped) == len(rows) - len(out["all"])


@pytest.mark.parametrize(("task", "form"), CASES)
def test_no_split_leaks_by_the_measure_of_the_check(task, form):
    rows, _, records = made(task, form, 0)
    for kind in (SPECS[task].records, tasks.get(task)):
        parts, _ = split_file(rows, records, kind, (0.5, 0.25, 0.25), 0)
        keys = [set(map(kind.text_key, found)) for _, found in parts]
        assert sum(len(found) for _, found in parts) == len(rows) and not (
            keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2]
        )
        classes = [
            {label for record in found for label in kind.classes(record)} for _, found in parts
        ]
        assert classes[0] >= classes[1] | classes[2]
    named = {"train": 0, "validation": 1, "test": 2}
    splits = {name: Records(parts[i][1], [""] * len(parts[i][1])) for name, i in named.items()}
    assert set(in_training_too(splits, kind).values()) == {0}


@pytest.mark.parametrize(
    ("task", "form"), [("chat", 0), ("chat", 2), ("chat", 3), ("seq2seq", 0), ("tag", 0)]
)
def test_one_text_with_several_answers_is_no_silent_loss(task, form):
    rows, columns, _ = made(task, form, 0)
    with pytest.raises(
        DataError, match=r"set stages\.dedup\.conflict=keep .* or stages\.dedup\.fields"
    ):
        run(make("dedup", Context(columns=columns), method="exact"), {"all": rows})


def test_a_conversation_of_one_turn_is_compared_by_it():
    said = lambda text: SimpleNamespace(
        messages=[SimpleNamespace(content=text, extra={})], tools=()
    )
    assert SPECS["chat"].records.text_key(said("a")) != SPECS["chat"].records.text_key(said("b"))


def test_words_are_compared_as_their_text():
    columns = Columns(text="words")
    rows = [
        Row({"words": words}, "a", i)
        for i, words in enumerate([["a", "b"], ["a", "b"], ["a", "c"]])
    ]
    assert (
        len(run(make("dedup", Context(columns=columns), fields=["words"]), {"all": rows})[0]["all"])
        == 2
    )
