"""The needle: where it stands, how long the prompt is, what counts as found."""

import re

import pytest

from jaxsft.errors import ConfigError
from jaxsft.evaluation import needle
from jaxsft.evaluation.needle import NeedleOptions

FILLER = "One two three. Four five six. Seven eight nine. Ten eleven twelve. "
WORDS = lambda text: text.split()  # a token is a word


def measured(answer, **options):
    options = NeedleOptions(**{"lengths": [60], "depths": [0.0, 0.5, 1.0], "trials": 8, **options})
    return needle.measure(options, FILLER, WORDS, answer, 0, 0.95, lambda what: None)


def test_lengths_depths_and_scores():
    """A reader that sees the last half of the prompt only finds the needles that stand there."""
    seen = []

    def half(prompts):
        seen.extend(prompts)
        found = [re.search(r"is (\d{5})\.", " ".join(p[len(p) // 2 - 10 :])) for p in prompts]
        return [f"It is {m[1]}." if m else "no" for m in found]

    cells = measured(half)["cells"]
    assert all(len(prompt) == 60 for prompt in seen)
    assert [cell["contained"]["value"] for cell in cells] == [0, 1, 1]
    assert all(cell["exact"]["value"] == 0 for cell in cells)
    assert [round(cell["reached"], 1) for cell in cells] == [0, 0.5, 1]
    assert 0.6 < cells[1]["contained"]["low"] < 1 == cells[1]["contained"]["high"]


def test_needles_are_the_same_in_every_cell_and_stand_between_sentences():
    seen = []
    measured(lambda prompts: [seen.append(" ".join(p)) or "" for p in prompts])
    values = [re.search(r"is (\d{5})\.", text)[1] for text in seen]
    assert values[:8] == values[8:16] == values[16:] and len(set(values)) == 8
    for text in seen[8:16]:
        assert re.search(r"(One|Four|Seven|Ten) \w+ \w+\. The secret number", text)
        assert "Answer with the number." in text[-40:]
    again = []
    measured(lambda prompts: [again.append(" ".join(p)) or "" for p in prompts])
    assert again == seen


def test_a_text_without_spaces_is_cut_too():
    pieces = needle.pieces_of("一" * 30 + "。" + "二" * 30)
    assert "".join(pieces) == "一" * 30 + "。" + "二" * 30 and max(map(len, pieces)) <= 12


@pytest.mark.parametrize(
    ("answer", "exact", "contained"),
    [
        ("12345", True, True),
        (" 12345. ", True, True),
        ("It is 12345", False, True),
        ("123456", False, False),
        ("", False, False),
    ],
)
def test_what_is_found(answer, exact, contained):
    assert needle.is_exact(answer, "12345") == exact
    assert needle.is_contained(answer, "12345") == contained


def test_lengths_that_do_not_fit():
    with pytest.raises(ConfigError, match=r"lengths=\[512\]: 512 tokens and an answer of up to 8"):
        needle.check_room(NeedleOptions(lengths=[64, 512]), 512, 8)
    needle.check_room(NeedleOptions(lengths=[504]), 512, 8)
    with pytest.raises(ConfigError, match="the needle and the question alone have"):
        measured(lambda prompts: [""], lengths=[5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": [0]}, "above 0"),
        ({"depths": [1.5]}, "shares from 0 to 1"),
        ({"needle": "of {key}"}, r"has no \{value\}"),
        ({"question": "what?"}, r"has no \{key\}"),
        ({"keys": []}, "name one"),
    ],
)
def test_options_that_make_no_needle(options, message):
    with pytest.raises(ConfigError, match=message):
        NeedleOptions(**options).check()
