"""Chat templates by name."""

import json

import pytest

from jaxsft.data.chat import named_templates
from jaxsft.data.chat.named_templates import NAMED
from jaxsft.data.records import Chat, Message
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.tasks.chat_template import template_of

BYTES = Tokenizer.bytes()
TALK = [
    Message("system", "s"),
    Message("user", "a"),
    Message("assistant", "b"),
    Message("user", "c"),
    Message("assistant", "d"),
]
# What their models read, and in brackets what they write.
TEXTS = {
    "chatml": (
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[b<|im_end|>]\n"
        "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n[d<|im_end|>]\n"
    ),
    "llama3": (
        "<|bos|><|start_header_id|>system<|end_header_id|>\n\ns<|eot_id|><|start_header_id|>user<|end_header_id|>\n\na<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n[b<|eot_id|>]<|start_header_id|>user<|end_header_id|>\n\nc<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n[d<|eot_id|>]"
    ),
    "gemma": (
        "<|bos|><start_of_turn>user\ns\n\na<end_of_turn>\n<start_of_turn>model\n[b<end_of_turn>]\n<start_of_turn>user\nc<end_of_turn>\n"
        "<start_of_turn>model\n[d<end_of_turn>]\n"
    ),
    "mistral": "<|bos|>[INST] s\n\na[/INST][ b<|end|>][INST] c[/INST][ d<|end|>]",
    "phi3": (
        "<|system|>\ns<|end|>\n<|user|>\na<|end|>\n<|assistant|>\n[b<|end|>]\n<|user|>\nc<|end|>\n<|assistant|>\n[d<|end|>]\n"
    ),
    "qwen3": (
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
        "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n[<think>\n\n</think>\n\nd<|im_end|>]\n"
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_named_template_with_its_tokens_trains_and_answers(name):
    tokenizer = BYTES.with_added(named_templates.lacking(name, BYTES.added))
    mine = template_of(name, tokenizer)
    rendered = mine.render(Chat(tuple(TALK)), "a:1")
    text = ""
    for at, token in enumerate(rendered.ids):
        text += "[" * any(at == start for start, _, _ in rendered.turns) + tokenizer.decode(
            [token], skip_special=False
        )
        text += "]" * any(at + 1 == end for _, end, _ in rendered.turns)
    assert text == TEXTS[name]
    for one in (rendered, *rendered.others):
        assert all(
            mine.prompt(TALK[:index], "a:1") == one.ids[:start] for start, _, index in one.turns
        )
    assert len(rendered.others) == (name == "qwen3")
    if NAMED[name] != ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"):  # which ours has
        with pytest.raises(
            ConfigError, match=f"task.template={name}: the tokenizer has no special token"
        ):
            template_of(name, BYTES)


def test_qwen3_with_tools_and_thoughts():
    mine = template_of("qwen3", BYTES.with_added(NAMED["qwen3"]))
    call = {"type": "function", "function": {"name": "f", "arguments": {"n": 1}}}
    messages = (
        Message("user", "w?"),
        Message("assistant", "so", 1.0, {"tool_calls": [call, call], "reasoning_content": "hm"}),
        *(Message("tool", text) for text in ("sun", "rain")),
        Message("assistant", "<think>\nboth\n</think>\n\nok"),
    )
    text = mine.render(Chat(messages, ({"name": "f"},)), "a:1").text
    assert '<tools>\n{"name": "f"}\n</tools>' in text
    line = '<tool_call>\n{"name": "f", "arguments": {"n": 1}}\n</tool_call>'
    assert f"assistant\n<think>\nhm\n</think>\n\nso\n{line}\n{line}<|im_end|>\n" in text
    assert (
        "user\n<tool_response>\nsun\n</tool_response>\n<tool_response>\nrain\n</tool_response><|im_end|>\n"
        in text
    )
    assert text.endswith("assistant\n<think>\nboth\n</think>\n\nok<|im_end|>\n")
    silent = template_of("qwen3", mine.tokenizer, variables={"enable_thinking": False})
    assert (
        mine.tokenizer.decode(silent.prompt(messages[:1], "a:1")[-3:], skip_special=False)
        == "</think>\n\n"
    )


def test_what_is_no_template_names_those_that_are(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"task.template=chatlm: expected auto, default, chatml, llama3, .*or a readable file",
    ):
        template_of("chatlm", BYTES)
    BYTES.save(tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    document["added_tokens"] = document["added_tokens"][:3]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=r"task.template=chatml\|llama3.*which adds its tokens"):
        template_of("auto", Tokenizer.load(tmp_path))
