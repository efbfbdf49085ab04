"""Words in every script."""

import itertools
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.data.graphemes import words


@pytest.mark.parametrize(
    "text, count",
    [
        ("राहुल गांधी दिल्ली में रहते हैं", 6),
        ("சென்னை", 1),
        ("আমি বাংলায় গান গাই", 4),
        ("Rene\u0301", 1),
        ("می\u200cروم", 1),
        ("क्\u200dष", 1),
        ("שָׁלוֹם עוֹלָם", 2),
        ("مُحَمَّد", 1),
        ("ดีมาก ครับ", 2),
        ("👩\u200d🚒", 1),
        ("👍🏽", 1),
        ("❤\ufe0f\u200d🔥", 1),
        ("🇩🇪🇫🇷", 2),
        ("🏴\U000e0067\U000e0062\U000e007f", 1),
        ("1\ufe0f\u20e3", 1),
        ("葛\U000e0100城", 2),
        ("北京。", 3),
        ("don't", 3),
        ("a_b 3.5, «x»", 8),
        ("か\u3099く", 1),
        ("😀😀", 2),
        ("co\u00adop a\u2060b", 2),
    ],
)
def test_words_by_hand(text, count):
    places = words(text)
    assert len(places) == count and "".join(text[a:b] for a, b in places) == "".join(text.split())


@settings(max_examples=200, deadline=None)
@given(
    st.text(
        st.characters(exclude_categories=["Cs"])
        | st.sampled_from("क्ा\u0301\u200d\u200c👩🚒🇩🇪か\u3099葛 a1_.,"),
        max_size=12,
    )
)
def test_every_sign_is_in_one_word_and_no_mark_begins_one_behind_its_letter(text):
    places = words(text)
    assert "".join(text[a:b] for a, b in places) == "".join(c for c in text if not c.isspace())
    assert all(b <= c for (_, b), (c, _) in itertools.pairwise(places))
    for start, _ in places:
        if unicodedata.category(text[start])[0] == "M":
            assert (
                start == 0
                or text[start - 1].isspace()
                or unicodedata.category(text[start - 1]) in ("Cf", "Cn", "Co", "Cc", "So")
            )
