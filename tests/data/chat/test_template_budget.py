"""The budget of a template: whatever a program makes or touches is paid for before it happens."""

import re
import tracemalloc

import pytest
from jinja2 import TemplateSyntaxError
from jinja2.sandbox import SecurityError

from jaxsft.data.chat import template_budget as budget
from jaxsft.data.chat import template_prices as prices
from jaxsft.data.chat.template_environment import Environment
from jaxsft.errors import DataError

B = "{% set b = 'a' * 100000 %}"
L = "{% set l = range(20000) | list %}"
GROW = "{% set n = namespace(l=[1]) %}{% for i in range(60) %}"
LOOP = "{% for i in range(100000) %}"
END = "{% endfor %}"
MEMORY = {
    "join of copies": "{% set x = (['a' * 100000] * 20000) | join %}",
    "join by a long text": B + "{% set x = range(20000) | join(b) %}",
    "method join": B + "{% set x = b.join(['a'] * 20000) %}",
    "join of letters": B + "{% set x = (b * 9) | join(b) %}",
    "join of an attribute": B + "{% set x = ([{'k': b}] * 20000) | join(attribute='k') %}",
    "tabs": "{% set x = ('\\t' * 1000000).expandtabs(2000) %}",
    "width from an argument": "{% set x = '{0:{1}}'.format(1, '1000000000') %}",
    "width in a format": "{% set x = '{:99999}'.format(1) * 1000000 %}",
    "fields of a format": B + "{% set x = ('{0}' * 20000).format(b) %}",
    "width of %": "{% set x = '%99999d' % 1 %}{% set y = ('%99999d' * 9000) % ((1,) * 9000) %}",
    "star of %": "{% set x = '%*d' % (1000000000, 1) %}",
    "filter format": B + "{% set x = ('%s' * 20000) | format(b) %}",
    "precision": "{% set x = '%.99999f' % 1.5 %}{% set x = ('%.99999f' * 900) % ((1.5,) * 900) %}",
    "lists": GROW + "{% set n.l = n.l + n.l %}" + END,
    "texts": (
        "{% set n = namespace(l='a') %}{% for i in range(60) %}{% set n.l = n.l + n.l %}" + END
    ),
    "tilde": (
        "{% set n = namespace(l='a') %}{% for i in range(60) %}{% set n.l = n.l ~ n.l %}" + END
    ),
    "blocks": (
        "{% set n = namespace(l='a') %}{% for i in range(60) %}{% set y %}{{ n.l }}{{ n.l }}{%"
        " endset %}{% set n.l = y %}" + END
    ),
    "output": B + "{% for i in range(20000) %}{{ b }}" + END,
    "macro": (
        B
        + "{% macro f() %}{{ b }}{{ b }}{{ b }}{% endmacro %}{% for i in range(9000) %}{{ f() }}"
        + END
    ),
    "times": "{% set x = 'a' * 100000000 %}",
    "times of a list": L + "{% set x = l * 50 %}",
    "times twice": "{% set x = ('a' * 1000000) * 1000 %}",
    "replace": B + "{% set x = b | replace('a', b) %}",
    "method replace": B + "{% set x = b.replace('a', b) %}",
    "replace of nothing": B + "{% set x = b.replace('', b) %}",
    "indent of tojson": "{% set x = [1] * 20000 %}{% set y = x | tojson(indent=99999) %}",
    "indent by a text": B + "{% set y = ([1] * 20000) | tojson(indent=b) %}",
    "separators": B + "{% set y = ([1] * 20000) | tojson(separators=(b, b)) %}",
    "indent": B + "{% set x = ('\\n' * 90000) | indent(99999, true, true) %}",
    "indent by a word": B + "{% set x = ('\\n' * 90000) | indent(b) %}",
    "center": "{% for i in range(90000) %}{% set x = 'a' | center(99999) %}" + END,
    "ljust": "{% for i in range(90000) %}{% set x = 'a'.ljust(99999) %}" + END,
    "zfill": "{% for i in range(90000) %}{% set x = 'a'.zfill(99999) %}" + END,
    "wordwrap": B + "{% set x = b | wordwrap(1, true, b) %}",
    "batch": "{% for i in range(900) %}{% set x = [1] | batch(99999, 'a') | list %}" + END,
    "slice": "{% for i in range(900) %}{% set x = [1] | slice(99999) | list %}" + END,
    "split": B + "{% for i in range(900) %}{% set x = b.split('a') %}" + END,
    "lines": (
        "{% set b = '\\n' * 900000 %}{% for i in range(900) %}{% set x = b.splitlines() %}" + END
    ),
    "letters": B + "{% for i in range(900) %}{% set x = b | list %}" + END,
    "str of a list": GROW + "{% set n.l = [n.l, n.l] %}" + END + "{% set x = n.l | string %}",
    "printed list": GROW + "{% set n.l = [n.l, n.l] %}" + END + "{{ n.l }}",
    "list in a text": GROW + "{% set n.l = [n.l, n.l] %}" + END + "{% set x = 'a' ~ n.l %}",
    "format of a list": GROW + "{% set n.l = [n.l, n.l] %}" + END + "{% set x = '%s' % (n.l,) %}",
    "namespace in itself": (
        "{% set n = namespace() %}{% for i in range(60) %}{% set m = namespace(a=n, b=n) %}{% set"
        " n.x = m %}" + END + "{{ n }}"
    ),
    "objects": (
        "{% set n = namespace(l={}) %}{% for i in range(60) %}{% set n.l = {'a': n.l, 'b': n.l} %}"
        + END
        + "{{ n.l | tojson }}"
    ),
    "numbers": (
        "{% set n = namespace(x=7) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}" + END
    ),
    "sums of numbers": (
        "{% set n = namespace(x=7) %}{% for i in range(100000) %}{% set n.x = n.x + n.x %}" + END
    ),
    "differences": (
        "{% set n = namespace(x=7) %}{% for i in range(100000) %}{% set n.x = n.x - (0 - n.x) %}"
        + END
    ),
    "wide letters": (
        "{% set b = '\\U0001f600' * 1000000 %}{% for i in range(90) %}{% set x = b + '.' %}" + END
    ),
    "escape": "{% set x = ('<' * 900000) | escape | escape | escape %}",
    "upper": "{% set x = ('\\u0149' * 900000).upper().upper() %}",
}
TIME = {
    "in a text": "{% set b = 'a' * 1000000 %}" + LOOP + "{% set x = 'zz' in b %}" + END,
    "not in": "{% set b = 'a' * 1000000 %}" + LOOP + "{% set x = 'zz' not in b %}" + END,
    "test in": "{% set b = 'a' * 1000000 %}" + LOOP + "{% set x = 'zz' is in b %}" + END,
    "list": LOOP + "{% set x = range(100000) | list %}" + END,
    "tojson of shared lists": (
        GROW + "{% set n.l = [n.l, n.l] %}" + END + "{% set x = n.l | tojson %}"
    ),
    "equal lists": (
        GROW
        + "{% set n.l = [n.l, n.l] %}"
        + END
        + "{% set m = namespace(l=[1]) %}{% for i in range(60) %}{% set m.l = [m.l, m.l] %}"
        + END
        + "{% set x = n.l == m.l %}"
    ),
    "compared texts": (
        "{% set b = 'a' * 999999 %}{% set c = 'a' * 999998 ~ 'b' %}"
        + LOOP
        + "{% set x = b < c %}"
        + END
    ),
    "in a list": L + LOOP + "{% set x = 'zz' in l %}" + END,
    "loops": LOOP + "{% for j in range(100000) %}{% endfor %}" + END,
    "long body": LOOP + "{% set x = [" + "1," * 3000 + "] %}" + END,
    "long macro": (
        "{% macro f() %}{% set x = ["
        + "1," * 3000
        + "] %}{% endmacro %}"
        + LOOP
        + "{% set y = f() %}"
        + END
    ),
    "calls": (
        "{% macro f(x) %}{% if x %}{{ f(x - 1) }}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"
    ),
    "index": B + LOOP + "{% set x = b.find('zz') %}" + END,
    "count": B + LOOP + "{% set x = b.count('zz') %}" + END,
    "slices": B + LOOP + "{% set x = b[1:] %}" + END,
    "backwards": B + LOOP + "{% set x = b[::-1] %}" + END,
    "slices of lists": L + LOOP + "{% set x = l[1:] %}" + END,
    "strip": "{% set b = ' ' * 1000000 %}" + LOOP + "{% set x = b.strip() %}" + END,
    "trim": "{% set b = ' ' * 1000000 %}" + LOOP + "{% set x = b | trim %}" + END,
    "isspace": "{% set b = ' ' * 1000000 %}" + LOOP + "{% set x = b.isspace() %}" + END,
    "sort": L + LOOP + "{% set x = l | sort %}" + END,
    "sort of a generator": LOOP + "{% set x = range(100000) | map('string') | sort %}" + END,
    "unique": L + LOOP + "{% set x = l | unique | list %}" + END,
    "groupby": "{% set l = [{'a': 1}] * 9000 %}" + LOOP + "{% set x = l | groupby('a') %}" + END,
    "max": L + LOOP + "{% set x = l | max %}" + END,
    "sum": L + LOOP + "{% set x = l | sum %}" + END,
    "sum of lists": "{% set x = ([[1]] * 90000) | sum(start=[]) %}",
    "select": LOOP + "{% set x = 5 in (range(100000) | select('none')) %}" + END,
    "map": LOOP + "{% set x = range(100000) | map('string') | list %}" + END,
    "reverse": L + LOOP + "{% set x = l | reverse | list %}" + END,
    "changed": L + LOOP + "{% set x = loop.changed(l | list) %}" + END,
    "key of tuples": (
        "{% set n = namespace(l=(1,)) %}{% for i in range(50) %}{% set n.l = (n.l, n.l) %}"
        + END
        + "{% set x = {}.get(n.l) %}"
    ),
    "wordcount": B + LOOP + "{% set x = b | wordcount %}" + END,
    "round": LOOP + "{% set x = 1.5 | round(99999, 'floor') %}" + END,
    "dictsort": (
        "{% set d = dict(a=1, b=2) %}" + LOOP + "{% set x = d | dictsort %}" * 3 + END + LOOP + END
    ),
}
REFUSED = {
    "urlize": "{{ 'a' | urlize }}",
    "pprint": "{{ [1] | pprint }}",
    "random": "{{ [1] | random }}",
    "xmlattr": "{{ {} | xmlattr }}",
    "striptags": "{{ 'a' | striptags }}",
    "size": "word " * 200_000,
    "parts": "{{ a }}" * 25_000,
    "brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "blocks": "{% if a %}" * 3000 + "{% endif %}" * 3000,
    "nested loops": "{% for a in b %}" * 60 + "{% endfor %}" * 60,
    "number": "{{ " + "9" * 5000 + " }}",
    "minus": "{{ " + "-" * 5000 + "1 }}",
}
NEVER = {
    "translate": "{{ 'a'.translate({97: 'b' * 1000}) }}",
    "encode": "{{ 'a'.encode() }}",
    "fromkeys": "{{ {}.fromkeys([1, 2]) }}",
    "maketrans": "{{ 'a'.maketrans('a', 'b') }}",
    "bytes of a number": "{{ (5).to_bytes(99999, 'big') }}",
    "lipsum": "{{ lipsum(n=100) }}",
    "mapped by name": "{{ ['a'] | map('urlize') | list }}",
    "nested": (
        "{% set n = namespace(l=[1]) %}{% for i in range(900) %}{% set n.l = [n.l] %}{% endfor %}{{"
        " n.l | tojson }}"
    ),
}


@pytest.fixture
def environment(monkeypatch):
    """With a small budget: what is refused before it is done costs no more than that."""
    monkeypatch.setattr(budget, "STEPS", 10_000)
    monkeypatch.setattr(budget, "BYTES", 2_000_000)
    return Environment(re.compile("(?!)"))


def run(environment, source, **given):
    variables = {name: environment.given(value) for name, value in given.items()}
    return environment.run(environment.compiled(source), variables, "a.jsonl:1: template 't'")


def refused(environment, source):
    with pytest.raises(DataError, match=r"^a\.jsonl:1: template 't'") as error:
        run(environment, source)
    # refused, and not failed by mistake
    assert "Error" not in str(error.value) or "RecursionError" in str(error.value)


@pytest.mark.parametrize("source", TIME.values(), ids=TIME)
def test_a_program_without_end_is_refused(environment, source):
    refused(environment, source)


@pytest.mark.parametrize("source", MEMORY.values(), ids=MEMORY)
def test_a_program_without_measure_is_refused_before_it_takes_memory(environment, source):
    tracemalloc.start()
    try:
        refused(environment, source)
        assert tracemalloc.get_traced_memory()[1] < 4 * budget.BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("source", NEVER.values(), ids=NEVER)
def test_what_is_not_offered_is_refused_when_it_is_used(environment, source):
    with pytest.raises(DataError, match=r"^a\.jsonl:1: template 't'"):
        run(environment, source)


@pytest.mark.parametrize("source", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_a_template_is_refused_when_it_is_read(environment, source):
    with pytest.raises(TemplateSyntaxError) as error:
        environment.compiled(source)
    assert len(str(error.value.message)) < 500


@pytest.mark.parametrize(
    "source",
    ["{{ " + "(" * 3000, "{{ a" + ".b" * 3000 + " }}", "{% if a %}" * 2000, "a" * 600_000],
    ids=["()", "a.b", "if", "size"],
)
@pytest.mark.parametrize("read", ["compiled", "names", "mentions"])
def test_a_template_is_refused_by_whatever_reads_it_first(environment, read, source):
    with pytest.raises(TemplateSyntaxError, match=r"nests too deep|characters"):
        getattr(environment, read)(source)


def test_a_wrapped_word_pays_for_each_copy_of_its_rest():
    spent = budget.Spent()
    with pytest.raises(SecurityError, match="runs too long"):
        prices.FILTERS["wordwrap"](spent, "a" * 1_000_000, 1)
    spent.reset()
    prices.FILTERS["wordwrap"](spent, "word " * 20_000)


@pytest.mark.parametrize(
    "source, expected",
    [
        (
            (
                "{{ 1 < 2 < 3 }}{{ 1 < 3 < 2 }}{{ 'a' in 'cat' }}{{ 'a' not in [1] }}{{ 1 != 2 }}{{"
                " 2 >= 2 }}"
            ),
            "TrueFalseTrueTrueTrueTrue",
        ),
        ("{{ m[1:] }}{{ m[::-1] }}{{ m[:-1][0] }}{{ m[0] }}{{ [1, 2, 3][1:] }}", "bccbaaa[2, 3]"),
        (
            (
                "{% for x in d.items() if x[0] != 'b' %}{{ loop.index }}{{ x[0] }}={{ x[1] }}{%"
                " else %}none{% endfor %}"
            ),
            "1a=1",
        ),
        (
            (
                "{{ [3, 1, 2] | sort | join(',') }}{{ [1, 1] | unique | list }}{{ d | dictsort |"
                " first }}"
            ),
            "1,2,3[1]('a', 1)",
        ),
        (
            (
                "{{ 'x\ny' | indent(2) }}{{ 'ab'.center(4) }}{{ '%s-%d' % ('a', 3) }}{{"
                " '{:>3}'.format('a') }}"
            ),
            "x\n  y ab a-3  a",
        ),
        (
            (
                "{% macro f(x, y=2) %}{{ x * y }}{{ caller() if caller else '' }}{% endmacro %}{{"
                " f(3) }}{% call f(1) %}!{% endcall %}"
            ),
            "62!",
        ),
        (
            "{{ {'a': [1, {'b': 'é'}]} | tojson(indent=1) }}",
            '{\n "a": [\n  1,\n  {\n   "b": "é"\n  }\n ]\n}',
        ),
        (
            (
                "{{ ['a', 'b'] | map('upper') | list }}{{ [{'k': 1}, {'k': 2}] | selectattr('k',"
                " '>', 1) | list }}"
            ),
            "['A', 'B'][{'k': 2}]",
        ),
        (
            (
                "{% set n = namespace(a=[]) %}{% for i in range(3) %}{% set n.a = n.a + [i] %}{%"
                " endfor %}{{ n.a[-1] }}{{ n.a | length }}"
            ),
            "23",
        ),
        (
            (
                "{% filter upper %}ab{% endfilter %}{{ m.split('b') }}{{ m.replace('b', 'x', 1) |"
                " title }}{{ 'a b' | wordcount }}"
            ),
            "AB['a', 'c']Axc2",
        ),
        (
            (
                "{{ m is string }}{{ m is in ['abc'] }}{{ m == 'abc' }}{{ u is defined }}{{ (m ~ 1"
                " ~ none)[2:] }}"
            ),
            "TrueTrueTrueFalsec1None",
        ),
        (
            (
                "{{ 'a,b'.split(',')[1] }}{{ '\n'.join(['x'] * 3) }}{{ -1 | abs }}{{ 2 ** 10 }}{{"
                " 1.25 | round(1) }}"
            ),
            "bx\nx\nx110241.2",
        ),
    ],
)
def test_what_real_templates_do_is_as_it_was(environment, source, expected):
    assert run(environment, source, m="abc", d={"a": 1, "b": 2}) == expected


QWEN = (
    "{% set ns = namespace(multi=true, last=messages|length - 1) %}{% for m in messages[::-1] %}{%"
    " set index = (messages|length - 1) - loop.index0 %}{% if ns.multi and m.role == 'user' and"
    " m.content is string and not (m.content.startswith('<r>') and m.content.endswith('</r>')) %}{%"
    " set ns.multi = false %}{% set ns.last = index %}{% endif %}{% endfor %}{% for m in messages"
    " %}{% if m.role == 'user' %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>' + '\n' }}{% else"
    " %}{% set content = m.content %}{% set thought = '' %}{% if '</think>' in content %}{% set"
    " thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}{%"
    " set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}{{ '<|a|>\n<think>\n' +"
    " thought.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}{{ '<|end|>\n' }}{% endif"
    " %}{% endfor %}"
)


@pytest.mark.parametrize("letter", ["a", "東"])
def test_a_long_conversation_is_within_the_budget(letter):
    """100 turns of 100 kB, with a template that looks into its contents as those that are published
    do.
    """
    environment, text = Environment(re.compile("(?!)")), letter * (100_000 // len(letter.encode()))
    messages = [
        {"role": role, "content": f"<think>\n{text[:9]}\n</think>\n\n{text}"}
        for _ in range(50)
        for role in ("user", "assistant")
    ]
    assert len(run(environment, QWEN, messages=messages)) > 100 * len(text)
    assert (
        environment.spent.steps < budget.STEPS / 2 and environment.spent.bytes < budget.BYTES / 1.5
    )
