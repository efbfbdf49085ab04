"""Added tokens in text: those that are not special as the `tokenizers` library reads them, for
every kind of model and every flag.
"""

import itertools
import json
import random
import re

import pytest
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError

SPACE = "\u2581"
SPECIAL = ("<s>", "</s>", "<|im_end|>", "[SEP]")
NAMES = (
    "<think>",
    "</think>",
    "the cat",
    "  ",
    "    ",
    "\t",
    "Ünk",
    "ab",
    "cat",
    "\n\n",
    "##s",
    "<|x|>",
    "é",
    "東",
    f"{SPACE}a",
    "a b",
)
FLAGS = ("lstrip", "rstrip", "single_word", "normalized")
WORDS = (
    "the",
    "cat",
    "cats",
    "Cats",
    "a",
    "ab",
    "aB",
    "Ünk",
    "ünk",
    "東京",
    "é",
    "e\u0301",
    "😀",
    "12",
    ".",
    ",",
    "x",
    "",
    "[",
    "<",
    "|",
    "##s",
)
CHARS = sorted({c for word in (*WORDS, *NAMES, *SPECIAL, "ïöß_") for c in word} | {SPACE})
LEXICON = dict.fromkeys(["<unk>", *WORDS, *NAMES])
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_bpe(**options):
    merges = [
        ("t", "h"),
        ("th", "e"),
        ("c", "a"),
        ("ca", "t"),
        ("\u0120", "a"),
        ("\u0120", "the"),
        ("\u0120", "\u0120"),
        ("a", "b"),
    ]
    vocab = dict.fromkeys([*BYTES, *("".join(pair) for pair in merges)])
    return models.BPE({piece: i for i, piece in enumerate(vocab)}, merges, **options)


def bpe(fallback, **options):
    merges = [
        ("t", "h"),
        ("th", "e"),
        ("c", "a"),
        ("ca", "t"),
        (SPACE, "the"),
        (SPACE, "a"),
        (SPACE, SPACE),
        ("a", "b"),
    ]
    chars = [c for c in CHARS if not fallback or c.isascii() or c == SPACE]
    pieces = [
        "<unk>",
        *(f"<0x{b:02X}>" for b in range(256 if fallback else 0)),
        *chars,
        *map("".join, merges),
    ]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    return models.BPE(
        vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=fallback, **options
    )


def unigram(fallback=False):
    pieces = [
        ("<unk>", 0.0),
        *((c, -9.0) for c in CHARS),
        ("the", -2.0),
        (f"{SPACE}the", -2.5),
        ("cat", -3.0),
        (f"{SPACE}cat", -3.1),
        ("ab", -4.0),
    ]
    pieces += [(f"<0x{b:02X}>", -20.0) for b in range(256 if fallback else 0)]
    return models.Unigram(pieces, 0, fallback)


def word_piece():
    pieces = ["[UNK]", *CHARS, *(f"##{c}" for c in CHARS), "the", "cat", "##s", "##at"]
    return models.WordPiece(
        {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, unk_token="[UNK]"
    )


def made(model, normalizer=None, pre_tokenizer=None):
    raw = tokenizers.Tokenizer(model)
    if normalizer is not None:
        raw.normalizer = (
            normalizers.Sequence(normalizer) if isinstance(normalizer, list) else normalizer
        )
    if pre_tokenizer is not None:
        raw.pre_tokenizer = (
            pre_tokenizers.Sequence(pre_tokenizer)
            if isinstance(pre_tokenizer, list)
            else pre_tokenizer
        )
    raw.decoder = decoders.Fuse()
    return raw


LEVEL = lambda **options: pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **options})
META = lambda scheme, split=True: pre_tokenizers.Metaspace(SPACE, scheme, split)
LLAMA = lambda: [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
PIECES = Regex(
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BERT = lambda lower, chinese=True: normalizers.BertNormalizer(
    lowercase=lower, handle_chinese_chars=chinese
)
KINDS = {
    "gpt2": lambda: made(byte_bpe(), None, LEVEL()),
    "gpt2_space": lambda: made(byte_bpe(), None, LEVEL(add_prefix_space=True)),
    "llama3": lambda: made(
        byte_bpe(ignore_merges=True),
        None,
        [pre_tokenizers.Split(PIECES, "isolated"), LEVEL(use_regex=False)],
    ),
    "qwen": lambda: made(
        byte_bpe(),
        normalizers.NFC(),
        [pre_tokenizers.Split(PIECES, "isolated"), LEVEL(use_regex=False)],
    ),
    "byte_lower": lambda: made(byte_bpe(), [normalizers.NFD(), normalizers.Lowercase()], LEVEL()),
    "byte_digits": lambda: made(byte_bpe(), None, [pre_tokenizers.Digits(True), LEVEL()]),
    "byte_whole": lambda: made(byte_bpe(), None, LEVEL(use_regex=False)),
    "clip": lambda: made(
        models.BPE(
            {
                **{c: i for i, c in enumerate(CHARS)},
                **{f"{c}</w>": len(CHARS) + i for i, c in enumerate(CHARS)},
            },
            [],
            end_of_word_suffix="</w>",
        ),
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()],
        pre_tokenizers.WhitespaceSplit(),
    ),
    "bert_cased": lambda: made(word_piece(), BERT(False), pre_tokenizers.BertPreTokenizer()),
    "bert_uncased": lambda: made(word_piece(), BERT(True), pre_tokenizers.BertPreTokenizer()),
    "bert_no_chinese": lambda: made(
        word_piece(), BERT(True, False), pre_tokenizers.BertPreTokenizer()
    ),
    "accents": lambda: made(
        word_piece(),
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Strip()],
        pre_tokenizers.Whitespace(),
    ),
    "unigram": lambda: made(unigram(), normalizers.NFKC(), META("always")),
    "unigram_first": lambda: made(
        unigram(True), None, [pre_tokenizers.WhitespaceSplit(), META("first")]
    ),
    "unigram_never": lambda: made(
        unigram(), normalizers.Replace(Regex(" {2,}"), " "), META("never")
    ),
    "llama_legacy": lambda: made(bpe(True), LLAMA()),
    "llama_chars": lambda: made(bpe(False), LLAMA()),
    "llama_first": lambda: made(bpe(True), None, META("first", False)),
    "gemma": lambda: made(
        bpe(True),
        normalizers.Replace(" ", SPACE),
        pre_tokenizers.Split(" ", "merged_with_previous"),
    ),
    "words": lambda: made(
        models.WordLevel(
            {w: i for i, w in enumerate(dict.fromkeys(["<unk>", *WORDS, *NAMES]))}, "<unk>"
        ),
        None,
        pre_tokenizers.Whitespace(),
    ),
}
PREFIXES = {
    "gpt2_space": "always",
    "unigram": "always",
    "unigram_first": "first",
    "llama_legacy": "always",
    "llama_chars": "always",
}
PREFIXES |= {"llama_first": "first"}


def tokenizer_of(kind, seed, strips=True):
    """The library's tokenizer and ours, with tokens of every combination of flags; without `strips`
    of those that take no white space.
    """
    raw, rng = KINDS[kind](), random.Random(seed)
    raw.add_special_tokens([AddedToken(text, normalized=False) for text in SPECIAL])
    flags = list(itertools.product((False, True), repeat=len(FLAGS)))
    rng.shuffle(flags)
    flags = [(strips and left, strips and right, *others) for left, right, *others in flags]
    forms = set()
    for text, each in zip(NAMES[: None if seed else 8], flags, strict=False):
        form = raw.normalizer.normalize_str(text) if raw.normalizer is not None else text
        if form and form not in forms:  # the library searches for each form once
            forms.add(form)
            raw.add_tokens([AddedToken(text, special=False, **dict(zip(FLAGS, each, strict=True)))])
    return raw, Tokenizer(json.loads(raw.to_str()), {})


def texts(rng, count, more=()):
    """Random texts of words, runs of white space and added tokens."""
    spaces, parts = (
        ("", " ", " ", "  ", "   ", "\n", "\t", "\n\n\n"),
        (
            *WORDS,
            *NAMES,
            *NAMES,
            *more,
        ),
    )
    return [
        "".join(rng.choice(spaces) + rng.choice(parts) for _ in range(rng.randrange(9)))
        + rng.choice(spaces)
        for _ in range(count)
    ]


def read(raw, text):
    """What the library reads, or None: it panics where tokens that take white space beside them
    overlap.
    """
    try:
        return raw.encode(text, add_special_tokens=False)
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise


@pytest.mark.parametrize("kind", KINDS)
def test_ids_of_any_text_are_those_of_the_library(kind):
    for seed in (0, 1, 2):
        raw, ours = tokenizer_of(kind, seed)
        assert ours.prefix == PREFIXES.get(kind, "none")
        for text in texts(random.Random(seed), 120):
            if (expected := read(raw, text)) is None:
                with pytest.raises(ConfigError, match="fails on a text"):
                    ours.encode(text)
                continue
            assert (text, ours.encode(text)) == (text, expected.ids)
            assert ours.offsets(text) == expected.offsets
        many = [text for text in texts(random.Random(seed + 9), 20) if read(raw, text)]
        assert (
            ours.encode_batch(many)
            == list(ours.encode_stream(many))
            == [ours.encode(text) for text in many]
        )


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_spelled_out_beside_those_that_are_read(kind):
    """As the library spells them where it is told to, which no text of the data can tell it."""
    raw, ours = tokenizer_of(kind, 1)
    raw.encode_special_tokens = True
    never = {ours.special_id(text) for text in SPECIAL}
    for text in texts(random.Random(5), 120, SPECIAL * 3):
        if expected := read(raw, text):
            assert never.isdisjoint(found := ours.encode(text))
            assert (text, found) == (text, expected.ids)


@pytest.mark.parametrize(
    "kind", ["gpt2_space", "unigram", "llama_legacy", "llama_chars", "llama_first", "unigram_first"]
)
def test_text_that_goes_on_is_read_as_behind_a_word(kind):
    """What the library makes of a text behind a comma; a prefix stands behind an added token there
    too.
    """
    raw, ours = tokenizer_of(kind, 2, strips=False)
    start = raw.encode(",", add_special_tokens=False).ids
    compared = 0
    for text in map(str.lstrip, texts(random.Random(7), 150)):
        whole = read(raw, f",{text}")
        if (
            whole
            and whole.ids[: len(start)] == start
            and whole.offsets[len(start) :][:1] != [(0, 1)]
        ):
            assert (text, ours.encode(text, inside=True)) == (text, whole.ids[len(start) :])
            assert [a for a, _ in ours.offsets(text, inside=True)] == [
                max(a - 1, 0) for a, _ in whole.offsets[len(start) :]
            ]
            compared += 1
    assert compared > 50


def test_saved_and_loaded_they_are_the_same(tmp_path):
    _, ours = tokenizer_of("llama_legacy", 1)
    ours.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.digest == ours.digest and again.added == ours.added
    for text in texts(random.Random(1), 30, SPECIAL):
        assert again.encode(text) == ours.encode(text) and again.encode(text, True) == ours.encode(
            text, True
        )


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_bytes_that_are_flagged_special_are_what_unknown_characters_fall_back_to(kind, tmp_path):
    """A special token is spelled out in text, but a byte is what the model makes of a character;
    these were unknown tokens once.
    """
    raw = tokenizers.Tokenizer(bpe(True) if kind == "bpe" else unigram(True))
    raw.add_special_tokens([f"<0x{byte:02X}>" for byte in range(256)])
    raw.save(str(tmp_path / "tokenizer.json"))
    expected = raw.encode("語a", add_special_tokens=False).ids
    assert len(expected) == 4
    assert Tokenizer.load(tmp_path).encode("語a") == expected


@pytest.mark.parametrize(
    "normalizer, pair",
    [
        (normalizers.BertNormalizer(), ("é", "É")),
        (normalizers.Lowercase(), ("<Think>", "<think>")),
        (normalizers.NFKC(), ("\u00a0\u00a0", "  ")),
    ],
)
def test_tokens_that_are_alike_once_normalized_are_refused(normalizer, pair, tmp_path):
    """The library takes one or the other by chance, each time that it reads the file."""
    raw = tokenizers.Tokenizer(word_piece())
    raw.normalizer, raw.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    raw.add_tokens([AddedToken(text, normalized=True, special=False) for text in pair])
    raw.save(str(tmp_path / "tokenizer.json"))
    alike = f"added tokens {pair[0]!r} and {pair[1]!r}: normalized, both are"
    with pytest.raises(ConfigError, match=re.escape(alike)):
        Tokenizer.load(tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    document["added_tokens"][1]["normalized"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    assert Tokenizer.load(tmp_path).encode(pair[1]) == [raw.token_to_id(pair[1])]
