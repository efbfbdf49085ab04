"""Changes chat templates, and tells where writing a conversation differs from Jinja itself, or does
not do what it promises.

    python -m tools.fuzz_templates [cases=1000] [seed=0]

The templates that jaxsft brings are changed in one to four places: tags, names, filters and texts
of others, a program that runs too long, damage. Compiling one and writing conversations with it
ends in ids or in one sentence of ConfigError or DataError, within seconds. With ids, those of a
prompt and of a whole conversation are those of the text that Jinja's own sandbox writes, as Hugging
Face sets it up, and what is trained begins behind the prompt of its turn. A case follows from seed
and number.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import json
import random
import re
import resource
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from jaxsft.data.chat.named_templates import NAMED
from jaxsft.data.chat.named_templates import source as source_of
from jaxsft.data.chat.templates import DEFAULT_TEMPLATE, Template
from jaxsft.data.records import Chat, Message
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError, DataError, JaxsftError
from tools.fuzz import Hang, cut, flip, insert, repeat

SECONDS, LONGEST = 10, 2000  # of the processor, for one conversation; characters
MEGABYTES = 1500  # of the whole process
CONTENTS = ("a", "b c\n", "  \n", "", "<think>x</think>y", "é😀\u2028", "{{ x }}", "'\"\\", "0")
PIECES = (
    *("{%- ", "{% ", "-%}", "%}", "{{ ", "{{- ", "}}", "{#", "#}", "\n", " ", "'", "|", "."),
    *("{% endif %}", "{% endfor %}", "{% else %}", "{% break %}", "{% continue %}"),
    *("{% generation %}", "{% endgeneration %}", "{% raw %}", "{% endraw %}"),
)
STATEMENTS = (
    "{{ m }}",
    "{{ message.content }}",
    "{{ messages[-1].content | trim }}",
    "{{ messages | length }}",
    "{{ messages | tojson }}",
    "{{ messages[0] | tojson(indent=2) }}",
    "{{ message['content'] | upper }}",
    "{{ message.content[::-1] }}",
    "{{ message.content | replace('a', '<|end|>') }}",
    "{{ (message.content ~ 'x') * 3 }}",
    "{{ [message.content, 1, none] | join('-') }}",
    "{{ message.content.split('</think>')[-1] | default('z') }}",
    "{{ loop.index0 }}{{ loop.last }}",
    "{{ namespace(a=1).a }}",
    "{{ '%s|%5d' % (message.role, 3) }}",
    "{{ '{0:>9}'.format(message.role) }}",
    "{{ message.nothing.more }}",
    "{{ raise_exception('no') }}",
    "{{ strftime_now('%Y') }}",
    "{{ bos_token }}",
    "{{ eos_token }}{{ pad_token }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.append(1) }}",
    "{{ range(9) | list | sort(reverse=true) | first }}",
    "{{ 1 / 0 }}",
    "{{ messages | map(attribute='role') | list | unique | join }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
    "{{ {'b': 1, 'a': [true, none, 1.5]} | tojson }}",
    "{{ message.content | e }}{{ '<' | safe }}",
    "{{ message.content | int + 1 }}",
    "{% set message = messages[0] %}",
    "{% set ns = namespace(x=message.content) %}{% set ns.x = ns.x + '!' %}{{ ns.x }}",
    "{% macro f(x, y=1) %}{{ x }}{{ y }}{{ caller is defined }}{% endmacro %}{{ f(2) }}",
    "{% for x in messages if x.role != 'user' %}{{ loop.length }}{% else %}none{% endfor %}",
    "{% for k, v in message.items() %}{{ k }}{% endfor %}",
    "{% for x in range(99999) %}{{ x }}{% endfor %}",
    "{% for x in range(9999) %}{% for y in range(9999) %}{% endfor %}{% endfor %}",
    "{% set x = 'a' * 99999999 %}",
    "{% filter upper %}abc{% endfilter %}",
    "{% call(x) f() %}{% endcall %}",
    "{% include 'x' %}",
    "{% if add_generation_prompt and message is mapping %}<|assistant|>{% endif %}",
    "{% if message.role == 'assistant' and loop.last %}<think>\n{% endif %}",
)
SPECIAL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<start_of_turn>", "<end_of_turn>")
SPECIAL += ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|begin_of_text|>")
SPECIAL += ("<bos>", "[INST]", "[/INST]", "<s>", "</s>", "<think>", "</think>")
TAGS = re.compile(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}", re.DOTALL)


class Generation(Extension):
    """`{% generation %}`, which writes its body."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's own way)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


@functools.cache
def reference() -> ImmutableSandboxedEnvironment:
    """Builds the environment of Hugging Face's chat templates."""

    def fails(message: str) -> None:
        raise TemplateError(message)

    def tojson(x: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(x, ensure_ascii=ensure_ascii, **options)

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = fails
    return made


def texts(source: str, tokenizer: Tokenizer, messages: Sequence[Message], prompt: bool) -> set[str]:
    """Returns what Jinja writes, with contents as texts and as lists of parts."""
    found = set()
    for form in (str, lambda text: [{"type": "text", "text": text}]):
        given = [{"role": m.role, "content": form(m.content)} for m in messages]
        try:
            found.add(
                reference()
                .from_string(source)
                .render(
                    **tokenizer.role_strings(),
                    messages=given,
                    tools=None,
                    documents=None,
                    add_generation_prompt=prompt,
                )
            )
        except Exception:  # whatever a program of a template may raise
            continue
    return found


def changed(rng: random.Random, source: str, others: Sequence[str]) -> str:
    """Returns the template with one thing otherwise."""
    found = list(TAGS.finditer(source))
    how = rng.choice(("piece", "statement", "statement", "drop", "swap", "name", "other", "damage"))
    places = [m.end() for m in found] or [0]
    at = rng.choice(places) if rng.random() < 0.8 else rng.randint(0, len(source))
    if how == "piece":
        return source[:at] + rng.choice(PIECES) + source[at:]
    if how == "statement":
        statement = rng.choice(STATEMENTS)
        loop = re.search(r"for (\w+) in (?:loop_)?messages", source)
        return (
            source[:at]
            + statement.replace("message.", f"{loop[1]}." if loop else "message.")
            + (source[at:])
        )
    if how == "drop" and found:
        one = rng.choice(found)
        return source[: one.start()] + source[one.end() :]
    if how == "swap" and len(found) > 1:
        one, two = sorted(rng.sample(found, 2), key=re.Match.start)
        middle = source[one.end() : two.start()]
        return source[: one.start()] + two[0] + middle + one[0] + source[two.end() :]
    if how == "name":
        words = list(re.finditer(r"\w+", source))
        one, two = rng.choice(words), rng.choice(words)
        return source[: one.start()] + two[0] + source[one.end() :]
    if how == "other":
        other = rng.choice(others)
        tag = rng.choice(TAGS.findall(other))
        return source[:at] + tag + source[at:]
    damage = rng.choice((flip, cut, insert, repeat))
    return damage(rng, source.encode()).decode("utf-8", "replace")


def conversation(rng: random.Random) -> list[Message]:
    """Returns a conversation that ends with the assistant."""
    out = [Message("system", rng.choice(CONTENTS))] if rng.random() < 0.3 else []
    for _ in range(rng.choice((1, 1, 2, 3))):
        out.append(Message("user", rng.choice(CONTENTS)))
        out.append(Message("assistant", rng.choice(CONTENTS)))
    return out


@contextlib.contextmanager
def within() -> Iterator[None]:
    """Raises Hang where what is done needs more than SECONDS of the processor."""

    def ring(*_: Any) -> None:
        raise Hang

    signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def compared(source: str, tokenizer: Tokenizer, rng: random.Random) -> tuple[str, str]:
    """(outcome, what is wrong or "")."""
    try:
        with within():
            ours = Template(source, tokenizer, "t", allow_unwritten=True, require_stop=False)
    except (ConfigError, DataError) as error:
        return _sentence("refused", error)
    outcome = "equal"
    for messages in (conversation(rng) for _ in range(6)):
        try:
            with within():
                prompt = ours.prompt(messages[:-1], "x:1")
                rendered = ours.render(Chat(tuple(messages)), "x:1")
        except JaxsftError as error:
            outcome, wrong = _sentence("refused at a row", error)
            if wrong:
                return outcome, wrong
            continue
        wanted = texts(source, tokenizer, messages[:-1], True)
        if (text := tokenizer.decode(prompt, skip_special=False)) not in wanted:
            return "differs", f"{messages[:-1]}: {text!r}, expected {sorted(wanted)!r}"
        # a template that writes earlier turns otherwise gives a text for each of them
        last = {len(messages)} if not rendered.others else range(1, len(messages) + 1)
        wanted = {w for end in last for w in texts(source, tokenizer, messages[:end], False)}
        for one in (rendered, *rendered.others):
            if (text := tokenizer.decode(one.ids, skip_special=False)) not in wanted:
                return "differs", f"{messages}: {text!r}, expected {sorted(wanted)!r}"
            for turn, of_turn in itertools.groupby(one.turns, key=lambda region: region[2]):
                before = ours.prompt(messages[:turn], "x:1")
                start, _, _ = next(of_turn)
                if one.ids[: len(before)] != before or start < len(before):
                    return "not behind its prompt", f"{messages}: turn {turn} of {one.ids}"
    return outcome, ""


def _sentence(outcome: str, error: JaxsftError) -> tuple[str, str]:
    message = str(error)
    if "\n" in message or len(message) > LONGEST:
        return "no sentence", f"{len(message)} characters: {message[:300]!r}"
    return outcome, ""


def check(source: str, tokenizer: Tokenizer, rng: random.Random) -> tuple[str, str]:
    """As `compared`, with hangs, memory and exceptions."""
    try:
        found = compared(source, tokenizer, rng)
    except Hang:
        return "no end", f"after {SECONDS} s"
    except Exception:
        return "traceback", traceback.format_exc(limit=-3)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return found if used < MEGABYTES else ("memory", f"{used} MB")


def template(seed: int, number: int) -> tuple[str, str, random.Random]:
    """(name of the template that was changed, its source, the dice of the case)."""
    rng = random.Random(f"{seed}/{number}")
    whole = {"default": DEFAULT_TEMPLATE} | {name: source_of(name) for name in NAMED}
    name = rng.choice(sorted(whole))
    source = whole[name]
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        source = changed(rng, source, list(whole.values())) or source
    return name, source, rng


def main(arguments: Sequence[str]) -> int:
    given = dict(argument.split("=", 1) for argument in arguments)
    cases, seed, failed = int(given.get("cases", 1000)), int(given.get("seed", 0)), 0
    counts: collections.Counter[str] = collections.Counter()
    tokenizer = Tokenizer.bytes().with_added(SPECIAL)
    for number in range(cases):
        name, source, rng = template(seed, number)
        outcome, wrong = check(source, tokenizer, rng)
        counts[outcome] += 1
        if wrong:
            failed += 1
            print(f"seed={seed} case {number} ({name}): {outcome}: {wrong.strip()}", flush=True)
    print(f"{cases} cases, {failed} failures: {dict(counts)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
