"""Tokenizers of other tools, by the ids that those give (`tools/golden/tokenizers.py`)."""

import json
import shutil
from pathlib import Path

import pytest

from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.tasks.chat_template import template_of
from tests.realdata import real

HERE = Path(__file__).parent / "golden"
GOLDEN = json.loads((HERE / "tokenizers.json").read_text())
PAIR = ("How old are you?", "Six years old.")
GPT2 = {"vocab.json": "tok_gpt2/vocab.json", "merges.txt": "tok_gpt2/merges.txt"}
FOLDERS = {  # by name in the goldens: the files, and what tokenizer_config.json says
    "bert_uncased": ({"vocab.txt": "tok_bert/bert-base-uncased.vocab.txt"}, {}),
    "bert_cased": ({"vocab.txt": "tok_bert/bert-base-cased.vocab.txt"}, {}),
    "bert_chinese": (
        {"vocab.txt": "tok_bert/bert-base-chinese.vocab.txt"},
        {"tokenizer_class": "BertTokenizer"},
    ),
    "gpt2": (GPT2, {}),
    "gpt2_space": (GPT2, {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True}),
    "minimind": ({"tokenizer.json": "tok_minimind/tokenizer.json"}, {}),
    "t5": ({"spiece.model": "t5.model"}, {"tokenizer_class": "T5Tokenizer"}),
    "xlmr": ({"sentencepiece.bpe.model": "xlmr.model"}, {"tokenizer_class": "XLMRobertaTokenizer"}),
}
MODELS = {
    "mistral_v1": "tok_mistral/tokenizer.model.v1",
    "mistral_v3": "tok_mistral/mistral_instruct_tokenizer_240323.model.v3",
    "clue": "tok_bert/cluecorpussmall_spm.model",
    **{name: f"{name}.model" for name in ("unigram", "bpe_bytes", "bpe_plain")},
}


def file(name: str) -> Path:
    return HERE / name if (HERE / name).is_file() else real(name)


def folder(path: Path, files: dict[str, str], config: dict) -> Path:
    for name, source in files.items():
        shutil.copyfile(file(source), path / name)
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


SLOW = ("gpt2", "gpt2_space", "bert_cased", "mistral_v1", "clue")


def named(names) -> list:
    return [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in names]


@pytest.mark.parametrize("name", named(FOLDERS))
def test_ids_are_those_of_transformers(name, tmp_path):
    tokenizer, golden = (
        Tokenizer.load(folder(tmp_path, *FOLDERS[name])),
        GOLDEN["transformers"][name],
    )
    assert {text: tokenizer.encode(text) for text in golden["ids"]} == golden["ids"]
    assert tokenizer.vocab_size == golden["rows"]
    first, second = (tokenizer.encode(text) for text in PAIR)
    if name.startswith(("bert", "t5", "xlmr")):
        one, two = tokenizer.wrap(first), tokenizer.wrap(first, second)
        assert (one.ids, two.ids, two.types) == (golden["single"], golden["pair"], golden["types"])
    tokenizer.save(tmp_path / "again")
    again = Tokenizer.load(tmp_path / "again")
    assert again.digest == tokenizer.digest and again.wrap(first, second) == tokenizer.wrap(
        first, second
    )
    assert {text: again.encode(text) for text in golden["ids"]} == golden["ids"]


@pytest.mark.parametrize("name", named(MODELS))
def test_ids_are_those_of_sentencepiece(name):
    tokenizer, golden = Tokenizer.load(file(MODELS[name])), GOLDEN["sentencepiece"][name]
    plain = [text for text in golden["ids"] if "@@@" not in text]  # two cuts of one score
    assert len(plain) > 15 and [tokenizer.encode(text) for text in plain] == [
        golden["ids"][text] for text in plain
    ]
    assert tokenizer.vocab_size == golden["rows"]
    unknown = tokenizer.role_strings()["unk_token"]
    for text in plain:
        assert tokenizer.decode(golden["ids"][text], skip_special=False) == golden["decoded"][
            text
        ].replace(" \u2047 ", unknown)


def test_a_user_defined_piece_is_read_in_text_unless_it_is_declared_special(tmp_path):  # guards C11
    tokenizer = Tokenizer.load(file("unigram.model"))
    tool = tokenizer.special_id("<tool>")
    assert (
        tool in tokenizer.encode("a <tool> cat")
        and "<tool>" in tokenizer.control_strings
        and "<tool>" not in tokenizer.special_strings
    )
    tokenizer.save(tmp_path / "saved")
    again = Tokenizer.load(tmp_path / "saved")
    assert again.digest == tokenizer.digest and again.encode("a <tool> cat") == tokenizer.encode(
        "a <tool> cat"
    )
    special = Tokenizer.load(
        folder(
            tmp_path, {"unigram.model": "unigram.model"}, {"additional_special_tokens": ["<tool>"]}
        )
    )
    assert tool not in special.encode("a <tool> cat") and special.special_id("<tool>") == tool
    assert (
        "@@" not in tokenizer.special_strings
        and tokenizer.decode(tokenizer.encode("a @@a")) == "a @@a"
    )
    offsets = tokenizer.offsets("the cat")
    assert [("the cat"[a:b]) for a, b in offsets][-1].endswith("t") and offsets[-1][1] == 7


def test_vocabularies_tell_their_case_and_the_config_has_the_last_word(tmp_path):
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "The", "##re"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocab) + "\n")
    assert Tokenizer.load(tmp_path).encode("The there") == [6, 5, 7]
    (tmp_path / "special_tokens_map.json").write_text(
        json.dumps({"mask_token": {"content": "[MASK]"}, "cls_token": "[CLS]"})
    )
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": True, "added_tokens_decoder": {"8": {"content": "[NEW]"}}})
    )
    low = Tokenizer.load(tmp_path)
    assert low.encode("The there") == [5, 5, 7] and (
        low.mask_id,
        low.unk_id,
        low.pad_id,
        low.bos_id,
    ) == (4, 1, 0, None)
    assert low.vocab_size == 9 and low.special_id("[NEW]") == 8 and low.encode("[MASK]") != [4]
    assert low.wrap([5], [6]) == ([2, 5, 3, 6, 3], [0, 0, 0, 1, 1], 1, 1)


def test_files_beside_a_tokenizer_json_may_not_contradict_it(tmp_path):
    """The golden values are those of transformers 5.24."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((real("stories260K_hf") / name).read_bytes())
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "<unk>"}')
    assert Tokenizer.load(tmp_path).eos_id == 0  # of a folder without added_tokens_decoder
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    end = {"content": "</s>", "special": True}
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(config | {"added_tokens_decoder": {"2": end}})
    )
    assert Tokenizer.load(tmp_path).eos_id == 2
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "added_tokens.json").write_text('{"</s>": 2}')
    assert Tokenizer.load(tmp_path).vocab_size == 512
    for content, told in (('{"<x>": 2}', "does not have it"), ('{"</s>": 1}', "has it as 2")):
        (tmp_path / "added_tokens.json").write_text(content)
        with pytest.raises(ConfigError, match=f"added_tokens.json: .* tokenizer.json {told}"):
            Tokenizer.load(tmp_path)


def test_roberta_frames_and_byte_level_files(tmp_path):  # guards C6
    letters = (
        Tokenizer.bytes().save(tmp_path)
        or json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    )
    (tmp_path / "tokenizer.json").unlink()
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocab = {text: i for i, text in enumerate([*names, *letters, "th"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\n")
    (tmp_path / "tokenizer_config.json").unlink()
    tokenizer = Tokenizer.load(tmp_path)
    a, b = tokenizer.encode("th"), tokenizer.encode("x")
    assert a == [261] and tokenizer.decode(tokenizer.encode("thé <s>")) == "thé <s>"
    assert tokenizer.wrap(a, b) == ([0, 261, 2, 2, *b, 2], [0] * 6, 1, 1) and tokenizer.mask_id == 4
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt q\n")
    with pytest.raises(ConfigError, match=r"merges.txt:2: found 't q'"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer"}')
    (tmp_path / "merges.txt").write_text("t h\n")
    with pytest.raises(ConfigError, match="tokenizer_class=CLIP; expected GPT2Tokenizer"):
        Tokenizer.load(tmp_path)


def test_frames_of_decoders(tmp_path):  # guards C6
    ours = Tokenizer.bytes()
    assert ours.wrap([1], [2]) == ([257, 1, 258, 2, 258], [0] * 5, 1, 1) and ours.wrap([1]) == (
        [257, 1, 258],
        [0] * 3,
        1,
        1,
    )
    ours.save(tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    part = lambda name: {
        ("Sequence" if name in "AB" else "SpecialToken"): {"id": name, "type_id": 0}
    }
    special = {
        "<|bos|>": {"id": "<|bos|>", "ids": [257], "tokens": ["<|bos|>"]},
        "<|end|>": {"id": "<|end|>", "ids": [258], "tokens": ["<|end|>"]},
    }

    def framed(single: list[str], pair: list[str]) -> Tokenizer:
        template = {
            "type": "TemplateProcessing",
            "single": [*map(part, single)],
            "pair": [*map(part, pair)],
            "special_tokens": special,
        }
        steps = {
            "type": "Sequence",
            "processors": [
                {
                    "type": "ByteLevel",
                    "add_prefix_space": False,
                    "trim_offsets": False,
                    "use_regex": True,
                },
                template,
            ],
        }
        (tmp_path / "tokenizer.json").write_text(json.dumps(document | {"post_processor": steps}))
        return Tokenizer.load(tmp_path)

    llama = framed(["<|bos|>", "A"], ["<|bos|>", "A", "<|bos|>", "B"])
    # of two texts its own frame has the beginning twice, and no end
    assert llama.wrap([1], [2]).ids == [257, 1, 258, 2, 258]
    with pytest.raises(ConfigError, match="writes the first token of a text twice"):
        framed(["<|bos|>", "A", "<|end|>"], ["<|bos|>", "A", "<|bos|>", "B", "<|end|>"])


def test_what_cannot_be_read_is_said(tmp_path):
    for text, part in (
        (b"\x0a\x05ab", "not a SentencePiece model"),
        (b"", "it has no pieces"),
        (b"\xff" * 20, "not a SentencePiece model"),
    ):
        (tmp_path / "x.model").write_bytes(text)
        with pytest.raises(ConfigError, match=part):
            Tokenizer.load(tmp_path)
    data = (HERE / "xlmr.model").read_bytes()
    for options, part in (
        (b"\x18\x03", "model_type is 3"),
        (b"\xc0\x01\x01", "treat_whitespace_as_suffix"),
    ):
        (tmp_path / "x.model").write_bytes(data + b"\x12" + bytes([len(options)]) + options)
        with pytest.raises(ConfigError, match=part):
            Tokenizer.load(tmp_path)
    (tmp_path / "x.model").write_bytes(data)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "CamembertTokenizer"}')
    with pytest.raises(ConfigError, match="tokenizer_class=CamembertTokenizer: how its ids follow"):
        Tokenizer.load(tmp_path)
    (tmp_path / "y.model").write_bytes(data)
    with pytest.raises(ConfigError, match=r"found x\.model, y\.model; name the file"):
        Tokenizer.load(tmp_path)
    (tmp_path / "vocab.txt").write_text("[UNK]\na\nb\na\n")
    with pytest.raises(ConfigError, match=r"vocab.txt:4: the piece 'a' again, after line 2"):
        Tokenizer.load(tmp_path)


def test_several_chat_templates(tmp_path):
    """As transformers finds them: files of their own before the config, and a folder of further
    ones.
    """
    Tokenizer.bytes().save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())

    def found(template):
        (tmp_path / "tokenizer_config.json").write_text(
            json.dumps(config | ({} if template is None else {"chat_template": template}))
        )
        return Tokenizer.load(tmp_path).chat_templates

    assert (
        found(None) == {}
        and found("a") == {"default": "a"}
        and found({"default": "a", "rag": "r"}) == {"default": "a", "rag": "r"}
    )
    assert found([{"name": "tool_use", "template": "t"}])["default"] == "t"
    assert set(found([{"name": "a", "template": "x"}, {"name": "b", "template": "y"}])) == {
        "a",
        "b",
    }
    with pytest.raises(
        ConfigError, match=r"expected one called 'default'; choose by task\.template=a\|b"
    ):
        template_of("auto", Tokenizer.load(tmp_path))
    for wrong in ([{"name": "a"}], 3, ["a"]):
        with pytest.raises(ConfigError, match="chat_template"):
            found(wrong)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "b"}))
    assert found("a") == {"default": "b"}
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("t")
    (tmp_path / "chat_template.jinja").write_text("c")
    assert found("a") == {"default": "c", "tool_use": "t"}
    assert Tokenizer.load(tmp_path).chat_template == "c"
