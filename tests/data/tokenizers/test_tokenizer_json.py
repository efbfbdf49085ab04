"""Files of a tokenizer with values of any type: a sentence, or a tokenizer that works."""

import copy
import json
import random

import pytest

from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from tests.data.tokenizers.test_added import tokenizer_of

WRONG = (
    None,
    True,
    -1,
    0,
    7,
    2**31,
    2**40,
    1e300,
    "",
    "x",
    "Sequence",
    [],
    ["a"],
    [[]],
    {},
    {"a": 1},
    {"type": "Sequence"},
    {"content": 1},
    [None],
    "\0",
)


def places(value, path=()):
    """The path to everything in nested data."""
    yield path
    parts = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, part in list(parts)[:12]:
        yield from places(part, (*path, key))


def damaged(rng, document):
    """The same data with one or two values changed or taken away."""
    out = copy.deepcopy(document)
    for _ in range(rng.randint(1, 2)):
        *way, last = rng.choice([path for path in places(out) if path])
        inner = out
        for key in way:
            inner = inner[key]
        if rng.random() < 0.2:
            del inner[last]
        else:
            inner[last] = copy.deepcopy(rng.choice(WRONG))
    return out


CONFIG = {
    "bos_token": "<s>",
    "eos_token": {"content": "</s>", "lstrip": True},
    "additional_special_tokens": ["<|im_end|>"],
    "added_tokens_decoder": {},
    "add_prefix_space": True,
    "tokenizer_class": "LlamaTokenizer",
    "extends": {"digest": "x", "rows": 3},
    "segment": None,
    "chat_template": "{{ messages }}",
}


@pytest.mark.parametrize("kind", ["gpt2", "bert_uncased", "unigram", "llama_legacy", "words"])
def test_damaged_files_are_a_sentence_or_a_tokenizer(kind, tmp_path):
    raw, _ = tokenizer_of(kind, 0)
    document, rng, failed = json.loads(raw.to_str()), random.Random(kind), 0
    for turn in range(120):
        (tmp_path / "tokenizer.json").write_text(
            json.dumps(damaged(rng, document) if turn % 3 else document)
        )
        (tmp_path / "tokenizer_config.json").write_text(
            json.dumps(CONFIG if turn % 3 else damaged(rng, CONFIG))
        )
        try:
            tokenizer = Tokenizer.load(tmp_path)
            tokenizer.encode("the cat <s> \u0301 東")
            tokenizer.wrap([1], [2])
        except ConfigError as error:
            failed += 1
            assert "\n" not in str(error) and len(str(error)) < 900
    assert failed > 20


@pytest.mark.parametrize(
    "file, content, message",
    [
        (
            "tokenizer.json",
            {"model": {"type": "BPE", "vocab": {"a": 2147483648}, "merges": []}},
            r"tokenizer.json: model.vocab\['a'\] is 2147483648",
        ),
        (
            "tokenizer.json",
            {"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}},
            r"model.vocab\['b'\] is 0, expected another id",
        ),
        (
            "tokenizer.json",
            {"model": {"type": "BPE", "vocab": {"a": 9999999}, "merges": []}},
            r"model.vocab is 9999999, expected ids up to",
        ),
        ("tokenizer.json", {"model": []}, r"model is \[\], expected an object"),
        (
            "tokenizer.json",
            {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.1}},
            r"model.dropout is 0.1, expected null or 0, for ids that are the same every time",
        ),
        (
            "tokenizer.json",
            {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [1]}},
            r"model.merges\[0\] is 1, expected two pieces",
        ),
        (
            "tokenizer.json",
            {"model": {"vocab": {"a": 0}}, "added_tokens": [{"content": "x"}]},
            r"added_tokens\[0\].id is None",
        ),
        (
            "tokenizer.json",
            {"model": {"vocab": {"a": 0}}, "normalizer": "x"},
            r"normalizer is 'x', expected an object with a type",
        ),
        (
            "tokenizer_config.json",
            {"extends": "x"},
            r"tokenizer_config.json: extends is 'x', expected an object",
        ),
        (
            "tokenizer_config.json",
            {"bos_token": 3},
            r"tokenizer_config.json: bos_token is 3, expected a token",
        ),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": ["x"]},
            r"added_tokens_decoder is \['x'\], expected tokens by their ids",
        ),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"2147483648": {"content": "x"}}},
            r"expected a number from 0",
        ),
        (
            "tokenizer_config.json",
            {"do_lower_case": "yes"},
            r"do_lower_case is 'yes', expected true or false",
        ),
        (
            "special_tokens_map.json",
            {"mask_token": ["x"]},
            r"special_tokens_map.json: mask_token is \['x'\]",
        ),
        (
            "special_tokens_map.json",
            [],
            r"special_tokens_map.json: found a list, expected an object",
        ),
    ],
)
def test_what_is_wrong_is_named(file, content, message, tmp_path):
    Tokenizer.bytes().save(tmp_path)
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=message):
        Tokenizer.load(tmp_path)


def test_tokens_of_an_old_file_of_their_own(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[UNK]", "[CLS]", "[SEP]", "cat"]) + "\n")
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<x>": 4, "<y>": 5}))
    (tmp_path / "special_tokens_map.json").write_text(
        json.dumps({"additional_special_tokens": ["<y>"]})
    )
    tokenizer = Tokenizer.load(tmp_path)
    assert (
        tokenizer.encode("cat<x>") == [3, 4]
        and tokenizer.special_id("<y>") == 5
        and 5 not in tokenizer.encode("<y>")
    )
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<x>": "4"}))
    with pytest.raises(ConfigError, match=r"added_tokens.json: '<x>' is '4', expected the id"):
        Tokenizer.load(tmp_path)


def template(*parts, pair=("A", "B")):
    """A post processor; `A` and `B` are the texts, others are special tokens."""
    half = lambda names: [
        {"Sequence" if name in ("A", "B") else "SpecialToken": {"id": name, "type_id": 0}}
        for name in names
    ]
    special = {
        name: {"id": name, "ids": [i], "tokens": [name]} for i, name in enumerate(["x", "y"])
    }
    return {
        "type": "TemplateProcessing",
        "single": half(parts),
        "pair": half(pair),
        "special_tokens": special,
    }


def test_what_a_template_puts_before_a_text_stays_where_nothing_closes_it(tmp_path):
    """Without bos in the config too; it was lost once."""
    document = {
        "model": {"type": "WordLevel", "vocab": {"x": 0, "y": 1, "a": 2}, "unk_token": "a"},
        "added_tokens": [],
    }
    write = lambda **more: (tmp_path / "tokenizer.json").write_text(json.dumps(document | more))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "y"}))
    write(post_processor=template("x", "A"))
    assert Tokenizer.load(tmp_path).wrap([2]).ids == [0, 2, 1]
    for parts, pair in ((("x",), ("A", "B")), (("A", "A"), ("A", "B")), (("A",), ())):
        write(post_processor=template(*parts, pair=pair))
        with pytest.raises(ConfigError, match="the post processor of the tokenizer is not as"):
            Tokenizer.load(tmp_path)
