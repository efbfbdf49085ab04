"""Templates of the shapes that models are published with: their prompts, and what is trained of a
conversation.
"""

import pytest

from jaxsft.data.chat.templates import Template
from jaxsft.data.records import Chat, Message
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import DataError
from tests.realdata import real

BYTES = Tokenizer.bytes().with_added(["<|im_start|>", "<|im_end|>", "<think>", "</think>"])
START, IM_END, THINK, UNTHINK = (
    BYTES.special_id(name) for name in ("<|im_start|>", "<|im_end|>", "<think>", "</think>")
)
EOS = BYTES.eos_id
HEAD = "{%- for m in messages -%}<|im_start|>{{ m.role }}\n"
OPEN = "{%- if add_generation_prompt %}<|im_start|>assistant\n"
# An empty thought in the last turn only; the end of text behind the last turn only; a thought that
# the prompt opens and answers are written without.
LAST_THOUGHT = (
    HEAD
    + "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content"
    " }}<|im_end|>\n{% endfor %}"
)
LAST_THOUGHT += OPEN + "{% endif %}"
LAST_END = (
    HEAD + "{{ m.content }}<|im_end|>\n{% endfor %}" + OPEN + "{% else %}{{ eos_token }}{% endif %}"
)
OPENED = (
    HEAD + "{{ (m.content.split('</think>') | last) if m.role == 'assistant' else m.content"
    " }}<|im_end|>\n{% endfor %}"
)
OPENED += OPEN + "<think>\n{% endif %}"
# As the second, with marks: what stands behind the last turn belongs to it.
TWO_REGIONS = (
    HEAD
    + "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
)
TWO_REGIONS += "{% else %}{{ m.content }}<|im_end|>{% endif %}"
TWO_REGIONS += (
    "{{ '\n' }}{% endfor %}"
    + OPEN
    + "{% else %}{% generation %}{{ eos_token }}{% endgeneration %}{% endif %}"
)
THOUGHTS = (  # thoughts are written behind the last question only
    "{%- set ns = namespace(q=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.q ="
    " loop.index0 %}{% endif %}{% endfor %}" + HEAD
) + (
    "{% if m.reasoning_content is string and loop.index0 > ns.q %}<think>{{ m.reasoning_content"
    " }}</think>{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}" + OPEN + "{% endif %}"
)


def template(source, **options):
    return Template(source, BYTES, "mine", **options)


def chat(*texts, weights=(), thoughts=()):
    messages = []
    for number, text in enumerate(texts):
        extra = {"reasoning_content": thoughts[number // 2]} if number % 2 and thoughts else {}
        weight = weights[number // 2] if number % 2 and weights else 1.0
        messages.append(Message("assistant" if number % 2 else "user", text, weight, extra))
    return Chat(tuple(messages))


def shown(rendered):
    """The texts of a conversation with what is trained in brackets."""
    out = []
    for one in (rendered, *rendered.others):
        ids, marks = one.ids, one.weights > 0
        text = ""
        for at, token in enumerate(ids):
            text += "[" * bool(marks[at] and not (at and marks[at - 1])) + BYTES.decode(
                [token], skip_special=False
            )
            text += "]" * bool(marks[at] and not (at + 1 < len(ids) and marks[at + 1]))
        out.append(
            text.replace("<|im_start|>", "").replace("<|im_end|>", "#").replace("<|end|>", "$")
        )
    return out


@pytest.mark.parametrize("source", [LAST_THOUGHT, LAST_END, OPENED, TWO_REGIONS, THOUGHTS])
def test_a_prompt_asks_nothing_of_the_ends_of_earlier_turns(source):
    messages = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    tail = [THINK, *b"\n"] if source == OPENED else []
    turns = [
        START,
        *b"user\na",
        IM_END,
        10,
        START,
        *b"assistant\nb",
        IM_END,
        10,
        START,
        *b"user\nc",
        IM_END,
        10,
    ]
    assert template(source).prompt(messages, "a:1") == [*turns, START, *b"assistant\n", *tail]


@pytest.mark.parametrize(
    "source, texts",
    [
        (
            LAST_THOUGHT,
            [
                "user\na#\nassistant\nb#\nuser\nc#\nassistant\n[<think>\n\n</think>\n\nd#]\n",
                "user\na#\nassistant\n[<think>\n\n</think>\n\nb#]\n",
            ],
        ),
        (LAST_END, ["user\na#\nassistant\n[b#]\nuser\nc#\nassistant\n[d#\n$]"]),
        (TWO_REGIONS, ["user\na#\nassistant\n[b#]\nuser\nc#\nassistant\n[d#]\n[$]"]),
    ],
)
def test_each_turn_is_trained_as_it_is_when_it_is_last(source, texts):
    mine = template(source)
    for _ in range(2):  # the second time from the learnt layout
        assert shown(mine.render(chat("a", "b", "c", "d"), "a:1")) == texts
    for half in (
        chat("a", "b", "c", "d", weights=[0.0, 1.0]),
        chat("x", "y", "c", "d", weights=[0.0, 1.0]),
    ):
        assert len(shown(mine.render(half, "a:1"))) == 1  # what is not trained is not asked
    first = mine.render(chat("a", "b", "c", "d", weights=[1.0, 0.0]), "a:1")
    assert shown(first)[0].count("[") == 1 and not first.others


def test_thoughts_are_trained_where_they_are_written():
    mine = template(THOUGHTS)
    talk = chat("a", "b", "c", "d", thoughts=["t", "u"])
    expected = [
        "user\na#\nassistant\nb#\nuser\nc#\nassistant\n[<think>u</think>d#]\n",
        "user\na#\nassistant\n[<think>t</think>b#]\n",
    ]
    for _ in range(2):
        assert shown(mine.render(talk, "a:1")) == expected
    # A turn without a thought is the same in both, and is trained in one text.
    assert len(shown(mine.render(chat("a", "b", "c", "d"), "a:1"))) == 1


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_a_thought_goes_by_all_its_names(name):
    talk = Chat((Message("user", "a"), Message("assistant", "b", 1.0, {name: "t"})))
    for field in ("reasoning_content", "thinking"):
        thought = "{% if m.X %}<think>{{ m.X }}</think>{% endif %}".replace("X", field)
        source = HEAD + thought + "{{ m.content }}<|im_end|>\n{% endfor %}" + OPEN + "{% endif %}"
        assert shown(template(source).render(talk, "a:1")) == [
            "user\na#\nassistant\n[<think>t</think>b#]\n"
        ]
    plain = HEAD + "{{ m.content }}<|im_end|>\n{% endfor %}" + OPEN + "{% endif %}"
    for _ in range(2):
        with pytest.raises(
            DataError,
            match=rf"a:1: .*does not write the {name} of message 2.*task.allow_unwritten=true",
        ):
            template(plain).render(talk, "a:1")
    assert template(plain, allow_unwritten=True).render(talk, "a:1").turns


def test_a_thought_inside_a_content_that_the_template_cuts_off_is_an_error():
    """What is left of the content is a trace of it, but not of the thought."""
    cut = "{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}" + OPEN + "{% endif %}"
    mine, talk = template(HEAD + cut), chat("a", "<think>weigh it</think>b")
    for _ in range(2):
        with pytest.raises(
            DataError, match="does not write the thought in the content of message 2"
        ):
            mine.render(talk, "a:1")
    assert mine.render(chat("a", "b"), "a:1").turns
    assert template(HEAD + cut, allow_unwritten=True).render(talk, "a:1").turns


def test_a_thought_of_which_nothing_is_written_is_an_error_though_its_name_is_read():
    source = (
        HEAD
        + "{% if m.reasoning_content and loop.index0 > 9 %}{{ m.reasoning_content }}{% endif %}{{"
        " m.content }}<|im_end|>\n{% endfor %}"
    )
    mine = template(source + OPEN + "{% endif %}")
    for _ in range(2):
        with pytest.raises(DataError, match="does not write the reasoning_content of message 2"):
            mine.render(chat("a", "b", thoughts=["t"]), "a:1")


def test_a_field_that_nobody_reads_is_an_error():
    source = HEAD + "{{ m.content }}{{ m.note }}<|im_end|>\n{% endfor %}" + OPEN + "{% endif %}"
    talk = lambda **extra: Chat((Message("user", "a", 1.0, extra), Message("assistant", "b")))
    mine = template(source)
    assert mine.render(talk(note="n", name="Ann", id=3, annotations=[]), "a:1").turns
    for _ in range(2):
        with pytest.raises(
            DataError, match=r"a:1: .*does not write the lossy of message 1 \(user\)"
        ):
            mine.render(talk(lossy=True), "a:1")
    assert template(source, allow_unwritten=True).render(talk(lossy=True), "a:1").turns
    whole = template(
        HEAD + "{{ m | tojson }}<|im_end|>\n{% endfor %}" + OPEN + "{% endif %}", require_stop=False
    )
    assert (
        "lossy"
        in whole.render(
            Chat((Message("user", "a", 1.0, {"lossy": True}), Message("assistant", "b", 0.0))),
            "a:1",
        ).text
    )


def test_an_answer_that_ends_with_either_token_has_ended():
    assert template(LAST_END).stop_ids == template(TWO_REGIONS).stop_ids == (IM_END, EOS)
    assert template(LAST_THOUGHT).stop_ids == template(OPENED).stop_ids == (IM_END,)
    calls = (
        "{% for c in m.tool_calls %}{{ c.function.name }}{{ c.function.arguments | tojson"
        " }}<|end|>{% endfor %}"
    )
    source = (
        HEAD
        + "{% if m.tool_calls %}"
        + calls
        + "{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
        + OPEN
        + "{% endif %}"
    )
    assert template(source).stop_ids == (IM_END, EOS)  # that of a call is another one


def test_a_prompt_that_no_answer_begins_with_says_what_would_fit():
    with pytest.raises(
        DataError,
        match=(
            r"a.jsonl:3: .*prompt of message 2 is no prefix.*no thought and no variable makes an"
            r" answer fit"
        ),
    ):
        template(OPENED).render(chat("a", "b"), "a.jsonl:3")
    kept = OPENED.replace("m.content.split('</think>') | last", "m.content")
    # where <think> is a word
    words = Template(kept, Tokenizer.bytes().with_added(["<|im_start|>", "<|im_end|>"]), "mine")
    with pytest.raises(
        DataError, match=r"what would fit: a content that begins with its thought \('<think>"
    ):
        words.render(chat("a", "b"), "a:1")
    assert shown(words.render(chat("a", "<think>\nx</think>b"), "a:1")) == [
        "user\na#\nassistant\n<think>\n[x</think>b#]\n"
    ]
    switched = OPENED.replace(
        OPEN + "<think>\n",
        OPEN + "{% if thinking_on is not defined or thinking_on %}<think>\n{% endif %}",
    )
    with pytest.raises(DataError, match=r"what would fit: task.variables=\{thinking_on: false\}"):
        template(switched).render(chat("a", "b"), "a:1")
    assert shown(
        template(switched, variables={"thinking_on": False}).render(chat("a", "b"), "a:1")
    ) == ["user\na#\nassistant\n[b#]\n"]


def test_a_thought_of_the_data_goes_on_from_that_of_the_prompt():
    """A token that is not special is the same one, whoever wrote it."""
    tokenizer = Tokenizer.load(real("tok_minimind"))
    mine = Template(
        OPENED.replace("m.content.split('</think>') | last", "m.content"), tokenizer, "mine"
    )
    for _ in range(2):
        rendered = mine.render(chat("a", "<think>\nx\n</think>b"), "a:1")
        ((start, end, _),) = rendered.turns
        assert (
            rendered.ids[:start] == mine.prompt((Message("user", "a"),), "a:1")
            and tokenizer.special_id("<think>") in rendered.ids[:start]
        )
        assert (
            tokenizer.decode(rendered.ids[start:end], skip_special=False)
            == "x\n</think>b<|im_end|>"
        )


def test_calls_whose_arguments_a_template_wants_as_text():
    source = (
        HEAD + "{{ m.content }}{% for c in m.tool_calls %}{% set f = c.function %}{{ f.name + ' ' +"
        " f.arguments }}{% endfor %}<|im_end|>\n{% endfor %}"
    )
    source += OPEN + "{% endif %}"
    call = {"type": "function", "function": {"name": "f", "arguments": {"town": "Zürich"}}}
    talk = Chat((Message("user", "a"), Message("assistant", "", 1.0, {"tool_calls": [call]})))
    for _ in range(2):
        assert 'f {"town": "Zürich"}' in template(source).render(talk, "a:1").text


def test_a_template_of_parts_is_given_parts():
    parts = (
        HEAD
        + "{% for p in m.content %}{{ p.text }}{% endfor %}<|im_end|>\n{% endfor %}"
        + OPEN
        + "{% endif %}"
    )
    lenient = parts.replace("{{ p.text }}", "{% if p.type == 'text' %}{{ p.text }}{% endif %}")
    for source in (parts, lenient):
        assert shown(template(source).render(chat("ab", "cd"), "a:1")) == [
            "user\nab#\nassistant\n[cd#]\n"
        ]


@pytest.mark.parametrize("answer", [" b", "\nb", "\n\n b"])
def test_the_text_before_a_later_turn_has_the_tokens_that_generation_sees(answer):
    """Where an answer begins with white space, a cut before it may change the tokens: then a later
    turn has a text without that cut.
    """
    tokenizer = Tokenizer.load(real("tok_minimind"))
    source = HEAD + "{{ m.content }}<|im_end|>\n{% endfor %}" + OPEN + "{% endif %}"
    mine = Template(source, tokenizer, "mine")
    talk = chat("a", answer, "c", "d")
    for _ in range(2):
        rendered = mine.render(talk, "a:1")
        texts = [rendered, *rendered.others]
        assert sorted(index for one in texts for _, _, index in one.turns) == [1, 3]
        for one in texts:
            assert all(
                mine.prompt(talk.messages[:index], "a:1") == one.ids[:start]
                for start, _, index in one.turns
            )
