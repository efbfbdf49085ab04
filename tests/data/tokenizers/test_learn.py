import re

import pytest

from jaxsft.data.tokenizers import learn as train
from jaxsft.data.tokenizers.tokenizer import LONGEST_WORD, SPECIAL, Tokenizer, in_pieces
from jaxsft.errors import ConfigError, DataError

TEXTS = [
    "The cat sat on the mat.",
    "the dog sat on the log!",
    "Ein Hund, zwei Hunde <|end|>",
    "a\nb\tc",
] * 3
ZH = ["今天天气很好,我们去公园散步。", "我们今天去北京大学"] * 2


def test_characters():
    found = train.characters(TEXTS, min_count=3)
    assert found.decode(found.encode(TEXTS[0])) == TEXTS[0] and len(found.encode("a\nb\tc")) == 5
    assert found.encode("xX") == [found.unk_id] * 2 and found.unk_id == len(SPECIAL)
    # guards C11
    assert not {found.special_id(token) for token in SPECIAL} & set(found.encode("<|end|>"))
    low = train.characters(TEXTS, lowercase=True)
    assert (
        low.encode("THE") == low.encode("the")
        and low.vocab_size < train.characters(TEXTS).vocab_size
    )
    rare = train.characters(["aab"], min_count=2)
    assert rare.encode("ab") == [rare.unk_id + 1, rare.unk_id]


def test_words(tmp_path):
    found = train.words(TEXTS, min_count=3)
    assert found.decode(found.encode("The DOG  sat!")) == "the dog sat !"
    assert found.encode("unseen dog")[0] == found.unk_id and found.offsets("The dog") == [
        (0, 3),
        (4, 7),
    ]
    first = train.words(TEXTS, vocab_size=len(SPECIAL) + 1 + 2)
    # the most frequent, then by code point
    assert [first.decode([i]) for i in (len(SPECIAL) + 1, len(SPECIAL) + 2)] == ["the", "on"]
    assert first.vocab_size == len(SPECIAL) + 3 and train.words(TEXTS, lowercase=False).encode(
        "The"
    ) != found.encode("The")
    with pytest.raises(DataError, match="no word of the training split occurs 99 times"):
        train.words(TEXTS, min_count=99)
    with pytest.raises(ConfigError, match=r"tokenizer.vocab_size=8 is too small"):
        train.words(TEXTS, vocab_size=8)


def test_words_of_chinese(tmp_path):
    pytest.importorskip("jieba")
    found = train.words(ZH, min_count=1, segment="jieba")
    text = "今天去公园"
    assert found.decode(found.encode(text)) == text and [
        text[a:b] for a, b in found.offsets(text)
    ] == ["今天", "去", "公园"]
    assert [" 今天 x"[a:b] for a, b in found.offsets(" 今天 x")] == ["今天", "x"]
    found.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.digest == found.digest and again.encode_batch(ZH) == found.encode_batch(ZH) == [
        found.encode(text) for text in ZH
    ]


@pytest.mark.parametrize("lowercase", [True, False])
def test_wordpiece(lowercase):
    found = train.wordpiece(TEXTS, 80, lowercase)
    assert found.digest == train.wordpiece(iter(TEXTS), 80, lowercase).digest
    assert (found.pad_id, found.unk_id, found.mask_id, found.bos_id) == (
        0,
        1,
        4,
        None,
    ) and found.vocab_size <= 80
    assert (
        found.decode(found.encode("the cat hunde")) == "the cat hunde"
        and (found.encode("The") == found.encode("the")) == lowercase
    )
    assert 4 not in found.encode("[MASK]") and found.wrap([9]).ids == [2, 9, 3]
    with pytest.raises(
        ConfigError, match=r"tokenizer.vocab_size=10 is too small; expected at least"
    ):
        train.wordpiece(TEXTS, 10)


def test_unigram():
    pytest.importorskip("sentencepiece")
    found = train.unigram(TEXTS, 60)
    assert found.digest == train.unigram(iter(TEXTS), 60).digest
    assert (found.pad_id, found.bos_id, found.eos_id, found.unk_id) == (
        0,
        1,
        2,
        3,
    ) and found.vocab_size <= 60
    assert found.decode(found.encode(TEXTS[0])) == TEXTS[0] and found.encode("§")[-1] == 3
    # guards C11
    assert not {found.special_id(token) for token in SPECIAL} & set(found.encode("<|end|>"))
    low = train.unigram(TEXTS, 60, lowercase=True)
    assert low.encode("THE") == low.encode("the")
    with pytest.raises(
        ConfigError, match=r"tokenizer.vocab_size=12: sentencepiece learns no such vocabulary"
    ):
        train.unigram(TEXTS, 12)


def test_added_tokens_have_the_ids_after_all_others(tmp_path):  # guards G4
    base = Tokenizer.train(TEXTS, 300)
    found = base.with_added(["<|mask|>", "<x>"])
    assert [found.special_id(t) for t in ("<|mask|>", "<x>")] == [
        base.vocab_size,
        base.vocab_size + 1,
    ] and found.vocab_size == base.vocab_size + 2
    assert (
        found.encode("a <x> b") == base.encode("a <x> b")
        and found.decode([base.vocab_size], skip_special=False) == "<|mask|>"
    )
    assert (
        found.extends == {"digest": base.digest, "rows": base.vocab_size}
        and base.extends is None
        and found.digest != base.digest
    )
    found.save(tmp_path)
    assert (
        Tokenizer.load(tmp_path).extends == found.extends
        and Tokenizer.load(tmp_path).digest == found.digest
    )
    for bad, part in (
        (["<|end|>"], "in the vocabulary"),
        (["<y>", "<y>"], "named twice"),
        ([""], "is empty"),
    ):
        with pytest.raises(ConfigError, match=part):
            base.with_added(bad)


@pytest.mark.parametrize(
    "text", ["", "a b", "x" * 9999 + " y", " " * 9000, "a" + "\n" * 5000 + "b"]
)
def test_a_long_word_is_learnt_from_in_pieces(text):
    """The time would grow with the square of its length."""
    pieces = list(in_pieces([text]))
    assert "".join(pieces) == text
    runs = [run for piece in pieces for run in re.findall(r"\S+|\s+", piece)]
    assert max(map(len, runs), default=0) <= LONGEST_WORD


def test_texts_of_long_words_take_time_in_proportion():
    found = Tokenizer.train(["a b c", "xy" * 300_000], 300)  # minutes, if it were one word
    assert found.decode(found.encode("xyxy")) == "xyxy"
