"""Stop strings, and what of a growing text can be shown."""

import numpy as np
import pytest

from jaxsft.data.tokenizers import learn
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.generation.stops import completing, ended, find, shown

TEXT = "grüße, 世界! 👩‍👩‍👧 Ende: aab aac"


def test_the_first_stop_string():
    assert (
        find("a stop b end", ["end", "stop"]) == 2
        and find("abc", ["x"]) is None
        and find("", []) is None
    )


def test_pieces_of_characters_are_never_shown():
    """One token a byte: what is shown grows, is a prefix of the text, and at the end nothing but
    the last character can be missing.
    """
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
        assert not any(
            shown(part, stops).endswith(stop[:k]) for stop in stops for k in range(1, len(stop))
        )
    assert shown("x aa", stops) == "x " and shown("x ab", stops) == "x ab"


def test_an_answer_ends_at_the_token_that_completes_the_string():
    """However many tokens came between two looks."""
    tokenizer = Tokenizer.train(["the red cat and the blue dog"] * 3, 320)
    ids = tokenizer.encode("the red cat and the blue dog")
    for old in range(len(ids)):
        for stop in ("cat a", "d", "dog"):
            whole = tokenizer.decode(ids)
            kept, text = ended(ids, old, tokenizer.decode, [stop])
            first = next(
                n for n in range(old + 1, len(ids) + 1) if stop in tokenizer.decode(ids[:n])
            )
            assert (kept, text) == (ids[:first], whole[: whole.index(stop)])
    assert ended(ids, 0, tokenizer.decode, ["bird"]) is None


LEARNT = {
    "bytes": Tokenizer.bytes(),
    "bpe": Tokenizer.train(["the red cat and the blue dog", TEXT] * 3, 330).with_added(["<a b>"]),
}


@pytest.mark.parametrize("name", LEARNT)
def test_no_other_token_completes_a_stop_string(name):
    """Of texts of any ids, whole characters or not, special tokens told or not."""
    tokenizer, stops, rng = (
        LEARNT[name],
        ["d", "he", "世", " the", "t and", "<|end|>", "a b>"],
        np.random.default_rng(0),
    )
    pieces, completed = tokenizer.pieces(), 0
    wanted = tokenizer.encode("the red cat and 世 the blue dog")
    for read in (tokenizer.decode, lambda ids: tokenizer.continued(ids, skip_special=False)):
        for stop in stops:
            last = completing(pieces, [stop], tokenizer.vocab_size + 3)
            assert 0 < last.sum() < 0.4 * len(last) and not last[-3:].any()
            for _ in range(15):
                ids = np.where(
                    rng.random(len(wanted)) < 0.2,
                    rng.integers(0, tokenizer.vocab_size, len(wanted)),
                    wanted,
                )
                n = next(
                    (n for n in range(1, len(ids) + 1) if find(read(ids[:n]), [stop]) is not None),
                    None,
                )
                assert n is None or last[ids[n - 1]]
                completed += n is not None
    assert completed > 30 and [
        b"".join(pieces[i] for i in tokenizer.encode(t)).decode() for t in (TEXT, "a  b")
    ] == [TEXT, "a  b"]


def test_what_is_not_made_of_bytes_is_always_read():
    assert learn.characters([TEXT]).pieces() is None and completing(None, ["a"], 5).all()
    assert completing([b"a", b"b"], ["a", "\N{REPLACEMENT CHARACTER}"], 3).all()
