"""What every template and row must hold, whatever the data says."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.data.chat.templates import Template
from jaxsft.data.records import Chat, Message
from jaxsft.data.tokenizers.tokenizer import SPECIAL, Tokenizer
from jaxsft.tasks.chat import ChatSFT
from tests import conftest
from tests.realdata import real

BYTES = Tokenizer.bytes()
TRAINED = Tokenizer.train(["user\nassistant\nthe cat sat on the mat"] * 3, 300)
UNMARKED = (
    "<|bos|>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content|trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
# Its turns end with another token than texts, and it writes tools.
EOT = "{% if tools %}<|system|>{{ tools|tojson }}<|eot|>{% endif %}" + UNMARKED.replace(
    "<|end|>", "<|eot|>"
)
part = st.sampled_from(
    [*SPECIAL, "<|eot|>", "<|im_end|>", "<|", "|>", "\n", " ", "a", "the cat", "é", "東京", "🙂"]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
content = st.lists(part, max_size=6).map("".join)
weight = st.sampled_from([0.0, 0.5, 1.0])


@st.composite
def chats(draw):
    messages = []
    for _ in range(draw(st.integers(1, 3))):
        messages += [
            Message(draw(st.sampled_from(["system", "user", "tool"])), draw(content)),
            Message("assistant", draw(content), draw(weight)),
        ]
    return Chat(tuple(messages))


def templates():
    yield "default", Template.default(BYTES)
    yield "default-bpe", Template.default(TRAINED)
    yield "unmarked", Template(UNMARKED, TRAINED, "unmarked")
    yield "another end, tools", Template(EOT, BYTES.with_added(["<|eot|>"]), "eot")


TEMPLATES = dict(templates())


def check(template, talk):
    whole = template.render(talk, "a:1")
    tokenizer = template.tokenizer
    texts = [whole, *whole.others]
    trained = [index for index, m in enumerate(talk.messages) if m.role == "assistant" and m.weight]
    assert sorted(index for one in texts for _, _, index in one.turns) == trained
    for rendered in texts:
        assert len(rendered.ids) == len(rendered.weights)
        # guards C11: nothing is lost or added
        assert tokenizer.decode(rendered.ids, skip_special=False) == rendered.text
        inside = [0.0] * len(rendered.ids)
        for start, end, index in rendered.turns:
            # guards C9 C10: what generation sees is exactly what training saw before the turn
            assert template.prompt(talk.messages[:index], "a:1", talk.tools) == rendered.ids[:start]
            assert rendered.ids[end - 1] in template.stop_ids  # guards C1 C5
            inside[start:end] = [talk.messages[index].weight] * (end - start)
        assert inside == rendered.weights.tolist()  # guards C2: by position, never by id
        check_special(template, talk, rendered)


def check_special(template, talk, rendered):
    last = max([index for _, _, index in rendered.turns], default=len(talk.messages) - 1) + 1
    talk = (
        talk if rendered.text == template.render(talk, "a:1").text else Chat(talk.messages[:last])
    )
    tokenizer = template.tokenizer
    # guards C6 C11: the special tokens are those that the template writes for empty contents,
    # whatever the contents say
    empty = template.render(Chat(tuple(Message(m.role, "") for m in talk.messages)), "a:1")
    special = {tokenizer.special_id(token) for token in tokenizer.special_strings}
    assert [token for token in rendered.ids if token in special] == [
        token for token in empty.ids if token in special
    ]


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=50, deadline=None)
@given(talk=chats())
def test_invariants_of_rendering(name, talk):
    check(TEMPLATES[name], talk)


@pytest.fixture(scope="module")
def minimind():
    return Template.of(Tokenizer.load(real("tok_minimind")))


@settings(max_examples=40, deadline=None)
@given(talk=chats())
def test_invariants_of_a_real_template(minimind, talk):
    # This template drops a system message that is not the first but keeps the others; tools answers
    # are joined: only user turns here.
    check(
        minimind,
        Chat(
            tuple(
                Message("user" if m.role != "assistant" else m.role, m.content, m.weight)
                for m in talk.messages
            )
        ),
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_run_renders_as_it_was_trained(name, tmp_path):  # guards C3 C10 C12
    """What `task.json` and the saved tokenizer hold decides, not the config or a template that has
    changed since.
    """
    template = TEMPLATES[name]
    (tmp_path / "template.jinja").write_text(template.source, encoding="utf-8")
    tools = ({"name": "f"},) if "tools" in name else ()
    talk = Chat(
        (
            Message("user", "hé <|end|>"),
            Message("assistant", " the cat ", 0.5),
            Message("user", ""),
            Message("assistant", "sat"),
        ),
        tools,
    )
    config = conftest.make_config("chat")
    config = dataclasses.replace(
        config, task=dataclasses.replace(config.task, template=str(tmp_path / "template.jinja"))
    )
    state = ChatSFT.fit(config, template.tokenizer, [talk], ["a:1"])
    trained = ChatSFT(config, template.tokenizer, state)
    template.tokenizer.save(tmp_path / "tokenizer")
    (tmp_path / "template.jinja").write_text("changed", encoding="utf-8")
    loaded = ChatSFT(config, Tokenizer.load(tmp_path / "tokenizer"), json.loads(json.dumps(state)))
    [before], [after] = trained.encode_all([talk], ["a:1"]), loaded.encode_all([talk], ["a:1"])
    assert before.ids.tolist() == after.ids.tolist() == template.render(talk, "a:1").ids
    assert before.weights.tolist() == after.weights.tolist()
    assert (
        loaded.prompt(talk, "a:1")
        == before.ids[: template.render(talk, "a:1").turns[-1][0]].tolist()
    )
    # guards C3 C5: generation stops at what ends the trained turns, and at nothing else
    assert loaded.stop_ids == trained.stop_ids == [int(before.ids[before.weights > 0][-1])]
    assert ("end" in name) == (loaded.stop_ids != [loaded.tokenizer.eos_id])
    assert loaded.digest == trained.digest and state["template"]["sha256"] == template.digest


def test_padding_is_in_the_vocabulary():  # guards C14
    found = [
        BYTES,
        TRAINED,
        *(Tokenizer.load(real(name)) for name in ("tok_minimind", "stories260K_hf")),
    ]
    assert all(0 <= tokenizer.pad_id < tokenizer.vocab_size for tokenizer in found)
