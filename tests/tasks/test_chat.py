"""Which turns of a chat are trained, and what evaluation asks of it."""

import dataclasses
import json

import numpy as np
import pytest

from jaxsft.config.adapters import LoRA
from jaxsft.data.records import Chat, Message
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.tasks.chat import ChatSFT
from jaxsft.tasks.last_turn import only_last
from jaxsft.training import exported_tokenizer, setup
from tests import conftest

SOURCE = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' and loop.last %}thus: {%"
    " endif %}{{ m.content }}<|end|>{% endfor %}"
)
SOURCE += "{% if add_generation_prompt %}<|assistant|>{% endif %}"
TALK = Chat(
    tuple(
        Message(role, text)
        for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    )
)
BYTES = Tokenizer.bytes()


def task(tmp_path, records=(TALK,), **options):
    (tmp_path / "mine.jinja").write_text(SOURCE)
    config = conftest.make_config("chat", task={"template": str(tmp_path / "mine.jinja")} | options)
    return ChatSFT(config, BYTES, ChatSFT.fit(config, BYTES, list(records), ["a:1"] * len(records)))


def trained(encoded):
    return [BYTES.decode(one.ids[one.weights > 0], skip_special=False) for one in encoded.texts]


def test_all_turns_or_the_last_are_trained(tmp_path):
    every, last = task(tmp_path), task(tmp_path, train_turns="last")
    (encoded,), (one,) = every.encode_all([TALK], ["a:1"]), last.encode_all([TALK], ["a:1"])
    assert trained(encoded) == ["thus: d<|end|>", "thus: b<|end|>"]
    assert trained(one) == ["thus: d<|end|>"] and np.array_equal(one.ids, encoded.ids)
    assert every.digest != last.digest  # of the examples that are kept
    assert len(every.written(TALK, "a:1")) == sum(len(text.ids) for text in encoded.texts)
    assert len(last.written(TALK, "a:1")) == len(one.ids)
    silent = only_last(
        dataclasses.replace(
            TALK, messages=(*TALK.messages[:3], dataclasses.replace(TALK.messages[3], weight=0.0))
        )
    )
    assert not last.encode_all([silent], ["a:1"])[0].weights.any()
    with pytest.raises(ConfigError, match=r"task\.train_turns=first: expected one of all, last"):
        task(tmp_path, train_turns="first")


def test_evaluation_asks_for_the_last_turn_whatever_is_trained(tmp_path):
    silent = dataclasses.replace(
        TALK, messages=(*TALK.messages[:3], dataclasses.replace(TALK.messages[3], weight=0.0))
    )
    for talk in (TALK, silent):
        mine = task(tmp_path, [talk])
        assert mine.reference(talk, "a:1") == "thus: d"
        assert (
            BYTES.decode(mine.prompt(talk, "a:1"), skip_special=False)
            == "<|user|>a<|end|><|assistant|>b<|end|><|user|>c<|end|><|assistant|>"
        )
    assert task(tmp_path).state["longest_answer"] == len("thus: d") + 1


def test_a_run_keeps_its_template_and_that_of_tools(tmp_path):
    BYTES.save(tmp_path / "tok")
    config = json.loads((tmp_path / "tok" / "tokenizer_config.json").read_text())
    tools = SOURCE.replace("thus: ", "so: ") + "{% if mood %}{{ tools | tojson }}{% endif %}"
    config["chat_template"] = [
        {"name": "default", "template": SOURCE},
        {"name": "tool_use", "template": tools},
        {"name": "rag", "template": "x"},
    ]
    (tmp_path / "tok" / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.load(tmp_path / "tok")
    options = {"allow_unwritten": True, "variables": {"mood": False}}
    config = conftest.make_config("chat", task=options)
    mine = ChatSFT(
        config, tokenizer, json.loads(json.dumps(ChatSFT.fit(config, tokenizer, [TALK], ["a:1"])))
    )
    talks = [TALK, dataclasses.replace(TALK, tools=({"name": "f"},)), TALK]
    assert [trained(one)[0] for one in mine.encode_all(talks, ["a:1"] * 3)] == [
        "thus: d<|end|>",
        "so: d<|end|>",
        "thus: d<|end|>",
    ]
    named = conftest.make_config("chat", task=options | {"template": "tool_use"})
    assert ChatSFT.fit(named, tokenizer, [TALK], ["a:1"])["template"]["source"] == tools
    # The folder that is exported has both, with the variables of the run.
    (tmp_path / "out").mkdir()
    exported_tokenizer.write_template(tmp_path / "out", mine.state["template"])
    BYTES.save(tmp_path / "again")
    for file in (tmp_path / "out").rglob("*.jinja"):
        place = tmp_path / "again" / file.relative_to(tmp_path / "out")
        place.parent.mkdir(exist_ok=True)
        place.write_text(file.read_text())
    again = Tokenizer.load(tmp_path / "again").chat_templates
    assert again == {
        name: "{%- set mood = false -%}\n" + source
        for name, source in (("default", SOURCE), ("tool_use", tools))
    }


def test_a_named_template_brings_its_tokens_and_trains_their_rows():
    config = conftest.make_config("chat", task={"template": "chatml"})
    assert (
        list(config.tokenizer.added) == ["<|im_start|>", "<|im_end|>"]
        and config.model.train_rows == "all"
    )
    assert setup.resolve(config) == config
    for tied, paths in ((True, ["embed/tokens/.*"]), (False, ["embed/tokens/.*", "head/.*"])):
        adapted = conftest.make_config(
            "chat", task={"template": "chatml"}, model={"tied": tied}, adapter=LoRA()
        )
        assert list(adapted.adapter.train) == paths and adapted.model.train_rows == "added"
        # a model with an adapter is a key of compiled programs
        assert hash(adapted.adapter) == hash(dataclasses.replace(adapted.adapter))
        assert setup.resolve(adapted) == adapted
    own = conftest.make_config(
        "chat", task={"template": "chatml"}, adapter=LoRA(train=["embed/.*"])
    )
    assert own.model.train_rows == "all"
    for template in ("default", "phi3", "auto"):
        assert conftest.make_config("chat", task={"template": template}).tokenizer.added in ((), [])
