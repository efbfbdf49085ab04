import dataclasses
import json
import shlex

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from jaxsft.data.chat.templates import DEFAULT_TEMPLATE, DEFAULT_TOKENS, Template
from jaxsft.data.formats import read
from jaxsft.data.records import Chat, Message
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError, DataError
from jaxsft.tasks.chat import ChatSFT
from tests import conftest
from tests.realdata import real

BYTES = Tokenizer.bytes()
PAD, BOS, END, SYSTEM, USER, ASSISTANT, TOOL = range(256, 263)
DEFAULT = Template.default(BYTES)
TURN = (
    "{% for m in messages %}<|user|>{{ X }}<|end|>{% endfor %}{% if add_generation_prompt"
    " %}<|user|>{% endif %}"
)


def chat(*texts, **extra):
    """user, assistant, user, assistant ... of these contents; `extra` goes to the last."""
    messages = [
        Message("assistant" if index % 2 else "user", text) for index, text in enumerate(texts)
    ]
    return Chat((*messages[:-1], Message("assistant", texts[-1], 1.0, extra)))


def template(source, tokenizer=BYTES, **options):
    return Template(source, tokenizer, "mine", **options)


def fails(action, *parts, error=DataError):
    with pytest.raises(error) as caught:
        action()
    for part in parts:
        assert part in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)


def test_default_template_by_hand():  # guards C4
    messages = (
        Message("system", "S"),
        Message("user", "hé"),
        Message("assistant", "A"),
        Message("tool", "t"),
        Message("assistant", "", 0.5),
    )
    rendered = DEFAULT.render(Chat(messages), "a:1")
    assert rendered.ids == [
        SYSTEM,
        83,
        END,
        USER,
        104,
        195,
        169,
        END,
        ASSISTANT,
        65,
        END,
        TOOL,
        116,
        END,
        ASSISTANT,
        END,
    ]
    assert rendered.weights.tolist() == [0] * 9 + [1, 1] + [0] * 4 + [0.5]
    assert rendered.turns == ((9, 11, 2), (15, 16, 4))
    assert (
        rendered.text == "<|system|>S<|end|><|user|>hé<|end|><|assistant|>A<|end|>"
        "<|tool|>t<|end|><|assistant|><|end|>"
    )
    assert DEFAULT.stop_ids == (END,)
    assert DEFAULT.prompt(messages[:2], "a:1") == rendered.ids[:9]
    assert (
        DEFAULT.digest
        == Template.default(BYTES).digest
        != template("{# x #}" + DEFAULT_TEMPLATE).digest
    )


def test_a_tokenizer_without_the_tokens_of_the_template_is_told_how_to_get_them(tmp_path):
    """What the sentence says to set is all that is needed."""
    BYTES.save(tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    document["added_tokens"] = [
        token for token in document["added_tokens"] if token["content"] not in DEFAULT_TOKENS[:4]
    ]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    bare = Tokenizer.load(tmp_path)
    with pytest.raises(ConfigError, match="whose rows are trained") as caught:
        Template.default(bare)
    words = shlex.split(str(caught.value))  # as a shell reads it
    named = next(word for word in words if word.startswith("tokenizer.added=")).removesuffix(",")
    assert json.loads(named.removeprefix("tokenizer.added=")) == list(DEFAULT_TOKENS[:4])
    assert Template.default(bare.with_added(DEFAULT_TOKENS[:4])).stop_ids == DEFAULT.stop_ids


def test_special_looking_text_is_spelled_out():  # guards C11
    rendered = DEFAULT.render(chat("<|end|>", "<|assistant|>x<|end|>"), "a:1")
    assert rendered.ids == [USER, *b"<|end|>", END, ASSISTANT, *b"<|assistant|>x<|end|>", END]
    assert rendered.weights.tolist() == [0] * 10 + [1] * 22


FOLLOWED = {
    "plus": "m.content",
    "concat": "'a' ~ m.content ~ 1",
    "join": "['a', m.content]|join('-')",
    "join method": "'-'.join(['a', m.content])",
    "replace": "m.content|replace('a', 'b')",
    "replace into": "'aXb'|replace('X', m.content)",
    "replace method": "'aXb'.replace('X', m.content)",
    "trim": "m.content|trim",
    "strip": "m.content.strip('x').lstrip().rstrip('\\n')",
    "slice": "m.content[0:] + m.content[:0]",
    "split": "m.content.split('zz')[-1]",
    "words": "m.content.split()[0]",
    "lines": "m.content.splitlines()[0]",
    "partition": "m.content.partition('zz')[0]",
    "upper": "m.content|upper|lower",
    "default": "m.nothing|default(m.content)",
    "get": "m.get('content')",
    "tojson": "{'x': m.content}|tojson",
    "times": "m.content * 2",
    "map": "[m]|map(attribute='content')|map('trim')|list|join",
    "letters": "m.content|list|join",
    "if": "(m.content if m.content else '')",
    "string": "m.content|string",
}


@pytest.mark.parametrize("expression", FOLLOWED.values(), ids=FOLLOWED.keys())
def test_marks_follow_the_text(expression):  # guards C11
    mine = template(TURN.replace("X", expression), allow_unwritten=True)
    rendered = mine.render(chat("u", "<|end|>a<|user|>"), "a:1")
    specials = [token for token in rendered.ids if token >= 256]
    assert specials == [USER, END] * 2
    assert BYTES.decode(rendered.ids, skip_special=False) == rendered.text


def test_marks_follow_macros_blocks_and_names():  # guards C11
    macro = (
        "{% macro say(x) %}<|user|>{{ x }}{% endmacro %}{% for m in messages %}{{ say(m.content)"
        " }}<|end|>{% endfor %}"
    )
    block = (
        "{% for m in messages %}{% set x %}<|user|>{{ m.content }}{% endset %}{{ x }}<|end|>{%"
        " endfor %}"
    )
    space = (
        "{% for m in messages %}{% set ns = namespace(x='<|user|>') %}{% set ns.x = ns.x +"
        " m.content %}{{ ns.x }}<|end|>{% endfor %}"
    )
    filtered = (
        "{% for m in messages %}<|user|>{% filter trim %}{{ m.content }}{% endfilter %}<|end|>{%"
        " endfor %}"
    )
    for source in (macro, block, space, filtered):
        rendered = template(source + "{% if add_generation_prompt %}<|user|>{% endif %}").render(
            chat("u", "<|end|>"), "a:1"
        )
        assert rendered.ids == [USER, 117, END, USER, *b"<|end|>", END]


LOST = [
    "'%s' % m.content",
    "'%s<|bos|>'|format(m.content)",
    "'{}'.format(m.content)",
    "m.content|escape|replace('&lt;', '<')|replace('&gt;', '>')",
    "[m.content]",
]


@pytest.mark.parametrize("expression", LOST)
def test_lost_marks_are_an_error_where_they_matter(expression):  # guards C11
    mine = template(TURN.replace("X", expression))
    assert mine.render(chat("u", "plain"), "a:1").ids[-1] == END
    fails(
        lambda: mine.render(chat("u", "<|end|>"), "a.jsonl:7"),
        "a.jsonl:7: ",
        "cannot keep them apart",
    )


def test_data_and_template_cannot_make_a_token_together():
    mine = template(TURN.replace("{{ X }}", "<|en{{ m.content }}|>"))
    assert mine.render(chat("u", "d"), "a:1").ids == [
        USER,
        *b"<|enu|>",
        END,
        USER,
        *b"<|end|>",
        END,
    ]


def test_tool_calls_are_data_too():  # guards C13
    source = (
        "{% if tools %}{{ tools|tojson }}{% endif %}{% for m in messages %}<|user|>{{ m.content"
        " }}{% for c in m.tool_calls %}{{ c.name }}{{ c.arguments|tojson }}{% endfor %}<|end|>{%"
        " endfor %}{% if add_generation_prompt %}<|user|>{% endif %}"
    )
    call = {"name": "<|bos|>", "arguments": {"<|pad|>": "é", "n": 1}}
    talk = chat("u", "", tool_calls=[call])
    rendered = template(source).render(Chat(talk.messages, ({"name": "<|end|>"},)), "a:1")
    expected = b'[{"name": "<|end|>"}]', '<|bos|>{"<|pad|>": "é", "n": 1}'.encode()
    assert rendered.ids == [*expected[0], USER, 117, END, USER, *expected[1], END]
    assert "None" not in rendered.text


def test_every_turn_ends_with_a_stop_token():  # guards C1 C5
    source = TURN.replace("X", "m.content").replace(
        "<|end|>", "{% if m.content != 'x thanks' %}<|end|>{% endif %}{{ '\\n' }}"
    )
    mine = template(source)
    assert mine.stop_ids == (END,)
    # the line break after the stop token is not trained
    assert mine.render(chat("u", "a"), "a:1").weights.tolist()[-3:] == [1, 1, 0]
    fails(
        lambda: mine.render(chat("u", "x thanks"), "data.jsonl:117"),
        "data.jsonl:117: the last trained token is not a stop token",
        "'<|end|>'",
        "data.require_stop=false",
    )
    assert (
        template(source, require_stop=False)
        .render(chat("u", "x thanks"), "a:1")
        .weights.tolist()[-9:]
        == [1.0] * 9
    )
    for endless in (
        "{% for m in messages %}<|user|>{{ m.content }}\n{% endfor %}",
        "{% for m in messages %}<|end|>{{ m.content }}{% endfor %}",
    ):
        silent = template(endless)
        # it may answer, until the tokens run out
        assert silent.stop_ids == () and silent.prompt((Message("user", "u"),), "a:1")
        fails(
            lambda: silent.render(chat("u", "a"), "a:1"),
            "expected a special token",
            "data.require_stop=false",
            error=ConfigError,
        )


def test_prompt_that_is_no_prefix_names_the_row():  # guards C9
    source = (
        "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}{% if"
        " add_generation_prompt %}<|user|>P{% endif %}"
    )
    assert template(source).prompt((Message("user", "u"),), "a:1") == [USER, 117, END, USER, 80]
    fails(
        lambda: template(source).render(chat("u", "a"), "a.jsonl:3"), "a.jsonl:3: ", "is no prefix"
    )
    mine = template(source.replace("P{%", "{% if messages[0].content == 'q' %}P{% endif %}{%"))
    assert mine.render(chat("u", "a"), "a:1").ids[-1] == END
    fails(
        lambda: mine.render(chat("q", "a"), "a.jsonl:3"),
        "a.jsonl:3: ",
        "prompt of message 2 is no prefix",
        "'P'",
    )


# guards C9 C10
def test_a_turn_that_is_rewritten_when_others_follow_is_trained_as_it_is_generated():
    """Each turn is trained once, behind the text that generation puts before it."""
    thought = "{{ m.content if loop.last else m.content.split('/')[-1] }}"
    source = TURN.replace("{{ X }}", thought)
    marked = (
        "{% for m in messages %}<|user|>{% if m.role == 'assistant' %}{% generation %}"
        + thought
        + "<|end|>{% endgeneration %}{% else %}{{ m.content }}<|end|>{% endif %}{% endfor %}{% if"
        " add_generation_prompt %}<|user|>{% endif %}"
    )
    for one in (source, marked):
        mine = template(one)
        assert mine.render(chat("u", "a", "u", "t/b"), "a:1").turns == ((4, 6, 1), (10, 14, 3))
        talk = chat("u", "t/a", "u", "t/b")
        for _ in range(2):  # the second time from the learnt layout
            rendered = mine.render(talk, "a:1")
            assert (
                rendered.text
                == "<|user|>u<|end|><|user|>a<|end|><|user|>u<|end|><|user|>t/b<|end|>"
                and rendered.turns == ((10, 14, 3),)
            )
            (first,) = rendered.others
            assert first.text == "<|user|>u<|end|><|user|>t/a<|end|>" and first.turns == (
                (4, 8, 1),
            )
            for text in (rendered, first):
                assert all(
                    mine.prompt(talk.messages[:index], "a:1") == text.ids[:start]
                    for start, _, index in text.turns
                )
        half = Chat(
            (
                talk.messages[0],
                dataclasses.replace(talk.messages[1], weight=0.0),
                *talk.messages[2:],
            )
        )
        assert (
            mine.render(half, "a:1").others == () and mine.render(half, "a:1").ids == rendered.ids
        )


MARKED = (
    "{% for m in messages %}<|user|>{% if m.role == 'assistant' %}Y{% else %}{{ m.content"
    " }}<|end|>{% endif %}{% endfor %}"
)


def marked(body, prompt="<|user|>", **options):
    return template(
        MARKED.replace("Y", body) + "{% if add_generation_prompt %}" + prompt + "{% endif %}",
        **options,
    )


def test_generation_marks():  # guards C7
    body = "{% generation %}{{ m.content }}<|end|>\n{% endgeneration %}"
    rendered = marked(body).render(chat("u", "a", "v", "b"), "a:1")
    assert rendered.turns == ((4, 6, 1), (11, 13, 3)) and rendered.ids[6] == 10
    fails(
        lambda: marked(
            "{% if m.content == 'b' %}" + body + "{% else %}{{ m.content }}<|end|>{% endif %}"
        ).render(chat("u", "a"), "a:1"),
        "marks 0 regions",
    )
    fails(
        lambda: marked("\n\n" + body).render(chat("u", "a"), "a:1"),
        "let {% generation %} begin where",
    )
    everything = "{% generation %}{{ messages[-1].content }}<|end|>{% endgeneration %}"
    fails(
        lambda: template("{% if messages|length > 1 %}" + everything + "{% endif %}").render(
            chat("u", "a"), "a:1"
        ),
        "so there is no prompt",
    )


def test_a_prompt_that_reaches_into_the_trained_region():  # guards C9
    mine = marked("{% generation %}T{{ m.content }}<|end|>{% endgeneration %}", "<|user|>T")
    talk = chat("u", "a", "v", "b")
    rendered = mine.render(talk, "a:1")
    assert rendered.turns == ((5, 7, 1), (12, 14, 3))  # what the prompt gives is not trained
    assert [
        mine.prompt(talk.messages[:turn], "a:1") == rendered.ids[:start]
        for start, _, turn in rendered.turns
    ] == [True, True]


def test_the_prompt_of_every_trained_turn_is_checked():  # guards C9 C10
    """A template that adds to the last question writes the first answer after another prompt than
    generation sees.
    """
    body = "{% generation %}{{ m.content }}<|end|>{% endgeneration %}"
    asks = "{{ m.content }}{% if loop.index0 == last.index %} /short{% endif %}<|end|>"
    source = (
        "{% set last = namespace(index=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set"
        " last.index = loop.index0 %}{% endif %}{% endfor %}"
    )
    mine = template(
        source
        + MARKED.replace("{{ m.content }}<|end|>", asks).replace("Y", body)
        + "{% if add_generation_prompt %}<|user|>{% endif %}"
    )
    assert mine.render(chat("u", "a"), "a:1").text == "<|user|>u /short<|end|><|user|>a<|end|>"
    talk = chat("u", "a", "v", "b")
    assert [one.text for one in mine.render(talk, "a:1").others] == [
        "<|user|>u /short<|end|><|user|>a<|end|>"
    ]
    untrained = dataclasses.replace(talk.messages[1], weight=0.0)
    assert (
        mine.render(Chat((talk.messages[0], untrained, *talk.messages[2:])), "a:1").turns[-1][2]
        == 3
    )
    # What is not trained is not asked.
    asked = marked(body, "<|user|>{% if messages[0].content == 'q' %}P{% endif %}")
    last = lambda question, weight: Chat(
        (Message("user", question), Message("assistant", "a", weight))
    )
    assert (
        asked.render(last("u", 1.0), "a:1").turns == ((4, 6, 1),)
        and asked.render(last("q", 0.0), "a:1").turns == ()
    )
    fails(
        lambda: asked.render(last("q", 1.0), "a:1"),
        "the generation prompt of message 2 is no prefix",
        "'P'",
    )


def test_what_a_template_leaves_out_is_an_error():  # task.allow_unwritten
    calls, tools = (
        [{"type": "function", "function": {"name": "f", "arguments": {}}}],
        ({"type": "function", "function": {"name": "f"}},),
    )
    called = Chat((Message("user", "w?"), Message("assistant", "", 1.0, {"tool_calls": calls})))
    fails(
        lambda: DEFAULT.render(called, "a:1"),
        "a:1: ",
        "does not write the tool calls of message 2",
        "task.allow_unwritten=true",
    )
    fails(
        lambda: DEFAULT.render(Chat(chat("u", "a").messages, tools), "a:1"),
        "does not write the tools",
    )
    silent = DEFAULT_TEMPLATE.replace(
        "{% for m in messages %}", "{% for m in messages if m.role != 'system' %}"
    )
    talk = Chat((Message("system", "a"), *chat("aa", "a").messages))
    fails(
        lambda: template(silent).render(talk, "a:1"),
        "does not write the content of message 1 (system)",
    )
    assert (
        template(silent, allow_unwritten=True).render(talk, "a:1").ids
        == DEFAULT.render(chat("aa", "a"), "a:1").ids
    )
    either = DEFAULT_TEMPLATE.replace(
        "{% generation %}{{ m.content }}",
        "{% generation %}{{ (m.tool_calls | tojson) if m.tool_calls else m.content }}",
    )
    both = Chat(
        (
            Message("user", "w?"),
            Message("assistant", "I will look it up.", 1.0, {"tool_calls": calls}),
        )
    )
    fails(lambda: template(either).render(both, "a:1"), "does not write the content of message 2")
    assert template(either).render(called, "a:1").turns
    # what stands in for a content differs from it
    named = Chat((Message("user", " 0 ", 1.0, {"name": "x"}), Message("assistant", "b")))
    assert (
        template(DEFAULT_TEMPLATE.replace("{{ m.content }}", "{{ m.content | trim }}"))
        .render(named, "a:1")
        .turns
    )
    # blank is nothing to lose
    assert DEFAULT.render(Chat((Message("system", " "), *chat("u", "").messages)), "a:1").turns
    fails(
        lambda: template(DEFAULT_TEMPLATE, variables={"enable_thinkin": True}),
        "reads no enable_thinkin",
        error=ConfigError,
    )


def test_at_most_one_bos():  # guards C6
    once = template("{{ bos_token }}" + TURN.replace("X", "m.content"))
    assert once.render(chat("u", "<|bos|>", "v", "b"), "a:1").ids.count(BOS) == 1
    assert DEFAULT.render(chat("u", "a"), "a:1").ids.count(BOS) == 0
    twice = template(
        "<|bos|>{% if messages[0].content == 'q' %}<|bos|>{% endif %}"
        + TURN.replace("X", "m.content")
    )
    fails(lambda: twice.render(chat("q", "a"), "a:1"), "more than one BOS")
    fails(
        lambda: template("<|bos|><|bos|>" + TURN.replace("X", "m.content")).prompt(
            (Message("user", "u"),), "a:1"
        ),
        "more than one BOS",
    )
    later = template(
        TURN.replace("X", "m.content").replace(
            "<|end|>", "<|end|>{% if m.content == 'q' %}<|bos|>{% endif %}"
        )
    )
    assert later.render(chat("q", "a"), "a:1").ids.count(BOS) == 1
    fails(lambda: later.render(chat("q", "a", "q", "a"), "a:1"), "more than one BOS")
    each = template(
        TURN.replace("X", "m.content")
        .replace("<|user|>{{", "<|bos|>{{")
        .replace("%}<|user|>", "%}<|bos|>")
    )
    # a template that begins every turn with it
    assert each.render(chat("u", "a", "v", "b"), "a:1").ids.count(BOS) == 4


HOSTILE = {
    "range": "{% for i in range(1000000000) %}{% endfor %}",
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "times": "{{ 'a' * 1000000000 }}",
    "power": "{{ 10 ** (10 ** 8) }}",
    "width": "{{ '%1000000000d' % 1 }}",
    "format": "{{ '{:1000000000}'.format('a') }}",
    "center": "{{ 'a'|center(1000000000) }}",
    "doubling": (
        "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x"
        " %}{% endfor %}"
    ),
    "recursion": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "attribute": "{{ messages.__class__.__mro__ }}",
    "import": "{{ ''.__class__.__base__.__subclasses__() }}",
    "mutation": "{{ messages.append(1) }}",
    "bytes": "{{ messages[0].content.encode().decode() }}",
    "division": "{{ 1 // 0 }}",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_template_can_do_no_harm(source):
    guarded = (
        "{% if messages[0].content == 'q' %}"
        + source
        + "{% endif %}"
        + TURN.replace("X", "m.content")
    )
    fails(
        lambda: template(guarded).render(chat("q", "a"), "a.jsonl:1"), "a.jsonl:1: template 'mine'"
    )


def test_errors_of_the_template():
    raising = (
        "{% if messages[0].content == 'q' %}{{ raise_exception('no q, please') }}{% endif %}"
        + TURN.replace("X", "m.content")
    )
    fails(
        lambda: template(raising).render(chat("q", "a"), "a:1"),
        "a:1: template 'mine': no q, please",
    )
    fails(lambda: template("{{ raise_exception('never') }}"), "never", error=ConfigError)
    fails(lambda: template("\n{% if %}"), "template 'mine', line 2", error=ConfigError)
    fails(lambda: Template.of(BYTES), "no chat_template", error=ConfigError)
    loop = (
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}<|user|>{{"
        " m.content }}<|end|>{% endfor %}"
    )
    assert template(loop + "{% if add_generation_prompt %}<|user|>{% endif %}").stop_ids == (END,)


def test_tokens_that_swallow_white_space(tmp_path):
    BYTES.save(tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    for token in document["added_tokens"]:
        token["rstrip"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    mine = template(
        "{% for m in messages %}<|user|>\n{{ m.content }}<|end|>\n{% endfor %}{% if"
        " add_generation_prompt %}<|user|>\n{% endif %}",
        Tokenizer.load(tmp_path),
    )
    tight = template(TURN.replace("X", "m.content"), Tokenizer.load(tmp_path))
    assert tight.render(chat(" u", " a"), "a:1").ids == [USER, 117, END, USER, 32, 97, END]
    for _ in range(2):  # that of a question too, as in Hugging Face, but never that of an answer
        assert mine.render(chat(" u", " a"), "a:1").ids == [USER, 117, END, USER, 32, 97, END]
        assert mine.render(chat("u", "a"), "a:1").ids == [USER, 117, END, USER, 97, END]


# as Mistral's and Zephyr's: an answer begins in the middle of a text, or behind a line break
LLAMA = (
    (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}"
        " [/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    ),
    (
        "{% for m in messages %}<{{ m.role }}>\n{{ m.content }}{{ eos_token }}\n{% endfor %}{% if"
        " add_generation_prompt %}<assistant>\n{% endif %}"
    ),
)


def metaspace(scheme):
    """stories260K as `LlamaTokenizer` with `legacy=false` is written: the space is the
    pre-tokenizer's.
    """

    def change(document):
        step = {
            "type": "Metaspace",
            "replacement": "\u2581",
            "prepend_scheme": scheme,
            "split": False,
        }
        return document | {"normalizer": None, "pre_tokenizer": step}

    return change


@pytest.mark.parametrize("source", LLAMA)
@pytest.mark.parametrize(
    "change",
    [lambda document: document, metaspace("first"), metaspace("always"), metaspace("never")],
)
def test_pieces_behind_text_have_no_space_of_their_own(tmp_path, source, change):  # guards C4 C10
    """The ids are those of the whole text, for the tokenizers of Llama and Mistral, which put a
    space before a text.
    """
    stories = real("stories260K_hf")
    (tmp_path / "tokenizer.json").write_text(
        json.dumps(change(json.loads((stories / "tokenizer.json").read_text())))
    )
    (tmp_path / "tokenizer_config.json").write_text((stories / "tokenizer_config.json").read_text())
    mine = template(source, Tokenizer.load(tmp_path))
    talks = [chat("Who is it?", "Lily  was here.", "And now?", "Zoé"), chat(" a\n", "One day")]
    for talk, rendered in zip(talks, mine.render_all(talks, ["a:1", "a:2"]), strict=True):
        assert rendered.ids == oracle_ids(tmp_path, rendered.text)
        prompt = mine.prompt(talk.messages[:-1], "a:1")
        assert rendered.ids[: rendered.turns[-1][0]] == prompt
        written = mine.written(talk, "a:1")
        assert len(written) == len(rendered.ids) and not all(written) and any(written)


def test_a_tokenizer_that_cannot_encode_in_pieces(tmp_path):
    document = json.loads((real("stories260K_hf") / "tokenizer.json").read_text())
    document["normalizer"]["normalizers"].insert(
        0, {"type": "Strip", "strip_left": True, "strip_right": True}
    )
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    (tmp_path / "tokenizer_config.json").write_text(
        (real("stories260K_hf") / "tokenizer_config.json").read_text()
    )
    stripping = Tokenizer.load(tmp_path)
    fails(
        lambda: Template(
            "{% for m in messages %}{{ m.content }}</s>{% endfor %}", stripping, "mine"
        ),
        "encodes text in pieces",
        error=ConfigError,
    )


def test_a_tokenizer_that_folds_case():
    """Its answers could never match a reference with a capital."""
    uncased = Tokenizer.train(["some text to learn from"] * 4, 300, True)
    fails(lambda: Template.default(uncased), "folds case", error=ConfigError)


def test_the_stop_token_is_trained_where_it_pads_too(tmp_path):  # guards C2
    BYTES.save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token": "<|end|>"}))
    tokenizer, records = Tokenizer.load(tmp_path), [chat("u", "a")]
    assert tokenizer.pad_id == END
    config = conftest.make_config("chat")
    task = ChatSFT(config, tokenizer, ChatSFT.fit(config, tokenizer, records, ["a:1"]))
    [encoded] = task.encode_all(records, ["a:1"])
    assert encoded.ids[-2:].tolist() == [97, END] and encoded.weights[-2:].tolist() == [1, 1]


# --- a real template, against independent oracles
# ------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def mini():
    return Tokenizer.load(real("tok_minimind"))


def oracle_text(tokenizer, talk, prompt=False):
    """The text by plain Jinja, without any of our machinery."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    messages = [{"role": m.role, "content": m.content, **m.extra} for m in talk.messages]
    return environment.from_string(tokenizer.chat_template).render(
        messages=messages, tools=list(talk.tools) or None, add_generation_prompt=prompt
    )


def oracle_ids(folder, text):
    """The ids of the whole text at once, special tokens recognised, by the library alone."""
    tokenizers = pytest.importorskip("tokenizers")
    return (
        tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        .encode(text, add_special_tokens=False)
        .ids
    )


def test_real_conversations_agree_with_the_oracles(mini):  # guards C4 C10
    mine = Template.of(mini)
    assert mine.stop_ids == (mini.eos_id,)
    for row in read(real("gsm8k/test.jsonl"))[:40]:
        question, answer = row.fields["question"], row.fields["answer"]
        talk = Chat(
            (Message("system", "Zürich 東京"), *chat(question, answer, question, answer).messages)
        )
        rendered = mine.render(talk, row.where)
        assert rendered.text == oracle_text(mini, talk)
        assert rendered.ids == oracle_ids(real("tok_minimind"), rendered.text)
        assert (
            mini.decode(
                [
                    token
                    for token, weight in zip(rendered.ids, rendered.weights, strict=True)
                    if weight
                ]
            )
            == answer * 2
        )


def test_real_tools(mini):
    mine = Template.of(mini)
    calls = [{"type": "function", "function": {"name": "f", "arguments": {"city": "Bern", "n": 2}}}]
    messages = (
        Message("user", "w?"),
        Message("assistant", "", 1.0, {"tool_calls": calls}),
        Message("tool", "sun"),
        Message("assistant", "ok"),
    )
    talk = Chat(messages, ({"type": "function", "function": {"name": "f"}},))
    rendered = mine.render(talk, "a:1")
    assert rendered.text == oracle_text(mini, talk)
    assert rendered.ids == oracle_ids(real("tok_minimind"), rendered.text)
    assert mini.special_id("<tool_call>") in rendered.ids[slice(*rendered.turns[0][:2])]


def test_real_thoughts_need_a_prompt_that_opens_one(mini):  # guards C9
    talk = chat("u", "<think>\nhm\n</think>\n\na")
    fails(lambda: Template.of(mini).render(talk, "a:1"), "a:1: ", "is no prefix")
    opened = Template.of(mini, variables={"open_thinking": True})
    rendered = opened.render(talk, "a:1")
    assert (
        mini.decode(rendered.ids[slice(*rendered.turns[0][:2])], skip_special=False)
        == "hm\n</think>\n\na<|im_end|>"
    )
    assert rendered.ids.count(mini.special_id("<think>")) == 1
    assert opened.digest != Template.of(mini).digest


words = st.lists(
    st.sampled_from(["<think>", "</think>", "<|im_end|>", "\n", " ", "a", "東", "'s", "  b"]),
    max_size=6,
).map("".join)


@pytest.fixture(scope="module")
def mini_template(mini):
    return Template.of(mini)


@settings(max_examples=60, deadline=None)
@given(st.lists(words, min_size=1, max_size=4))
def test_text_of_the_real_template_is_that_of_plain_jinja(mini, mini_template, texts):
    talk = Chat(
        (
            *(Message("user", text) for text in texts),
            Message("assistant", texts[0].replace("</think>", "")),
        )
    )
    try:
        rendered = mini_template.render(talk, "a:1")
    except DataError as error:  # a thought in the answer
        assert "no prefix" in str(error)
        return
    assert rendered.text == oracle_text(mini, talk)
    assert mini.decode(rendered.ids, skip_special=False) == rendered.text
    written = oracle_text(mini, Chat(tuple(Message(m.role, "") for m in talk.messages)))
    special = set(map(mini.special_id, mini.special_strings))
    assert [i for i in rendered.ids if i in special] == [
        i for i in oracle_ids(real("tok_minimind"), written) if i in special
    ]


def test_jinja_still_joins_its_output_where_we_count_on_it():
    """The marks hang on two documented places of Jinja: `concat` of the environment and
    `finalize`."""
    environment = jinja2.Environment(finalize=lambda value: value)
    environment.concat = lambda pieces: "|".join(pieces)
    assert (
        environment.from_string("a{% set x %}b{{ y }}{% endset %}{{ x }}").render(y="c") == "a|b|c"
    )
