import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.data import perturb
from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.stage import Context
from jaxsft.prepare.stages.augment import CHARACTERS, WORDS
from tests.prepare.harness import make, one, rows_of, run, texts

ALL = [*WORDS, *CHARACTERS]
SENTENCE = "The quick brown fox jumps over the lazy dog near my big house today"


@pytest.fixture(scope="module")
def lexicon(tmp_path_factory):
    path = tmp_path_factory.mktemp("lexicon") / "words.tsv"
    path.write_text(
        "quick\tfast, very fast\nbig\tlarge\ngo\tmove\nhouse\tbuilding\n城\t市\n", encoding="utf-8"
    )
    return str(path)


def options(methods, lexicon, **more):
    return {
        "methods": methods,
        **({"lexicon": lexicon} if {"insert", "synonym"} & set(methods) else {}),
        **more,
    }


def copies(content, method, lexicon, **more):
    rows, report = one(make("augment", **options([method], lexicon, **more)), content)
    assert report.added.total() == len(rows) - 1
    return rows[1:]


def test_each_method_changes_what_it_says(lexicon):
    before = SENTENCE.split()
    for method in ALL:
        (row,) = copies(SENTENCE, method, lexicon)
        after = row.fields["text"].split()
        same = sum(a == b for a, b in zip(before, after, strict=False))
        if method == "swap":
            assert sorted(after) == sorted(before) and same == 12
        elif method == "delete":
            assert len(after) == 13 and [w for w in before if w in after] == after
        elif method == "insert":
            assert len(after) >= 15 and set(after) - set(before) <= {
                "fast",
                "very",
                "large",
                "building",
            }
        elif method == "synonym":
            assert set(before) - set(after) <= {"quick", "big", "house"} and after != before
        elif method == "case":
            assert row.fields["text"].lower() == SENTENCE.lower() and row.fields["text"] != SENTENCE
        else:
            assert len(after) >= 13 and same < 14


def test_characters_become_what_the_tables_say(tmp_path):
    for method, table in (("keyboard", perturb.KEYBOARD), ("ocr", perturb.OCR)):
        (row,) = copies("abcdefghijklm", method, None, alpha=0.01)
        after, changed = row.fields["text"], False
        for at, old in enumerate("abcdefghijklm"):
            changed |= any(
                after == "abcdefghijklm"[:at] + new + "abcdefghijklm"[at + 1 :]
                for new in table.get(old, ())
            )
        assert changed or "d" + after[3:] == after  # cl -> d does not occur
    assert set(perturb.KEYBOARD["g"]) == set("fhtyvb") and set(perturb.KEYBOARD["q"]) == set("12wa")
    assert all(
        key in perturb.KEYBOARD[other]
        for key, others in perturb.KEYBOARD.items()
        for other in others
    )
    (tmp_path / "own.tsv").write_text("a\tα\n", encoding="utf-8")
    assert texts(
        copies("banana", "ocr", None, alpha=1.0, confusions=str(tmp_path / "own.tsv"))
    ) == ["bαnαnα"]


tagged = st.lists(
    st.tuples(
        st.sampled_from(["quick", "big", "Fox", "in", "York", "a"]),
        st.sampled_from(["O", "O", "B-X", "I-X"]),
    ),
    min_size=1,
    max_size=10,
)


def entities(words, tags):
    found = []
    for word, tag in zip(words, tags, strict=True):
        if tag.startswith("B") or (tag != "O" and not (found and found[-1][1])):
            found.append([[word], True])
        elif tag != "O":
            found[-1][0].append(word)
        elif found:
            found[-1][1] = False
    return [words for words, _ in found]


@settings(max_examples=60, deadline=None)
@given(tagged, st.sampled_from(ALL), st.sampled_from([0.1, 0.6]))
def test_tags_stay_aligned(lexicon, content, method, alpha):
    words, tags = map(list, zip(*content, strict=True))
    row = {"text": " ".join(words), "tokens": words, "tags": tags}
    stage = make("augment", **options([method], lexicon, alpha=alpha, copies=3))
    for new in (
        stage.changed(rows_of(row)[0], method, stage.rng(rows_of(row)[0], copy))
        for copy in range(3)
    ):
        after, after_tags = new.fields["tokens"], new.fields["tags"]
        assert (
            len(after) == len(after_tags)
            and new.fields["text"] == " ".join(after)
            and all(w.strip() for w in after)
        )
        if method in WORDS:
            assert entities(after, after_tags) == entities(words, tags)
        else:
            assert after_tags == tags


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["quick ", "big", "\n", " ", "Fox, ", "北京城", "go ", "é "]),
        min_size=1,
        max_size=10,
    ),
    st.data(),
    st.sampled_from(ALL),
)
def test_spans_mark_the_same_text(lexicon, pieces, data, method):
    text = "".join(pieces)
    ends = st.tuples(st.integers(0, len(text)), st.integers(0, len(text))).filter(
        lambda x: x[0] < x[1]
    )
    bounds = data.draw(st.lists(ends, max_size=3))
    for spans in (
        [[a, b, "X"] for a, b in bounds],
        [{"start": a, "end": b, "label": "X"} for a, b in bounds],
    ):
        stage = make("augment", **options([method], lexicon, alpha=0.5))
        (row,) = rows_of({"text": text, "spans": spans})
        new = stage.changed(row, method, stage.rng(row, 0)).fields
        found = [(s[:2] if isinstance(s, list) else (s["start"], s["end"])) for s in new["spans"]]
        assert [new["text"][a:b] for a, b in found] == [text[a:b] for a, b in bounds]


@given(st.text())
def test_a_text_is_its_units(text):
    lead, units = perturb.units_of(text)
    assert perturb.joined(lead, units) == (text, {})


def test_copies_depend_on_the_row_alone_and_only_training_rows_get_them(lexicon):
    stage = make("augment", **options(ALL, lexicon, copies=4, column="made_by"))
    rows = rows_of(*(f"{SENTENCE} number {i}" for i in range(150)))
    out, reports = run(stage, {"train": rows, "test": rows[:5]})
    assert out["test"] == rows[:5] and len(out["train"]) > 4.5 * len(rows)
    parts = [
        row for part in (rows[:70], rows[70:]) for row in run(stage, {"train": part})[0]["train"]
    ]
    assert parts == out["train"]
    assert set(reports["train"].added) == set(ALL)
    assert [row.fields["made_by"] for row in out["train"][:1]] == [None] and {
        r.fields["made_by"] for r in out["train"]
    } == {None, *ALL}
    other = make("augment", Context(seed=1), **options(ALL, lexicon, copies=4, column="made_by"))
    assert run(other, {"train": rows})[0]["train"] != out["train"]


def test_what_would_break_a_row_is_an_error(lexicon):
    tree = {"tokens": ["a", "b"], "head": [0, 1], "tags": ["O", "O"]}
    with pytest.raises(
        DataError, match="column 'head' belongs to the words too, and swap would break it"
    ):
        copies(tree, "swap", lexicon)
    assert copies(tree, "case", lexicon)[0].fields["head"] == [0, 1]
    with pytest.raises(DataError, match="is not a list of 2 tags"):
        copies({"tokens": ["a", "b"], "tags": ["O"]}, "case", lexicon)
    with pytest.raises(DataError, match="no row of train could be changed"):
        copies("x", "delete", lexicon)
    with pytest.raises(DataError, match=r"column 'spans' holds \[3, 9, 'X'\]"):
        copies({"text": "abc", "spans": [[3, 9, "X"]]}, "case", lexicon)


def test_a_copy_that_equals_its_row_is_not_made(lexicon):
    rows, report = one(
        make("augment", **options(["synonym"], lexicon)), "nothing known", "a quick one"
    )
    assert len(rows) == 3 and report.facts["unchanged copies"] == 1


def test_back_translation_asks_the_model():
    def predict(records):
        assert all(set(record) == {"prompt"} for record in records)
        return [
            {
                **record,
                "prediction": record["prompt"].removeprefix("Say ")[::-1],
                "stopped": record["prompt"] != "Say xyz",
            }
            for record in records
        ]

    stage = make(
        "augment",
        Context(predict=predict),
        methods=["back_translation", "case"],
        copies=2,
        template="Say {text}",
    )
    rows, report = one(stage, "abc", "def", "xyz")  # the answer to the last one is cut off
    assert (
        report.added == {"back_translation": 2, "case": 3} and report.facts["unchanged copies"] == 1
    )
    assert [text for text in texts(rows) if text in ("cba", "fed")] == ["cba", "fed"]
    with pytest.raises(DataError, match="cannot keep tags or spans aligned"):
        one(stage, {"text": "a", "tokens": ["a"], "tags": ["O"]})
    with pytest.raises(DataError, match="the model gave 0 records for"):
        one(
            make("augment", Context(predict=lambda records: []), methods=["back_translation"]),
            "abc",
        )


@pytest.mark.parametrize(
    "options",
    [
        {"methods": ["x"]}, {"methods": []}, {"copies": 0}, {"alpha": 0.0},
        {"methods": ["synonym"]}, {"lexicon": "x"}, {"confusions": "x"},
        {"methods": ["back_translation"]},
    ],
)  # fmt: skip
def test_impossible_options(options):
    with pytest.raises(ConfigError, match=r"stages.augment"):
        make("augment", **options)


def test_a_broken_lexicon_is_told(tmp_path):
    (tmp_path / "bad.tsv").write_text("word without synonyms\n")
    with pytest.raises(ConfigError, match="not of the form"):
        make("augment", methods=["synonym"], lexicon=str(tmp_path / "bad.tsv"))


def test_rows_keep_where_they_come_from():
    (row,) = copies(SENTENCE, "swap", None)
    assert isinstance(row, Row) and row.where == "rows.jsonl:1"
