"""A template may not cut, drop or change a part of what a conversation says."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.data.chat.lost_text import lost_text
from jaxsft.data.chat.templates import Template
from jaxsft.data.records import Chat, Message
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import DataError
from tests.realdata import real

BYTES = Tokenizer.bytes()
TURNS = (
    "{% for m in messages %}<|{{ m.role }}|>X<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TALK = Chat(
    (
        Message("system", "Be brief. Always."),
        Message("user", "Hello there, friend X of mine"),
        Message("assistant", "Good morning, dear X of ours"),
        Message("user", "What is\nnew, then?"),
        Message("assistant", "Nothing <b>X</b> at\nall, I fear"),
    )
)
DROPS = {
    "first letters": "{{ m.content[:5] }}",
    "last letters": "{{ m.content[5:] }}",
    "all but one letter": "{{ m.content[:-1] }}",
    "every second letter": "{{ m.content[::2] }}",
    "backwards": "{{ m.content[::-1] }}",
    "truncate": "{{ m.content | truncate(12, true) }}",
    "before a letter": "{{ m.content.split('X')[0] }}",
    "behind a letter": "{{ m.content.split('X')[-1] }}",
    "behind, as a filter": "{{ m.content.split('X') | last }}",
    "partition": "{{ m.content.partition(' ')[2] }}",
    "without what parted": "{{ m.content.split('X') | join }}",
    "first line": "{{ m.content.splitlines()[0] }}",
    "first word": "{{ m.content.split() | first }}",
    "some words": "{{ m.content.split()[:3] | join(' ') }}",
    "one of the lines": "{% for line in m.content.split('\\n')[:1] %}{{ line }}{% endfor %}",
    "replace": "{{ m.content | replace('X', '') }}",
    "replace, as a method": "{{ m.content.replace('there', 'you').replace('X', 'Y') }}",
    "replace once": "{{ m.content | replace('e', '', 1) }}",
    "strip letters": "{{ m.content.strip('HWGN') }}",
    "prefix": "{{ m.content.removeprefix('Hello').removeprefix('Good') }}",
    "upper": "{{ m.content | upper }}",
    "lower": "{{ m.content.lower() }}",
    "title": "{{ m.content | title }}",
    "escape": "{{ m.content | escape }}",
    "number": "{{ m.content | length }}",
    "words on other lines": "{{ m.content | wordwrap(6) }}",
    "for the first": "{% if loop.first %}{{ m.content[:4] }}{% else %}{{ m.content }}{% endif %}",
    "for the last": "{{ m.content[:4] if loop.last and m.role == 'assistant' else m.content }}",
    "long ones": "{{ m.content if m.content | length < 20 else m.content[:20] ~ '...' }}",
    "of users": "{{ m.content[:9] if m.role == 'user' else m.content }}",
    "of the system": "{{ m.content.split('.')[0] if m.role == 'system' else m.content }}",
    "earlier ones": "{{ m.content if loop.index0 > 1 else m.content[:3] }}",
    "early answers": "{{ m.content if loop.last or m.role != 'assistant' else m.content[:4] }}",
    "one of the system": "{{ m.content if m.role != 'system' }}",
    "no early questions": "{{ m.content if loop.index0 != 1 }}",
    "with a word in it": "{{ m.content if 'friend' not in m.content else 'Hello' }}",
    "that begin so": "{{ m.content if not m.content.startswith('What') else 'What' }}",
    "the first again": "{{ messages[0].content if m.role == 'user' else m.content }}",
    "letters of a list": "{{ (m.content | list)[1:] | join }}",
    "sorted": "{{ m.content | sort | join }}",
    "once each": "{{ m.content | unique | join }}",
    "in a macro": "{% macro f(x) %}{{ x[:6] }}{% endmacro %}{{ f(m.content) }}",
    "in a block": "{% set x %}{{ m.content }}{% endset %}{{ x[:6] }}",
    "of a text": "{{ ('> ' ~ m.content)[:9] }}",
    "in JSON": "{{ {'x': m.content[:6]} | tojson }}",
    "formatted": "{{ '%.6s' | format(m.content) }}",
}
KEEPS = {
    "plain": "{{ m.content }}",
    "trim": "{{ m.content | trim }}",
    "strip": "{{ m.content.strip('\\n') }}",
    "line by line": "{% for line in m.content.split('\\n') %}{{ line }}\n{% endfor %}",
    "split and joined": "{{ m.content.split(' ') | join(' ') }}",
    "letter by letter": "{% for x in m.content %}{{ x }}{% endfor %}",
    "JSON": "{{ m.content | tojson }}",
    "JSON of ASCII": "{{ {'x': m.content} | tojson(ensure_ascii=true) }}",
    "JSON in JSON": "{{ {'x': m.content | tojson} | tojson }}",
    "a list": "{{ [m.content] }}",
    "formatted": "{{ '(%s)' | format(m.content) }}",
    "upper role": "{{ m.role | upper }}: {{ m.content }}",
    "twice": "{{ m.content }}{{ m.content }}",
    "long ones": "{{ m.content if m.content | length < 20 else '> ' ~ m.content }}",
}


def template(body, **options):
    return Template(TURNS.replace("X", body, 1), BYTES, "mine", **options)


@pytest.mark.parametrize("body", DROPS.values(), ids=DROPS.keys())
def test_what_a_template_drops_of_a_content_is_an_error(body):
    mine = template(body)
    for _ in range(2):  # the second time from the learnt layout
        with pytest.raises(DataError, match=r"a:1: template 'mine' does not write .*message \d"):
            mine.render(TALK, "a:1")


@pytest.mark.parametrize("body", KEEPS.values(), ids=KEEPS.keys())
def test_what_a_template_only_writes_otherwise_is_none(body):
    mine = template(body)
    for _ in range(2):
        assert mine.render(TALK, "a:1").turns


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_text_without_a_part_of_any_content_is_noticed(data):
    """Whatever one letter of a content is left out, or one message."""
    words = st.text("ab \n<é", min_size=1, max_size=8).map(lambda text: "|" + text + "|")
    texts = data.draw(st.lists(words, min_size=1, max_size=5))
    roles = ["user" if n % 2 == 0 else "assistant" for n in range(len(texts))]
    messages = [Message(role, text) for role, text in zip(roles, texts, strict=True)]
    trained = range(len(texts))
    assert lost_text(messages, (), "\0".join(texts), trained) is None
    cut = data.draw(st.integers(0, len(texts) - 1))
    letter = data.draw(st.integers(0, len(texts[cut]) - 1))
    shorter = texts[cut][:letter] + texts[cut][letter + 1 :]
    for rest in ([shorter], []):
        written = "\0".join([*texts[:cut], *rest, *texts[cut + 1 :]])
        assert lost_text(messages, (), written, trained) is not None


@pytest.mark.parametrize(
    "content, body, missing",
    [
        ("Hello there world", "{{ m.content[:5] }}", " there world"),
        ("Hello there world", "{{ m.content[8:] or m.content }}", "Hello th"),
        ("Hello there, world", "{{ m.content | replace('there', '') }}", "there"),
        ("x" * 99 + "y" * 99, "{{ m.content[:99] }}", "y" * 40 + "..."),
    ],
)
def test_the_error_shows_what_is_missing(content, body, missing):
    with pytest.raises(DataError) as caught:
        template(body).render(Chat((Message("user", content), Message("assistant", "b"))), "f:3")
    assert str(caught.value) == (
        "f:3: template 'mine' does not write the content of message 1 (user) as it stands:"
        f" {missing!r} would be lost; use another task.template, or set task.allow_unwritten=true"
    )


CALLS = [
    {
        "type": "function",
        "function": {"name": "look", "arguments": {"town": "Bern", "n": [1, "é"]}},
    },
    {"type": "function", "function": {"name": "ask", "arguments": {"whom": 'the "boss"'}}},
]
CALLED = Chat(
    (Message("user", "a question"), Message("assistant", "I look", 1.0, {"tool_calls": CALLS})),
    ({"type": "function", "function": {"name": "look"}}, {"name": "ask"}),
)
TOOLS = "{{ (tools | tojson) if loop.first }}{{ m.content }}"


@pytest.mark.parametrize(
    "body, lost",
    [
        (TOOLS + "{{ m.tool_calls[:1] | tojson if m.tool_calls }}", "a tool call.*'ask'"),
        (
            TOOLS + "{% for c in m.tool_calls %}{{ c.function.name }}{% endfor %}",
            "a tool call of message 2.*'town'",
        ),
        (
            TOOLS + "{% for c in m.tool_calls %}{{ c.function.name }}"
            "{% for k, v in c.function.arguments.items() %}{{ k }}{% endfor %}{% endfor %}",
            "a tool call.*'Bern'",
        ),
        (
            "{{ (tools[:1] | tojson) if tools and loop.first }}{{ m.content }}"
            "{{ m.tool_calls | tojson if m.tool_calls }}",
            "the tool 'ask'",
        ),
        (TOOLS + "{{ m.tool_calls | tojson if m.tool_calls }}", None),
        (TOOLS + "{{ {'calls': m.tool_calls | tojson} | tojson if m.tool_calls }}", None),
        (TOOLS + "{{ m.tool_calls if m.tool_calls }}", None),
        (
            TOOLS + "{% for c in m.tool_calls %}{{ c.function.name }}(" + "{% for k, v in"
            " c.function.arguments | items %}{{ k }}={{ v }}, {% endfor %}){% endfor %}",
            None,
        ),
    ],
)
def test_of_calls_and_tools_every_name_and_text_is_written(body, lost):
    mine = template(body)
    for _ in range(2):
        if lost is None:
            assert mine.render(CALLED, "a:1").turns
        else:
            with pytest.raises(DataError, match=lost):
                mine.render(CALLED, "a:1")


def test_a_thought_is_whole_where_its_turn_is_trained():
    thought = "{{ m.reasoning_content[:4] if m.reasoning_content }}"
    talk = Chat((Message("user", "a"), Message("assistant", "b", 1.0, {"reasoning": "so it is"})))
    with pytest.raises(DataError, match=r"the reasoning of message 2 .*: 't is' would be lost"):
        template(thought + "{{ m.content }}").render(talk, "a:1")
    inside = Chat((Message("user", "a"), Message("assistant", "so <think>it is</think> b")))
    split = "{{ m.content.split('<think>')[-1] }}"
    with pytest.raises(DataError, match=r"the content of message 2 .*: 'so' would be lost"):
        template(split).render(inside, "a:1")


def test_the_beginnings_of_earlier_answers_may_be_dropped_but_not_their_ends():
    """They are thoughts, however a template marks them."""
    talk = Chat(
        tuple(
            Message(role, text)
            for role, text in [
                ("user", "a"),
                ("assistant", "[hm] yes"),
                ("user", "b"),
                ("assistant", "[hm] no"),
            ]
        )
    )
    ends = "{{ m.content if loop.last else m.content.split(']')[-1] }}"
    for _ in range(2):
        rendered = template(ends).render(talk, "a:1")
        assert len(rendered.others) == 1 and "[hm]" in rendered.others[0].text
    with pytest.raises(DataError, match=r"the content of message 2 .*: 'yes' would be lost"):
        template(ends.replace("[-1]", "[0]")).render(talk, "a:1")


def test_a_prompt_holds_what_was_said():
    mine = template("{{ m.content[:5] }}")
    with pytest.raises(DataError, match=r"a:1: .* message 1 \(user\).*: ' there' would be lost"):
        mine.prompt((Message("user", "Hello there"),), "a:1")
    assert mine.prompt((Message("user", "Hello"),), "a:1")
    free = template("{{ m.content[:5] }}", allow_unwritten=True)
    assert free.prompt((Message("user", "Hello there"),), "a:1")


def test_a_real_template_drops_thoughts_of_earlier_turns_only():
    tokenizer = Tokenizer.load(real("tok_minimind"))
    mine = Template.of(tokenizer, variables={"open_thinking": True})
    talk = [Message("user", "a"), Message("assistant", "<think>\nhm\n</think>\n\nyes it is")]
    talk += [Message("user", "b"), Message("assistant", "<think>\nso\n</think>\n\nno it is not")]
    for _ in range(2):
        rendered = mine.render(Chat(tuple(talk)), "a:1")
        assert sorted(turn[2] for one in (rendered, *rendered.others) for turn in one.turns) == [
            1,
            3,
        ]
