"""Words as ids: each as it stands in its text, none lost, and its ids between its offsets."""

import itertools
import json

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from jaxsft.config.schema import Columns
from jaxsft.data.formats import Row
from jaxsft.data.records import joined, tag_record
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.data.word_tokens import encode_words, frame, spelled_with_space
from jaxsft.errors import DataError
from tests.realdata import real


def pieces(tokenizer, words, glued=()):
    ids, offsets = encode_words(tokenizer, [words], [glued], ["f:1"])[0]
    return (
        [ids[a:b].tolist() for a, b in itertools.pairwise(offsets)],
        ids.tolist(),
        offsets.tolist(),
    )


@given(
    st.lists(
        st.text("abcé漢 \u200b😀", min_size=1, max_size=5).filter(str.strip), min_size=1, max_size=6
    ),
    st.sets(st.integers(1, 5)),
)
def test_byte_level_words_spell_their_text(words, glued):
    tokenizer = Tokenizer.bytes()
    found, ids, _ = pieces(tokenizer, words, glued)
    begin, end = frame(tokenizer)
    text = "".join(w if i == 0 or i in glued else f" {w}" for i, w in enumerate(words))
    assert ids == [*begin, *(i for word in found for i in word), *end] and all(found)
    assert tokenizer.decode(i for word in found for i in word) == text


def test_a_learnt_byte_level_tokenizer_gets_its_leading_space():
    tokenizer = Tokenizer.train(["the cat, the cat"] * 50, 300)
    assert spelled_with_space(tokenizer)
    found, _, _ = pieces(tokenizer, ["the", "cat", ",", "the", "cat"], glued=(2,))
    assert [tokenizer.decode(word) for word in found] == ["the", " cat", ",", " the", " cat"]
    assert list(itertools.chain(*found)) == tokenizer.encode("the cat, the cat")


def word_pieces():
    """BERT's tokenizer, from its vocabulary."""
    raw = tokenizers.BertWordPieceTokenizer(
        str(real("tok_bert/bert-base-cased.vocab.txt")), lowercase=False
    )
    return json.loads(raw.to_str()), {
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
        "pad_token": "[PAD]",
    }


def gpt2():
    folder = real("tok_gpt2/merges.txt").parent
    raw = tokenizers.ByteLevelBPETokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), add_prefix_space=False
    )
    return json.loads(raw.to_str()), {}


def marked(normalizes):
    """Sub-words that mark the beginning of a word by themselves: by their pre-tokenizer, or as
    Llama does, by a normalizer.
    """
    raw = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    if normalizes:
        raw.normalizer = tokenizers.normalizers.Sequence(
            [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
        )
    else:
        raw.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=80, special_tokens=["<unk>"], show_progress=False
    )
    raw.train_from_iterator(
        (
            ["the quick brown fox a b"] * 9
            if not normalizes
            else ["the", "quick", "brown", "fox", "a", "b"] * 9
        ),
        trainer,
    )
    return json.loads(raw.to_str()), {"unk_token": "<unk>"}


def test_word_pieces_frame_and_unknown():
    """cls and sep frame the text; what the tokenizer deletes is its unknown token, not a hole."""
    tokenizer = Tokenizer(*word_pieces())
    found, ids, offsets = pieces(tokenizer, ["Unbelievable", "\u200b\u0000", "cats"])
    assert (
        tokenizer.decode(ids[:1], skip_special=False) == "[CLS]"
        and tokenizer.decode(ids[-1:], skip_special=False) == "[SEP]"
    )
    assert len(found[0]) > 1 and found[1] == [tokenizer.role_id("unk_token")] and offsets[0] == 1
    assert found[2] == tokenizer.encode("cats")


@pytest.mark.parametrize("made", [gpt2, word_pieces, lambda: marked(False), lambda: marked(True)])
def test_words_of_other_tokenizers_are_those_of_the_text(made):
    tokenizer = Tokenizer(*made())
    found, _, _ = pieces(tokenizer, ["the", "quick", "brown", "fox"])
    assert list(itertools.chain(*found)) == tokenizer.encode("the quick brown fox")


def test_a_word_that_gives_nothing_is_an_error_where_nothing_stands_for_it():
    document, config = word_pieces()
    with pytest.raises(
        DataError, match=r"f:1: word 2, .*gives no token, and the tokenizer has no unk_token"
    ):
        pieces(Tokenizer(document, {**config, "unk_token": None}), ["a", "\u200b\u0000"])


def test_where_a_text_has_spaces():
    """CoNLL-U says it; ideographs have none; the words of a text with spans are where they are."""
    fields = {
        "form": ["Do", "n't", "go", "."],
        "upos": ["X"] * 4,
        "misc": ["_", "_", "SpaceAfter=No", "_"],
    }
    ranged = fields | {"multiword": [["1-2", "Don't", *["_"] * 7, "_"]]}
    columns = Columns(tags="upos")
    assert joined(tag_record(Row(fields, "f", 1), columns)) == "Do n't go."
    assert joined(tag_record(Row(ranged, "f", 1), columns)) == "Don't go."
    no_space = ranged | {"multiword": [["1-2", "Don't", *["_"] * 7, "SpaceAfter=No"]]}
    assert joined(tag_record(Row(no_space, "f", 1), columns)) == "Don'tgo."
    assert (
        joined(
            tag_record(
                Row({"tokens": ["我", "们", "ok", "go"], "tags": ["O"] * 4}, "f", 1), Columns()
            )
        )
        == "我们ok go"
    )
    spans = tag_record(
        Row({"text": "in New-York, now", "spans": [[3, 11, "city"]]}, "f", 1), Columns()
    )
    assert joined(spans) == "in New-York, now" and spans.tokens == (
        "in",
        "New",
        "-",
        "York",
        ",",
        "now",
    )
