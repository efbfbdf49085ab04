"""Stop strings, and what of a growing text can be shown."""

from jaxsft.data.tokenizer import Tokenizer
from jaxsft.models.stops import ended, find, shown

TEXT = "grüße, 世界! 👩‍👩‍👧 Ende: aab aac"


def test_the_first_stop_string():
    assert find("a stop b end", ["end", "stop"]) == 2 and find("abc", ["x"]) is None and find("", []) is None


def test_pieces_of_characters_are_never_shown():
    """One token a byte: what is shown grows, is a prefix of the text, and at the end nothing but the last character can be missing."""
    tokenizer = Tokenizer.bytes()
    ids, told = tokenizer.encode(TEXT), ""
    for n in range(len(ids) + 1):
        now = shown(tokenizer.decode(ids[:n]), [])
        assert now.startswith(told) and TEXT.startswith(now)
        told = now
    assert told == TEXT


def test_what_may_become_a_stop_string_is_held_back():
    tokenizer, stops = Tokenizer.bytes(), ["aac", "世界?"]
    ids = tokenizer.encode(TEXT)
    for n in range(len(ids)):
        part = tokenizer.decode(ids[:n])
        assert find(shown(part, stops), stops) is None
        assert not any(shown(part, stops).endswith(stop[:k]) for stop in stops for k in range(1, len(stop)))
    assert shown("x aa", stops) == "x " and shown("x ab", stops) == "x ab"


def test_an_answer_ends_at_the_token_that_completes_the_string():
    """However many tokens came between two looks."""
    tokenizer = Tokenizer.train(["the red cat and the blue dog"] * 3, 320)
    ids = tokenizer.encode("the red cat and the blue dog")
    for old in range(len(ids)):
        for stop in ("cat a", "d", "dog"):
            whole = tokenizer.decode(ids)
            kept, text = ended(ids, old, tokenizer.decode, [stop])
            first = next(n for n in range(old + 1, len(ids) + 1) if stop in tokenizer.decode(ids[:n]))
            assert (kept, text) == (ids[:first], whole[: whole.index(stop)])
    assert ended(ids, 0, tokenizer.decode, ["bird"]) is None
