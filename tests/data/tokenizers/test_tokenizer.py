import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.data.tokenizers.tokenizer import SPECIAL, Tokenizer
from jaxsft.errors import ConfigError
from tests.realdata import real

BYTES = Tokenizer.bytes()
TEXTS = ["the cat sat on the mat", "the dog sat on the log", "Ein Hund, zwei Hunde <|end|>"] * 3
any_text = st.text(st.characters(exclude_categories=["Cs"])) | st.lists(
    st.sampled_from([*SPECIAL, " ", "\n", "é", "a"]), max_size=8
).map("".join)


@settings(max_examples=150, deadline=None)
@given(any_text)
def test_bytes_are_exact(text):  # guards C11
    ids = BYTES.encode(text)
    assert ids == list(text.encode())
    assert BYTES.decode(ids) == text


TRAINED = Tokenizer.train(TEXTS, 300)


@settings(max_examples=80, deadline=None)
@given(any_text)
def test_trained_tokenizer_gives_text_back_and_never_a_special_token(text):  # guards C11
    ids = TRAINED.encode(text)
    assert TRAINED.decode(ids) == text
    assert not {TRAINED.special_id(token) for token in SPECIAL} & set(ids)
    assert TRAINED.encode_batch([text, ""]) == [ids, []]


def test_special_tokens():
    assert [BYTES.special_id(token) for token in SPECIAL] == list(range(256, 263))
    assert (BYTES.vocab_size, BYTES.pad_id, BYTES.bos_id, BYTES.eos_id) == (263, 256, 257, 258)
    assert BYTES.decode([257, 104, 258]) == "h"
    assert BYTES.decode([257, 104, 258], skip_special=False) == "<|bos|>h<|end|>"
    with pytest.raises(ConfigError, match="no special token '<s>'"):
        BYTES.special_id("<s>")


def test_training_is_deterministic():
    assert Tokenizer.train(iter(TEXTS), 300).digest == TRAINED.digest
    assert Tokenizer.train(TEXTS, 280).digest != TRAINED.digest
    assert TRAINED.vocab_size <= 300 and len(TRAINED.encode("the cat")) < 7
    low = Tokenizer.train(TEXTS, 300, lowercase=True)
    assert low.encode("THE") == low.encode("the") and TRAINED.encode("THE") != TRAINED.encode("the")
    with pytest.raises(ConfigError, match=r"tokenizer.vocab_size=100"):
        Tokenizer.train(TEXTS, 100)


@pytest.mark.parametrize("tokenizer", [BYTES, TRAINED], ids=["bytes", "bpe"])
def test_save_and_load(tokenizer, tmp_path):  # guards C12
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "chat_template.jinja").write_text("of an older tokenizer")
    tokenizer.save(tmp_path / "t")
    for path in (tmp_path / "t", tmp_path / "t" / "tokenizer.json"):
        again = Tokenizer.load(path)
        assert again.digest == tokenizer.digest
        assert again.encode(TEXTS[2]) == tokenizer.encode(TEXTS[2])
        assert (again.pad_id, again.bos_id, again.eos_id) == (
            tokenizer.pad_id,
            tokenizer.bos_id,
            tokenizer.eos_id,
        )


def variant(folder, config=None, **document):
    """A tokenizer directory with changes."""
    BYTES.save(folder)
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | document))
    (folder / "tokenizer_config.json").write_text(json.dumps(config or {}))
    return folder


def test_roles_as_text_or_object_and_templates_by_name(tmp_path):
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    found = Tokenizer.load(
        variant(
            tmp_path,
            {
                "bos_token": {"content": "<|bos|>"},
                "eos_token": "<|end|>",
                "pad_token": None,
                "chat_template": named,
            },
        )
    )
    # guards C14
    assert (found.bos_id, found.eos_id, found.pad_id, found.chat_template) == (257, 258, 0, "D")
    assert found.role_strings() == {"bos_token": "<|bos|>", "eos_token": "<|end|>"}
    (tmp_path / "chat_template.jinja").write_text("J")
    assert Tokenizer.load(tmp_path).chat_template == "J"
    assert Tokenizer.load(tmp_path).digest != found.digest
    Tokenizer.load(tmp_path).save(tmp_path)
    assert Tokenizer.load(tmp_path).chat_template == "J"
    several = Tokenizer.load(
        variant(
            tmp_path,
            {"chat_template": [{"name": "a", "template": ""}, {"name": "b", "template": ""}]},
        )
    )
    # one is chosen where one is needed
    assert several.chat_template is None and several.chat_templates.keys() == {"a", "b"}


def test_a_token_that_is_not_flagged_special_is_read_in_text(tmp_path):
    think = {
        "id": 263,
        "content": "<think>",
        "special": False,
        "normalized": False,
        "lstrip": False,
        "rstrip": False,
        "single_word": False,
    }
    added = json.loads(json.dumps([*BYTES.added.values(), think]))
    found = Tokenizer.load(variant(tmp_path, added_tokens=added))
    assert found.encode("a<think><|end|>") == [97, 263, *b"<|end|>"] and found.offsets(
        "a<think>"
    ) == [(0, 1), (1, 8)]
    assert (
        found.special_id("<think>") == 263
        and found.vocab_size == 264
        and "<think>" not in found.special_strings
    )
    assert found.decode([263, 97]) == "<think>a" and "<think>" in found.control_strings
    declared = (
        {"additional_special_tokens": ["<think>"]},
        {"added_tokens_decoder": {"263": think | {"special": True}}},
        {"mask_token": "<think>"},
    )
    for config in declared:
        assert Tokenizer.load(variant(tmp_path, config, added_tokens=added)).encode(
            "<think>"
        ) == list(b"<think>")
    # those of the config have the last word
    flags = {"added_tokens_decoder": {"263": think | {"lstrip": True}}}
    assert Tokenizer.load(variant(tmp_path, flags, added_tokens=added)).encode("a <think>") == [
        97,
        263,
    ]


def test_an_id_that_the_library_gives_otherwise_is_refused(tmp_path):
    added = json.loads(json.dumps([*BYTES.added.values(), {"id": 300, "content": "<x>"}]))
    with pytest.raises(
        ConfigError, match=r"'<x>' has the id 300, but the library reads the file so that it is 263"
    ):
        Tokenizer.load(variant(tmp_path, added_tokens=added))


def test_a_role_that_only_the_vocabulary_knows_is_spelled_out_too(tmp_path):
    model = json.loads((variant(tmp_path) / "tokenizer.json").read_text())["model"]
    model["vocab"] |= {text: token["id"] for text, token in BYTES.added.items()} | {"<s>": 263}
    found = Tokenizer.load(variant(tmp_path, {"bos_token": "<s>"}, model=model))
    assert found.bos_id == 263 and found.encode("<s>") == list(b"<s>")
    with pytest.raises(ConfigError, match="eos_token '</s>' is not in the vocabulary"):
        Tokenizer.load(variant(tmp_path, {"eos_token": "</s>"}))


def test_data_that_the_model_itself_would_spell_as_special_is_refused(tmp_path):
    document = json.loads((variant(tmp_path) / "tokenizer.json").read_text())
    model = document["model"]
    model["vocab"] |= {text: token["id"] for text, token in BYTES.added.items()} | {
        "<s": 263,
        "<s>": 264,
    }
    model["merges"] = [["<", "s"], ["<s", ">"]]
    found = Tokenizer.load(variant(tmp_path, {"bos_token": "<s>"}, model=model))
    assert found.encode("<s") == [263]
    with pytest.raises(ConfigError, match="data could write control tokens"):
        found.encode("a <s> b")


def test_files_that_are_no_tokenizer(tmp_path):
    with pytest.raises(ConfigError, match=r"expected a directory with a tokenizer.json"):
        Tokenizer.load(tmp_path / "none")
    for content, part in (
        ("{", "not a JSON file"),
        ("[]", "found a list"),
        ("{}", "model is None, expected an object"),
    ):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(ConfigError, match=part):
            Tokenizer.load(tmp_path)


def test_real_tokenizers():
    mini = Tokenizer.load(real("tok_minimind"))
    assert (mini.vocab_size, mini.pad_id, mini.bos_id, mini.eos_id) == (6400, 0, 1, 2)
    flagged = mini.added["<think>"]["special"]
    assert (
        flagged
        == ("<think>" in mini.special_strings)
        == (mini.special_id("<think>") not in mini.encode("<think>"))
    )
    text = "Zürich 東京 <|im_end|>\n\t🙂"
    assert mini.decode(mini.encode(text)) == text
    stories = Tokenizer.load(real("stories260K_hf"))
    assert (stories.vocab_size, stories.bos_id, stories.eos_id, stories.pad_id) == (512, 1, 2, 0)
    assert stories.decode(
        stories.encode("Once upon a time")
    ) == "Once upon a time" and stories.bos_id not in stories.encode("Once <s>")
