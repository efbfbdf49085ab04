"""What a template is given beside the conversation, and that it stays with the template where that
leaves the run.
"""

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from jaxsft.data.chat import template_variables
from jaxsft.data.chat.templates import Template
from jaxsft.data.records import Chat, Message
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError

BYTES = Tokenizer.bytes()
TURNS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if"
    " add_generation_prompt %}<|assistant|>{% endif %}"
)
ALWAYS = "<|system|>Today is {{ strftime_now('%Y-%m-%d') }}.<|end|>" + TURNS
IF_CLOCK = (
    "{% if strftime_now is defined %}{% set d = strftime_now('%d %b %Y') %}{% else %}{% set d = '26"
    " Jul 2024' %}{% endif %}"
)
IF_CLOCK += "<|system|>{{ d }}<|end|>" + TURNS
TALK = Chat((Message("user", "a"), Message("assistant", "b")))
ASKED = (Message("user", "a"),)


def text(source, **variables):
    return Template(source, BYTES, "mine", variables=variables).render(TALK, "a:1").text


def test_the_date_is_the_one_that_was_given():
    for _ in range(2):
        assert text(ALWAYS, date="2026-01-31").startswith("<|system|>Today is 2026-01-31.")
        assert text(IF_CLOCK, date="2026-01-31").startswith("<|system|>31 Jan 2026<|end|>")
    # that of the template, which never changes
    assert text(IF_CLOCK).startswith("<|system|>26 Jul 2024")
    with pytest.raises(
        ConfigError,
        match=r"writes the date of today \(strftime_now\).*task.variables=\{date: 2026-01-31\}",
    ):
        Template(ALWAYS, BYTES, "mine")
    with pytest.raises(ConfigError, match="date=tomorrow is no date"):
        Template(ALWAYS, BYTES, "mine", variables={"date": "tomorrow"})
    with pytest.raises(ConfigError, match="reads no date"):
        Template(TURNS, BYTES, "mine", variables={"date": "2026-01-31"})
    with pytest.raises(ConfigError, match="messages is given by each conversation"):
        Template(TURNS, BYTES, "mine", variables={"messages": []})


def elsewhere(source, **given):
    """What another program makes of a template, with a clock of its own."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["strftime_now"] = lambda form: f"another day {form}"
    return environment.from_string(source).render(
        messages=[{"role": "user", "content": "a"}], add_generation_prompt=True, **given
    )


HARD = "a '\"\\ {{ x }} {% y %} {# z #}\n\té東🙂"
SETTINGS = [
    (
        TURNS
        + "{% if thinking is defined %}{% if thinking %}<think>{% else %}</think>{% endif %}{%"
        " endif %}",
        {"thinking": True},
    ),
    (
        TURNS
        + "{% if thinking is defined %}{% if thinking %}<think>{% else %}</think>{% endif %}{%"
        " endif %}",
        {"thinking": False},
    ),
    (TURNS + "{{ thinking }}", {"thinking": None}),
    (TURNS + "{{ mood }}", {"mood": HARD}),
    ("\n  " + TURNS + "{{ mood }}", {"mood": "-3"}),
    ("  {% if mood %}\n  " + TURNS + "{% endif %}", {"mood": "-3"}),
    (TURNS + "{{ level }}", {"level": -3}),
    (TURNS + "{{ level }}", {"level": 0.5}),
    (
        TURNS + "{% for x in some %}{{ x.name }}{{ x.there }}{% endfor %}",
        {"some": [{"name": HARD, "there": True}, {"name": "b", "there": None}]},
    ),
    (ALWAYS, {"date": "2026-01-31"}),
    (IF_CLOCK, {"date": "2026-02-01T10:00"}),
    (IF_CLOCK + "{{ strftime_now('%H %M') }}{{ mood }}", {"date": "2026-02-01T10:30", "mood": "x"}),
]


@pytest.mark.parametrize("source, variables", SETTINGS)
def test_a_template_that_leaves_the_run_writes_the_prompt_of_the_run(source, variables):
    mine = Template(source, BYTES, "mine", variables=variables)
    pinned = template_variables.pinned(source, variables)
    prompt = BYTES.decode(mine.prompt(ASKED, "a:1"), skip_special=False)
    assert elsewhere(pinned) == prompt != elsewhere(source)
    assert elsewhere(pinned, **dict.fromkeys(variables, "another")) == prompt
    assert Template(pinned, BYTES, "again").prompt(ASKED, "a:1") == mine.prompt(ASKED, "a:1")
    assert template_variables.pinned(source, {}) == source


def test_what_cannot_be_written_into_a_template_is_an_error():
    for value in (float("nan"), {1, 2}, b"x"):
        with pytest.raises(ConfigError, match="cannot be written into a template"):
            template_variables.literal(value)
    with pytest.raises(ConfigError, match="a form that it makes up"):
        template_variables.pinned("{{ strftime_now(form) }}", {"date": "2026-01-31"})


def test_marks_of_what_is_trained_do_not_hinder_it():
    source = (
        "{% generation %}{{ strftime_now('%Y') }}{% endgeneration %}{%- generation -%}{%-"
        " endgeneration -%}"
    )
    assert "2026" in template_variables.pinned(source, {"date": "2026-01-31"})
    with pytest.raises(jinja2.TemplateSyntaxError):
        jinja2.Environment().parse(source)
