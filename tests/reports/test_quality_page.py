"""The pages of a quality card: whatever the data hold is shown as text, and the page fits a phone
and a desk, light and dark.
"""

from __future__ import annotations

import re

import pytest

from jaxsft.config.schema import QualityConfig
from jaxsft.data.formats import Row
from jaxsft.prepare import quality
from jaxsft.reports import quality_page as pages
from tests.reports import test_browser as browser

EVIL = "<script>alert(1)</script> | `x` [a](javascript:b) *b* \u202e\x01 &lt;"
LABELS = ["好评" * 30, "a_label_without_any_space_" * 6, "مرحبا بالعالم", EVIL, "x" * 200]


def card(shift=0):
    rows = [
        {
            "text": f"{EVIL} {'long' * 60} {i + shift}",
            "label": LABELS[i % 5],
            EVIL: i if i else "no",
        }
        for i in range(30)
    ]
    rows[7] |= {"text": rows[8]["text"]}
    parts = {"train": rows, "test": rows[:8], "x" * 80: rows[3:9]}
    sets = quality.of_rows(
        {
            name: [Row(fields, f"{name}<b>.jsonl", n) for n, fields in enumerate(part, 1)]
            for name, part in parts.items()
        }
    )
    return quality.card(sets, QualityConfig(ngram=2))


@pytest.fixture(scope="module")
def made():
    return card()


def test_what_the_data_hold_is_text_in_html(made):
    text = pages.html(made, EVIL)
    assert (
        "<script" not in text
        and "<b>.jsonl" not in text
        and "\u202e" not in text
        and "\x01" not in text
    )
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", text)


def test_what_the_data_hold_is_text_in_markdown(made):
    text = pages.markdown(made, EVIL)
    assert (
        "<script" not in text
        and not re.search(r"(?<!\\)\]\(javascript", text)
        and "\x01" not in text
    )
    # every table keeps its number of columns
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_every_number_stands_on_both_pages_with_its_definition(made):
    markdown, html = pages.markdown(made, "d"), pages.html(made, "d")
    for measure in made["definitions"]:
        assert (
            f"| {measure.replace('_', ' ')} |" in markdown
            and f">{measure.replace('_', ' ')}</th>" in html
        )


@pytest.mark.parametrize(("value", "measure", "text"), [
    (None, "mtld", "–"), (0.0213, "noisy_rows", "2.13 %"), (0.0, "noisy_rows", "0 %"),
    (1234, "rows", "1,234"), (6.0, "imbalance", "6"),
    (0.123456, "mattr", "0.1235"), ("small", "words_drift", "small"),
])  # fmt: skip
def test_numbers_as_text(value, measure, text):
    assert (
        pages.value_text({"definitions": {"noisy_rows": {"share": True}}}, measure, value) == text
    )


@pytest.mark.parametrize(("width", "dark"), [(400, False), (400, True), (1400, True)])
@pytest.mark.parametrize("kind", ["card", "comparison"])
def test_the_page_fits_and_is_quiet(made, tmp_path, kind, width, dark):
    if not browser.works():
        pytest.skip("no Chromium: install the package chromium to see card.html in a browser")
    if kind == "card":
        text = pages.html(made, "data")
    else:
        pages.write_comparison(tmp_path, quality.compare(made, card(100)), "a/card.json", "b")
        text = (tmp_path / "comparison.html").read_text("utf-8")
    found, console = browser.look(text, tmp_path, width, dark)
    assert console == [] and found["scroll"] <= found["width"] and found["wide"] == []
    red, green, blue = map(int, re.findall(r"\d+", found["background"])[:3])
    assert (max(red, green, blue) < 60) if dark else (min(red, green, blue) > 220)
