"""What the stages of text share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsft.config.schema import Columns
from jaxsft.data.scripts import is_unspaced, words
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.stage import Context
from jaxsft.prepare.text_columns import batches
from tests.prepare.harness import lengths, make, one


def test_words_of_any_script():
    assert words("Don't stop — e\u0301tude, self-made №5.") == [
        "Don't",
        "stop",
        "e\u0301tude",
        "self-made",
        "5",
    ]
    assert words("हिन्दी में") == ["हिन्दी", "में"]
    assert words("GPT模型很好，3个") == ["GPT", "模", "型", "很", "好", "3", "个"]
    assert (
        is_unspaced("模型 GPT")
        and is_unspaced("ภาษาไทย")
        and not is_unspaced("the 模 model")
        and not is_unspaced("")
    )


@given(st.lists(st.integers()), st.integers(1, 5))
def test_batches_hold_all_in_order(items, size):
    found = list(batches(iter(items), size))
    assert [item for batch in found for item in batch] == items
    assert all(len(batch) == size for batch in found[:-1])


MAKES = [
    ("language", {"method": "script"}, "script"),
    ("quality_score", {"method": "model", "threshold": 9.0}, "quality"),
    ("dedup", {"action": "mark"}, "duplicate_of"),
    ("split", {"folds": 2}, "fold"),
]


@pytest.mark.parametrize(("name", "options", "column"), MAKES)
def test_a_column_that_holds_something_is_replaced_only_when_asked(name, options, column):
    context, contents = (
        Context(score=lengths),
        [{"text": text, column: "mine"} for text in ("abc", "def", "ghi", "jkl")],
    )
    with pytest.raises(
        DataError,
        match=(
            rf"column '{column}' holds 'mine' already; rename it, or set stages.{name}.replace=true"
        ),
    ):
        one(make(name, context, **options), *contents)
    rows, _ = one(make(name, context, **options, replace=True), *contents)
    assert all(row.fields[column] != "mine" for row in rows)
    again, _ = one(make(name, context, **options), *(row.fields for row in rows))
    assert [row.fields for row in again] == [row.fields for row in rows]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("clean", {"url_token": "x"}), ("dedup", {"method": "exact", "threshold": 0.5}),
        ("dedup", {"replace": True}), ("split", {"tiny": "allow"}),
        ("split", {"folds": 3, "fractions": [0.5, 0.5, 0.0]}), ("split", {"folds_as": "pairs"}),
        ("split", {"separator": ","}),
        ("heuristics", {"ngram": 4}),
        ("heuristics", {"max_bad_words": 2}), ("language", {"method": "script", "min_letters": 5}),
        ("polarity", {"margin": 0.1}),
        ("annotate", {"take": {"a": "b"}, "layers": ["pos"]}),
        ("quality_score", {"method": "model", "threshold": 1.0, "bits": 5}),
        ("quality_score", {"method": "model", "threshold": 1.0, "low_weight": 0.1}),
    ],
)  # fmt: skip
def test_an_option_without_effect_is_an_error(name, options):
    with pytest.raises(ConfigError, match=rf"stages.{name}.*it has no effect"):
        make(name, Context(score=lengths, predict=list), **options)


def test_a_chat_is_judged_by_the_texts_of_its_turns():
    chat = [
        {"role": "user", "content": "Hello there my friend"},
        {"role": "assistant", "content": None},
        {"from": "gpt", "value": "Hi"},
    ]
    context = Context(columns=Columns(text="messages"), score=lengths)
    rows, report = one(
        make("heuristics", context, max_words=5), {"messages": chat}, {"messages": chat[1:]}
    )
    assert [row.line for row in rows] == [1, 2] and not report.dropped
    assert [
        row.line
        for row in one(
            make("heuristics", context, min_words=5), {"messages": chat}, {"messages": chat[1:]}
        )[0]
    ] == [1]
    assert [
        row.line
        for row in one(make("dedup", context), *({"messages": m} for m in (chat, chat[:1], chat)))[
            0
        ]
    ] == [1, 2]
    rows, _ = one(
        make("quality_score", context, method="model", threshold=100.0), {"messages": chat}
    )
    assert rows[0].fields["quality"] == len("Hello there my friend\nHi")
    with pytest.raises(DataError, match="holds a list, expected text"):
        one(make("heuristics", context, min_words=5), {"messages": [1]})
