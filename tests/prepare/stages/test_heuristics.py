import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsft.data.formats import read
from jaxsft.data.scripts import words
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.spool import Log
from jaxsft.prepare.stages.heuristics import c4, gopher, gopher_repetition
from tests.growth import is_linear
from tests.prepare.harness import make, one, run, texts
from tests.realdata import real

PAGE = "\n".join(
    f"The {a} of the house was seen by a {b} in the year {n}, and that is what people have said"
    " with some pride."
    for a, b, n in zip(
        ("roof", "door", "garden", "owner"),
        ("sailor", "farmer", "teacher", "painter"),
        (1800, 1820, 1833, 1900),
        strict=True,
    )
)


def reasons(text, **options):
    _, report = one(make("heuristics", action="mark", **options), text)
    return set(report.marked)


# (option, value, what is just allowed, what is just too much or too little)
EDGES = [
    ("min_chars", 5, "abcde", "abcd"),
    ("max_chars", 5, "abcde", "abcdef"),
    ("min_words", 3, "a, b - c!", "a, b - !"),
    ("max_words", 3, "a b c", "a b c d"),
    ("max_words", 3, "天地玄", "天地玄黄"),
    ("max_symbols", 0.25, "abc!", "ab!"),
    ("max_symbols", 0.0, "e\u0301 हिन्दी", "e!"),
    ("max_digits", 0.5, "a1 b2", "a1 2"),
    ("max_upper", 0.5, "Aa 11", "AAa"),
    ("max_repeated_lines", 0.5, "a\nb\na\na\n\nc\nb", "a\nb\na\na\na"),
    ("max_repeated_ngrams", 0.25, "a b c x a b c", "a b c a b c a b c"),
]


@pytest.mark.parametrize(("option", "value", "good", "bad"), EDGES)
def test_bounds_are_inclusive(option, value, good, bad):
    rows, report = one(make("heuristics", **{option: value}), good, bad)
    assert texts(rows) == [good] and len(report.dropped) == 1
    assert report.dropped[0][1] == next(iter(reasons(bad, **{option: value})))


@given(st.text(st.sampled_from("ab .,\n天地"), max_size=30), st.integers(0, 12), st.integers(0, 12))
def test_the_number_of_words_decides(text, low, high):
    low, high = sorted((low, high))
    assert bool(one(make("heuristics", min_words=low, max_words=high), text)[0]) == (
        low <= len(words(text)) <= high
    )


def test_tokens_are_those_of_the_tokenizer(tmp_path):
    from jaxsft.data.tokenizers.tokenizer import Tokenizer

    Tokenizer.bytes().save(tmp_path)
    rows, report = one(
        make("heuristics", tokenizer=str(tmp_path), min_tokens=2, max_tokens=4),
        "a",
        "ab",
        "abcd",
        "abcde",
        "天地",
    )
    assert texts(rows) == ["ab", "abcd"]
    assert [reason for _, reason in report.dropped] == [
        "too few tokens",
        "too many tokens",
        "too many tokens",
    ]


def test_bad_words(tmp_path):
    (tmp_path / "bad.txt").write_text("darn\nbad thing\n坏蛋\n", encoding="utf-8")
    stage = make("heuristics", bad_words=str(tmp_path / "bad.txt"))
    assert texts(one(stage, "Darn!", "darned", "a bad thing", "你这个坏蛋吗", "fine")[0]) == [
        "darned",
        "fine",
    ]
    assert texts(
        one(
            make("heuristics", bad_words=str(tmp_path / "bad.txt"), max_bad_words=1),
            "darn",
            "darn darn",
        )[0]
    ) == ["darn"]


def test_ratio_of_two_columns():
    stage = make("heuristics", pair=["source", "target"], min_ratio=0.5, max_ratio=2.0)
    rows, report = one(
        stage,
        *(
            {"source": s, "target": t}
            for s, t in (("ab", "a"), ("ab", "abcd"), ("ab", ""), ("ab", "abcde"), ("", "a"))
        ),
    )
    assert [row.line for row in rows] == [1, 2]
    assert [reason for _, reason in report.dropped] == [
        "target too short for source",
        "target too long for source",
        "nothing in source",
    ]


def test_gopher():
    assert list(gopher(PAGE)) == []
    assert "gopher, number of words" in list(gopher(PAGE.split("\n")[0]))
    assert "gopher, mean length of words" in list(gopher("a b " * 40))
    assert "gopher, hashes or ellipses" in list(gopher(PAGE + " #" * 12))
    assert "gopher, hashes or ellipses" not in list(gopher(PAGE + " #" * 9))
    assert "gopher, lines with a bullet" in list(
        gopher("\n".join(f"- {line}" for line in PAGE.split("\n")))
    )
    assert "gopher, lines that end with an ellipsis" in list(gopher(PAGE.replace(".\n", "...\n")))
    assert "gopher, words without a letter" in list(gopher(PAGE + " 123" * 30))
    assert "gopher, function words" in list(gopher("lorem ipsum dolor sit amet " * 12))


def test_gopher_repetition():
    assert list(gopher_repetition(PAGE)) != []  # it repeats whole phrases
    prose = (
        "Ships came early that spring. Nobody had expected them before May, because ice still"
        " covered most harbours along this coast."
    )
    assert list(gopher_repetition(prose)) == []
    found = set(gopher_repetition("one line\n" * 5))
    assert {
        "gopher, repeated lines",
        "gopher, characters in repeated lines",
        "gopher, most frequent 2-gram",
    } <= found
    assert "gopher, repeated paragraphs" in set(gopher_repetition("one\n\ntwo\n\none\n\none"))
    assert "gopher, repeated 5-grams" in set(gopher_repetition(prose + " " + prose))


def test_every_rule_is_counted_by_itself(tmp_path):
    log = Log(tmp_path / "dropped")
    log.extend(("a:1", reason) for reason in [*c4("A. B. C. {x} Lorem Ipsum"), *gopher("a b")])
    assert {"c4, lorem ipsum", "c4, curly bracket", "gopher, number of words"} <= set(log.counts)


def test_c4():
    assert list(c4("One. Two! Three?")) == [] and list(c4("一。二！三？")) == []
    assert list(c4("One. Version 1.5 two.")) == ["c4, fewer than three sentences"]
    assert list(c4("A. B. C. {x} Lorem Ipsum")) == ["c4, lorem ipsum", "c4, curly bracket"]


def test_marking_tells_all_reasons_and_dropping_the_first():
    rows, report = one(make("heuristics", min_chars=5, min_words=2, action="mark"), "a", "abc def")
    assert texts(rows, "marks") == ["heuristics: too few characters; heuristics: too few words", ""]
    _, report = one(make("heuristics", min_chars=5, min_words=2), "a")
    assert report.dropped == [("rows.jsonl:1", "too few characters")]


def test_real_pages_of_the_rules():
    rows = read(
        real(
            "sms_spam/"
            + next(
                p.name for p in real("sms_spam").iterdir() if p.suffix not in (".txt", ".upstream")
            )
        ),
        format="tsv",
        header="false",
    )
    out, reports = run(make("heuristics", field="1", max_upper=0.5, min_words=3), {"train": rows})
    assert 0.8 < len(out["train"]) / len(rows) < 1
    assert {reason for _, reason in reports["train"].dropped} == {
        "too much upper case",
        "too few words",
    }


@pytest.mark.parametrize("piece", ["a ", "a. ", "a\n", "\n", "a", ".", "# "])
def test_time_is_linear_in_the_length(piece):
    rules = {
        "rules": ["gopher", "gopher_repetition", "c4"],
        "max_symbols": 0.1,
        "max_repeated_ngrams": 0.1,
    }
    assert is_linear(lambda n: reasons(piece * (n // len(piece)), **rules))


@pytest.mark.parametrize(
    "options",
    [
        {}, {"rules": ["x"]}, {"min_words": 3, "max_words": 2}, {"max_upper": 1.5},
        {"max_tokens": 3}, {"tokenizer": "x"}, {"pair": ["a"]},
        {"min_ratio": 0.5}, {"max_bad_words": 2}, {"min_words": 1, "ngram": 0},
    ],
)  # fmt: skip
def test_impossible_options(options):
    with pytest.raises(ConfigError, match=r"stages.heuristics"):
        make("heuristics", **options)


def test_a_missing_list_is_told(tmp_path):
    with pytest.raises(DataError, match=r"none.txt"):
        make("heuristics", bad_words=str(tmp_path / "none.txt"))
