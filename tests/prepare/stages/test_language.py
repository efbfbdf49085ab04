import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsft.errors import ConfigError
from jaxsft.prepare.stages.language import script, script_counts
from tests.prepare.harness import make, one, texts
from tests.realdata import real

ENGLISH = "The committee will meet again on Tuesday to discuss the new rules."
GERMAN = "Der Ausschuss wird am Dienstag wieder zusammentreten, um die neuen Regeln zu besprechen."
CHINESE = "委员会将于星期二再次开会讨论新的规则。"


def test_languages_are_told_and_kept():
    pytest.importorskip("py3langid")
    rows, report = one(make("language", keep=["en", "zh"]), ENGLISH, GERMAN, CHINESE, "ok")
    assert [row.fields["language"] for row in rows] == ["en", "zh", "und"]
    assert all(0.8 < row.fields["language_probability"] <= 1 for row in rows[:2])
    assert report.dropped == [("rows.jsonl:2", "another language")]
    rows, report = one(
        make("language", keep=["en"], short="drop", action="mark"), ENGLISH, GERMAN, "ok"
    )
    assert texts(rows, "marks") == ["", "language: another language", "language: too short to tell"]
    assert report.marked == {"another language": 1, "too short to tell": 1}


def test_few_letters_have_no_language_unless_asked():
    pytest.importorskip("py3langid")
    assert one(make("language", min_letters=0), "the")[0][0].fields["language"] != "und"
    assert one(make("language", min_letters=7 * 3), CHINESE[:6])[0][0].fields["language"] == "und"
    assert one(make("language", min_letters=6 * 3), CHINESE[:6])[0][0].fields["language"] == "zh"
    assert one(make("language", candidates=["en", "fr"]), GERMAN)[0][0].fields["language"] in (
        "en",
        "fr",
    )


def test_parallel_sentences_are_told_apart():
    pytest.importorskip("py3langid")
    rights = 0
    for language, name in (
        ("en", "english"),
        ("de", "german"),
        ("ar", "arabic"),
        ("zh", "chinese"),
    ):
        with gzip.open(
            real(f"ud_{name}_pud/{language}_pud-ud-test.conllu.gz"), "rt", encoding="utf-8"
        ) as file:
            lines = file.read().splitlines()
        sentences = [
            line.removeprefix("# text = ") for line in lines if line.startswith("# text = ")
        ][:50]
        rights += sum(
            row.fields["language"] == language for row in one(make("language"), *sentences)[0]
        )
    assert rights >= 195


def test_scripts_need_no_library():
    rows, report = one(
        make("language", method="script", keep=["Latin"], min_probability=0.8),
        ENGLISH,
        "abcde привет",
        CHINESE,
        "12 + 3",
    )
    assert texts(rows, "script") == ["Latin", "und"]
    assert report.dropped == [
        ("rows.jsonl:2", "not sure enough"),
        ("rows.jsonl:3", "another script"),
    ]
    rows, _ = one(
        make(
            "language", method="script", keep=["Han", "Hiragana", "Katakana"], min_probability=1.0
        ),
        "東京タワーへ行く",
    )
    assert rows[0].fields["script_share"] == 1.0


def test_the_share_may_be_exactly_what_is_asked():
    assert one(make("language", method="script", keep=["Latin"], min_probability=0.5), "abпр")[0]
    assert not one(make("language", method="script", keep=["Latin"], min_probability=0.51), "abпр")[
        0
    ]


@given(st.text())
def test_every_letter_of_a_script_counts_once(text):
    counts = script_counts(text)
    assert counts.total() == sum(script(c) is not None for c in text) <= sum(map(str.isalpha, text))


@pytest.mark.parametrize(
    "options",
    [
        {"method": "x"},
        {"min_probability": 2.0},
        {"method": "script", "candidates": ["en"]},
        {"short": ""},
    ],
)
def test_impossible_options(options):
    with pytest.raises(ConfigError, match=r"stages.language"):
        make("language", **options)


def test_an_unknown_language_is_an_error():
    pytest.importorskip("py3langid")
    with pytest.raises(ConfigError, match="'english' is none of"):
        make("language", keep=["english"])
