"""Rows to look at for what their texts are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsft.check.text_findings import RULES
from jaxsft.prepare.quality.consistency import is_mojibake
from tests.check.look import found, lines, look

PLAIN = [
    f"{a} {b} are plain words"
    for a in ("red", "green", "blue", "old", "new")
    for b in ("cats", "dogs", "birds", "trees")
]


def rows(*texts):
    return [{"text": text} for text in (*PLAIN, *texts)]


@pytest.mark.parametrize(
    "id, texts",
    [
        ("mojibake", ["cafÃ©", "donâ€™t", "Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "Ã¼ber", "ä½\xa0å¥½ï¼Œ"]),
        ("replacement_character", ["caf\ufffd"]),
        ("control_characters", ["a\x00b", "a\u200bb", "a\u202eb", "\ufeffa b", "a\x85b"]),
        ("repeated_characters", ["so" + "o" * 25, "!" * 20, "哈" * 30]),
        (
            "template_markers",
            [
                "<|im_end|> hello",
                "[INST] do it [/INST]",
                "</s>",
                "<start_of_turn>user",
                "### Instruction:\nwork",
            ],
        ),
        ("html", ["<p>text</p>", 'see <a href="x">this</a>', "a&nbsp;b", "one<br/>two"]),
    ],
)
def test_suspicious_texts_are_found(tmp_path, id, texts):  # guards C11
    result = look("lm", tmp_path, {"train": rows(*texts)}, check={"places": 50})
    assert lines(found(result, id)) == [len(PLAIN) + i for i in range(1, len(texts) + 1)], found(
        result, id
    )
    others = {finding.id for finding in result.findings if finding.severity != "info"} - {id}
    # </s> is HTML of no kind; a damaged text may hold controls
    assert others & set(RULES) == set() or id in ("template_markers", "mojibake")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "naïve café",
            "Ärger über Öl",
            "« Voilà »",
            "CORAÇÃO",
            "señor ¿qué?",
            "“quoted” — text…",
            "привет",
            "你好",
            "20 °C ± 1",
            "a < b && c > d",
            "x = a<b>c",
        ),
        *(
            "=" * 40,
            "-" * 40,
            "...................................",
            "    " * 10,
            "see #1 & more",
            "I <3 you",
            "€5–€10",
            "Größe ½",
            "👩‍👩‍👧",
            "नमस्ते",
        ),
    ],
)
def test_texts_that_only_look_odd_are_not(tmp_path, text):
    hits = {id for id, (_, rule, _) in RULES.items() if rule(text)}
    assert hits <= ({"html"} if text == "x = a<b>c" else set())


@given(st.text(alphabet="éèüñçàßøåÉÜ“”’–…€", min_size=1, max_size=20))
def test_what_was_read_in_the_wrong_encoding_is_told(text):
    """An oracle by construction: the text itself is whole, its bytes read as Latin-1 are not."""
    assert is_mojibake(text.encode("utf-8").decode("latin-1"))


def test_empty_texts_and_answers(tmp_path):
    result = look("lm", tmp_path, {"train": rows("", " \n")})
    assert found(result, "empty").count == 2
    chats = [{"prompt": text, "completion": "yes"} for text in PLAIN] + [
        {"prompt": " ", "completion": "x"},
        {"prompt": "x", "completion": ""},
    ]
    result = look("chat", tmp_path, {"train": chats})
    assert lines(found(result, "empty_answer")) == [22] and lines(found(result, "empty")) == [21]


def test_outliers_of_length(tmp_path):
    result = look("lm", tmp_path, {"train": rows("x", "word " * 300)})
    assert lines(found(result, "very_long")) == [22] and lines(found(result, "very_short")) == [21]
    assert (
        "up to 1,500 characters" in found(result, "very_long").message
        and "down to 1 characters" in found(result, "very_short").message
    )
    even = look("lm", tmp_path, {"train": rows()})
    assert found(even, "very_long") is None and found(even, "very_short") is None


def test_scripts(tmp_path):
    many = [{"text": f"{text} {i}"} for i in range(10) for text in PLAIN]
    result = look("lm", tmp_path, {"train": [*many, {"text": "это по-русски"}, {"text": "12 + 3"}]})
    assert (
        lines(found(result, "rare_script")) == [201]
        and "'Cyrillic'" in found(result, "rare_script").message
    )
    assert result.numbers["train"]["scripts"] == {"Latin": 200, "Cyrillic": 1, "none": 1}
    assert "2 scripts" in found(result, "scripts").message
