"""A row that fills a learnt layout must come out as if it had been rendered."""

import dataclasses
import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.data.chat import render_cache
from jaxsft.data.chat.templates import DEFAULT_TEMPLATE, Template
from jaxsft.data.records import Chat, Message
from jaxsft.data.tokenizers.tokenizer import SPECIAL, Tokenizer
from jaxsft.errors import DataError
from tests.realdata import real

BYTES = Tokenizer.bytes()
TRAINED = Tokenizer.train(["user\nassistant\nthe cat sat on the mat </think>"] * 3, 300)
OPEN = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
TURNS = "{% for m in messages %}<|{{ m.role }}|>X<|end|>{% endfor %}" + OPEN
CALLS = (
    "{{ m.content }}{% for c in m.tool_calls %}{% set c = c.function %}[{{ c.name }}{{ ': ' +"
    " c.arguments|tojson }}]{% endfor %}{% if m.note is defined %}({{ m.note }}){% endif %}"
)
# What a template may do with a content; the first are learnt, the others (LOOKS) rendered.
PLACES = {
    "plain": "{{ m.content }}",
    "number of parts": "{{ m.content.split() | length }}{{ m.content }}",
    "trim": "{{ m.content | trim }}",
    "strip": "{{ m['content'].strip('\\n').lstrip() + '\\n' }}",
    "joined": "{{ ['a', m.content] | join(' ') ~ (m.content ~ '!') }}",
    "empty": "{% if m.content %}{{ m.content }}{% else %}(nothing){% endif %}",
    "or": "{{ m.content.strip() or '-' }}",
    "string": (
        "{% if m.content is string and m.content is not none and m.content is not mapping %}{{"
        " m.content }}{% endif %}"
    ),
    "default": "{{ m.nothing | default(m.content) }}{{ m.content | default('x', true) }}",
    "thought": (
        "{% if '</think>' in m.content %}{{ m.content.split('</think>')[-1].lstrip() }}{% else %}{{"
        " m.content }}{% endif %}"
    ),
    "thoughts": "{% for part in m.content.split('</think>') %}({{ part }}){% endfor %}",
    "starts": (
        "{{ m.content[3:] if m.content.startswith('the') and not m.content.endswith(('a', 'b'))"
        " else m.content }}"
    ),
    "same": (
        "{% if m.content == 'a' or m.content in ['b', 'c'] or '\\n' != m.content %}{{ m.content"
        " }}{% endif %}"
    ),
    "macro": (
        "{% macro say(x, y='') %}{{ x }}{{ y }}{% endmacro %}{{ say(m.content, y='!') | trim }}"
    ),
    "set": "{% set x %} {{ m.content }}\n{% endset %}{{ x.strip() }}",
    "filter": "{% filter trim %} {{ m.content }} {% endfilter %}",
    "namespace": "{% set ns = namespace(x='') %}{% set ns.x = ns.x + m.content %}{{ ns.x }}",
    "last": "{{ m.content }}{% if loop.last %}{{ '' }}{% endif %}",
    "between": "<|e{{ m.content }}nd|>",
    "map": "{{ [m] | map(attribute='content') | map('trim') | join }}",
    "first": "{{ messages[0].content if loop.first else m.content }}",
    "calls": CALLS,
    "object": "{{ {'x': m.content, 'y': [1, none]} | tojson }}",
    "calls opened": (
        "{{ m.content }}{% for c in m.tool_calls %}{% for k, v in c.function.arguments.items() %}{{"
        " k }}={{ v }}{% endfor %}{% endfor %}"
    ),
    "tools": (
        "{% if loop.first and tools %}{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}"
        + CALLS
    ),
}
LOOKS = {
    "upper": "{{ m.content | upper }}",
    "replace": "{{ m.content.replace('a', 'b') }}",
    "length": (
        "{% if m.content | length > 3 %}{{ m.content }}{% else %}short {{ m.content }}{% endif %}"
    ),
    "in a constant": "{% if m.content in 'abc' %}abc{% else %}{{ m.content }}{% endif %}",
    "letters": "{% for x in m.content %}{{ x }}{% endfor %}",
    "letter": "{% if m.content and m.content[0] == 'a' %}A{% endif %}{{ m.content }}",
    "other": (
        "{% if m.content == messages[0].content %}{{ m.content }}{% else %}not {{ m.content }}{%"
        " endif %}"
    ),
    "key": "{{ {'a': 'A', 'abc': 'B'}[m.content] }}{{ m.content }}",
    "get": "{{ {'a': 'A'}.get(m.content, 'none') }}{{ m.content }}",
    "sorted": "{{ [m.content, 'b'] | sort | join }}",
    "format": "{{ '%s' | format(m.content) }}",
    "list": "{{ [m.content] }}",
    "json length": (
        "{% if (m | tojson) | length > 70 %}{{ m.content }}{% else %}{{ m.content + '.' }}{%"
        " endif %}"
    ),
    "number": "{{ m.content | int }}{{ m.content }}",
    "times": "{{ m.content * 2 }}",
    "group": "{% for g in [m] | groupby('content') %}{{ g.grouper }}{% endfor %}",
    "sequence": (
        "{% if [m.content] | first is sequence %}{{ m.content }}{% endif %}{{"
        " m.content.count('a') }}"
    ),
}
part = st.sampled_from(
    [*SPECIAL, "<think>", "</think>", "<|", "\n", " ", "a", "b", "the cat", "é", "\U000f0000", "3"]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
content = st.lists(part, max_size=4).map("".join)
values = st.one_of(content, st.integers(-3, 3), st.booleans(), st.none(), st.floats(-1, 1))
objects = st.dictionaries(
    st.sampled_from(["a", "b", "<|end|>"]), values | st.lists(values, max_size=2), max_size=2
)
calls = st.lists(
    st.builds(
        lambda name, given: {"type": "function", "function": {"name": name, "arguments": given}},
        content,
        objects,
    ),
    min_size=1,
    max_size=2,
)


@st.composite
def chats(draw, extras=True):
    messages = [Message("system", draw(content))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 2))):
        extra = {"tool_calls": draw(calls)} if extras and draw(st.booleans()) else {}
        extra |= {"note": draw(content)} if extras and draw(st.booleans()) else {}
        messages += [
            Message("user", draw(content)),
            Message("assistant", draw(content), draw(st.sampled_from([0.0, 0.5, 1.0])), extra),
        ]
    return Chat(tuple(messages), tuple(draw(st.lists(objects, max_size=2))) if extras else ())


def outcome(template, talk):
    try:
        rendered = template.render(talk, "a:1")
    except DataError as error:
        return str(error)
    return rendered.ids, rendered.weights.tolist(), rendered.turns, rendered.text


def rendering(template):
    """A template that renders every row."""
    other = Template(
        template.source,
        template.tokenizer,
        template.name,
        variables=template.variables,
        allow_unwritten=template.allow_unwritten,
    )
    other._layouts.find = lambda talk: None
    return other


def pair(source, tokenizer=TRAINED, **options):
    mine = Template(source, tokenizer, "mine", allow_unwritten=True, **options)
    return mine, rendering(mine)


SOURCES = {
    f"{kind} {name}": TURNS.replace("X", body)
    for kind, bodies in (("place", PLACES), ("look", LOOKS))
    for name, body in bodies.items()
}
SOURCES["default"] = DEFAULT_TEMPLATE
SOURCES["marked"] = DEFAULT_TEMPLATE.replace("{{ m.content }}", PLACES["thought"])
SOURCES["line behind"] = TURNS.replace("X", "{{ m.content|trim }}").replace(
    "<|end|>", "<|end|>{{ '\\n' if not loop.last or add_generation_prompt }}"
)
pair_of = functools.cache(lambda name: pair(SOURCES[name]))


@pytest.mark.parametrize("name", SOURCES)
@settings(max_examples=12, deadline=None)
@given(talks=st.lists(chats(), min_size=1, max_size=4))
def test_a_layout_gives_what_a_render_gives(name, talks):
    learnt, rendered = pair_of(name)
    for talk in talks:
        assert outcome(learnt, talk) == outcome(rendered, talk)


def used(template, talk):
    return template._layouts.find(talk) is not None


@pytest.mark.parametrize("body", PLACES.values(), ids=PLACES.keys())
def test_what_only_places_contents_is_not_rendered(body):
    calls = [{"type": "function", "function": {"name": "f", "arguments": {"n": 1, "city": "Bern"}}}]
    talk = Chat(
        (
            Message("user", "the dog</think> x"),
            Message("assistant", "yes", 1.0, {"tool_calls": calls}),
        ),
        ({"name": "f"},),
    )
    mine, _ = pair(TURNS.replace("X", body))
    assert used(mine, talk)
    runs = []
    mine._environment.run = lambda *args: runs.append(args)
    other = dataclasses.replace(
        talk, messages=(Message("user", "the cow</think> y"), talk.messages[1])
    )
    assert mine.render(other, "a:1").turns and not runs


@pytest.mark.parametrize("body", LOOKS.values(), ids=LOOKS.keys())
def test_what_looks_into_contents_is_rendered(body):
    talk = Chat((Message("user", "abc"), Message("assistant", "abcd")))
    assert not used(pair(TURNS.replace("X", body))[0], talk)


def test_what_a_layout_loses_is_an_error_too():
    once = Template(TURNS.replace("X", "{{ m.content if m.role != 'system' }}"), BYTES, "mine")
    for _ in range(2):
        with pytest.raises(DataError, match="does not write the content of message 1"):
            once.render(
                Chat((Message("system", "s"), Message("user", "u"), Message("assistant", "a"))),
                "a:1",
            )
        assert once.render(
            Chat((Message("system", " "), Message("user", "u"), Message("assistant", "a"))), "a:1"
        ).turns


def test_paths_are_bounded():
    body = (
        "{% for letter in 'abcdefgh' %}{% if letter in m.content %}{{ letter }}{% endif %}{% endfor"
        " %}{{ m.content }}"
    )
    mine, plain = pair(TURNS.replace("X", body))
    texts = [
        "".join(letter for i, letter in enumerate("abcdefgh") if number >> i & 1)
        for number in range(200)
    ]
    talks = [Chat((Message("user", "u"), Message("assistant", text))) for text in texts]
    assert [outcome(mine, talk) for talk in talks] == [outcome(plain, talk) for talk in talks]
    assert sum(mine._layouts._paths.values()) == render_cache.PATHS


# --- a real template
# --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def minimind():
    mine = Template.of(Tokenizer.load(real("tok_minimind")), allow_unwritten=True)
    return mine, rendering(mine)


@pytest.fixture(scope="module")
def thinking():
    mine = Template.of(Tokenizer.load(real("tok_minimind")), variables={"open_thinking": True})
    return mine, rendering(mine)


@settings(max_examples=40, deadline=None)
@given(talk=chats())
def test_a_real_template_gives_what_a_render_gives(minimind, thinking, talk):
    assert outcome(minimind[0], talk) == outcome(minimind[1], talk)
    assert outcome(thinking[0], talk) == outcome(thinking[1], talk)


def test_a_real_template_is_learnt(minimind, thinking):
    calls = [{"type": "function", "function": {"name": "f", "arguments": {"city": "Bern", "n": 2}}}]
    tools = ({"type": "function", "function": {"name": "f"}},)
    messages = (
        Message("user", "w?"),
        Message("assistant", "", 1.0, {"tool_calls": calls}),
        Message("tool", "sun"),
        Message("assistant", "ok"),
    )
    assert used(minimind[0], Chat(messages)) and used(minimind[0], Chat(messages, tools))
    thought = Chat((Message("user", "w?"), Message("assistant", "<think>\nhm\n</think>\n\na")))
    assert used(thinking[0], thought) and not used(minimind[0], thought)
