import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.data.formats import read
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.stages.clean import is_boilerplate
from tests.growth import is_linear
from tests.prepare.harness import make, one, rows_of, run, texts
from tests.realdata import real


def clean(text, **options):
    rows, _ = one(make("clean", empty="keep", **options), text)
    return rows[0].fields["text"]


EVERYTHING = {
    "unicode": "NFKC",
    "html": "strip",
    "urls": "token",
    "emails": "token",
    "calculator": "strip",
    "boilerplate": True,
    "space": "collapse",
}
pieces = [
    *"<>/&;#ab \n\t|·.@:-!1",
    "<b>",
    "</p>",
    "&amp;",
    "&lt;",
    "&#38;",
    "<!--",
    "-->",
    "<script>",
    "</script>",
    "http://",
    "<<",
]
unseen = [
    *"\u200b\u200c\u200d\ufeff\u0643\u0915\u094d👩❤\ufe0f\U0001f3f4\U000e0067\U000e007f\u0301e\u00e9ﬁ１\r\n\x00"
]
hostile = st.text() | st.one_of(
    st.lists(st.sampled_from(some), max_size=12).map("".join) for some in (pieces, unseen)
)


@settings(max_examples=300, deadline=None)
@given(
    hostile,
    st.sampled_from(
        [
            {},
            EVERYTHING,
            {"space": "line", "html": "strip", "urls": "remove"},
            {"space": "keep", "unicode": "none"},
        ]
    ),
)
def test_cleaning_twice_is_cleaning_once(text, options):
    stage = make("clean", **options)
    rows, _ = one(stage, text)
    if rows:
        again, report = one(stage, rows[0].fields["text"])
        assert texts(again) == texts(rows)
        assert not report.changed


@pytest.mark.parametrize(
    ("options", "before", "after"),
    [
        ({}, "e\u0301 \r\nx\u2028y  ", "é\nx\ny"),
        ({}, "def f():\n    return 1\n\n\n\n\nf()", "def f():\n    return 1\n\nf()"),
        ({"unicode": "NFKC"}, "ﬁ１²", "fi12"),
        ({"unicode": "none"}, "e\u0301", "e\u0301"),
        ({}, "a\u200bb\ufeffc\x00d\u202ee\ud800", "abcde"),
        ({"invisible": "keep"}, "a\u200bb", "a\u200bb"),
        (
            {},
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u0915\u094d\u200d\u0937",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u0915\u094d\u200d\u0937",
        ),
        ({}, "a\u200cb\u200dc", "abc"),
        ({}, "👩\u200d❤\ufe0f\u200d👨 👩\u200dx", "👩\u200d❤\ufe0f\u200d👨 👩x"),
        (
            {},
            "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e007f x\U000e0041y",
            "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e007f xy",
        ),
        ({"html": "strip"}, "<p>a &amp;lt;b&amp;gt; <B class='x'>c</B><br/>d</p>", "a  c\nd"),
        (
            {"html": "strip"},
            "List<String> x; a < b and c > d; AT&T &copy &eacute;",
            "List<String> x; a < b and c > d; AT&T &copy é",
        ),
        (
            {"html": "strip"},
            "x<script src=a>if (a<b) {}</script>y<!-- <p> -->z<style>p{}</style>",
            "xyz",
        ),
        ({"html": "strip"}, "x <!-- never closed", "x <!-- never closed"),
        ({"urls": "token"}, "see https://a.org/b?c=d_(e), or www.x.io.", "see <url>, or <url>."),
        ({"urls": "token", "html": "strip"}, "见https://a.org/b。好", "见<url>。好"),
        ({"urls": "remove"}, "see http://a.org now", "see  now"),
        ({"emails": "token"}, "to jo.x+y@mail.example.org.", "to <email>."),
        ({"calculator": "strip"}, "48/2 = <<48/2=24>>24", "48/2 = 24"),
        (
            {"boilerplate": True},
            "Real text.\nWe use cookies to improve it.\nHome | News | About us\nMore.",
            "Real text.\nMore.",
        ),
        ({"patterns": [r"^\[ad\]"]}, "a\n[ad] buy\nb", "a\nb"),
        ({"space": "collapse"}, "  a \t b\n   c", "a b\nc"),
        ({"space": "line"}, " a\n\nb\t c ", "a b c"),
        ({"space": "keep"}, " a \n\n\n\n", " a \n\n\n\n"),
    ],
)
def test_each_option(options, before, after):
    assert clean(before, **options) == after


def test_mojibake_is_repaired_and_quotes_stay():
    pytest.importorskip("ftfy")
    assert clean("cafÃ© “x” &lt;", fix=True) == "café “x” &lt;"


def test_a_row_that_becomes_empty_is_dropped_by_reason():
    rows, report = one(make("clean", html="strip"), "<br>", "a", "\u200b")
    assert texts(rows) == ["a"]
    assert report.dropped == [("rows.jsonl:1", "empty text"), ("rows.jsonl:3", "empty text")]


def test_a_chat_is_cleaned_by_turn_and_null_stays():
    stage = make("clean", fields=["messages"])
    chat = [
        {"role": "user", "content": "a\u200b "},
        {"role": "assistant", "content": None, "tool_calls": []},
    ]
    rows, report = one(stage, {"messages": chat})
    assert rows[0].fields["messages"] == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": []},
    ]
    assert report.changed == {"invisible characters": 1, "white space": 1}


def test_what_would_break_alignment_is_an_error():
    with pytest.raises(DataError, match=r"rows.jsonl:1: column 'spans' points into 'text'"):
        one(make("clean"), {"text": " a", "spans": [[1, 2, "X"]]})
    assert one(make("clean"), {"text": "a", "spans": [[0, 1, "X"]]})[0]
    with pytest.raises(DataError, match=r"holds a list, expected text; set stages.clean.fields"):
        one(make("clean", fields=["tokens"]), {"tokens": ["a", "b"]})


@pytest.mark.parametrize(
    "options",
    [
        {"unicode": "nfc"},
        {"html": "maybe"},
        {"patterns": ["("]},
        {"space": ""},
        {"urls": "token", "url_token": "http://x."},
        {"email_token": "a@b.cd"},
    ],
)
def test_impossible_options(options):
    with pytest.raises(ConfigError, match=r"stages.clean"):
        make("clean", **options)


@pytest.mark.parametrize(
    "piece",
    [
        "<",
        "&",
        "&amp;",
        "<a ",
        "<!--",
        "<script>",
        "a@",
        "a.",
        " ",
        "http://",
        "<<",
        "|",
        "\u200d",
        "<b>",
        "x" * 9,
        "&#38;",
        "<<b>b>",
    ],
)
def test_time_is_linear_in_the_length(piece):
    stage = make("clean", **EVERYTHING)
    text = lambda n: piece * (n // len(piece))
    assert is_linear(lambda n: one(stage, text(n) + "x", text(n)))


def test_boilerplate_is_short_and_whole():
    assert (
        is_boilerplate("Accept all cookies")
        and is_boilerplate("版权所有 2020")
        and is_boilerplate("a | b | c")
    )
    assert not is_boilerplate("The privacy policy " + "of the firm was disputed in court " * 5)
    assert not is_boilerplate("") and not is_boilerplate(
        "|x| is the absolute value of x, a number that is never negative"
    )


def test_real_rows_stay_readable():
    rows = read(real("gsm8k/test.jsonl"))[:300]
    out, reports = run(
        make("clean", fields=["question", "answer"], calculator="strip"), {"train": rows}
    )
    assert len(out["train"]) == len(rows) and not any(
        "<<" in row.fields["answer"] for row in out["train"]
    )
    assert reports["train"].changed["calculator marks"] > 250
    assert all(unicodedata.is_normalized("NFC", row.fields["question"]) for row in out["train"])
    assert rows_of("x")[0].where == "rows.jsonl:1"


def test_a_column_is_named_once():
    with pytest.raises(
        ConfigError, match=r"stages.clean.fields=\['text', 'text'\]: expected each column once"
    ):
        make("clean", fields=["text", "text"])
