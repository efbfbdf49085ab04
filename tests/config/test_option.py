"""What a declaration says is what is checked: bounds, choices, where an option is read, what it
needs."""

import dataclasses
import math

import pytest

from jaxsft.config import compose, condition, option, overrides, schema, validate
from jaxsft.config.option import declarations
from jaxsft.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Sample:
    kind: str = option.option("a", "a or b", choices=("a", "b"))
    rate: float = option.option(1.0, "a rate", above=0)
    share: float = option.option(0.5, "a share", at_least=0, below=1)
    size: object = option.option("auto", "a size", words=("auto",), what="a size", at_least=1)
    every: str = option.option("1steps", "a duration", duration=True, above=0)
    names: list[str] = option.option([], "names", matches=r".+", what="names that are not empty")
    clip: float = option.option(1.0, "a norm", above=0, at_most=math.inf)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"kind": "c"}, "kind=c: expected one of a, b"),
        ({"rate": 0.0}, "rate=0.0: expected a finite number of more than 0"),
        ({"rate": math.inf}, "rate=inf: expected a finite number of more than 0"),
        ({"rate": math.nan}, "rate=nan: expected a finite number of more than 0"),
        ({"share": 1.0}, "share=1.0: expected at least 0 and less than 1"),
        ({"size": 0}, "size=0: expected auto, or a size of at least 1"),
        ({"size": True}, "size=True: expected auto, or a size of at least 1"),
        ({"size": 1.5}, "size=1.5: expected auto, or a size of at least 1"),
        ({"every": "0steps"}, "every=0steps: expected more than 0"),
        ({"names": ("x", "")}, "names=[]: expected names that are not empty"),
        ({"clip": 0.0}, "clip=0.0: expected more than 0"),
    ],
    ids=str,
)
def test_a_value_that_is_not_accepted_is_one_sentence(values, message):
    with pytest.raises(ConfigError) as error:
        validate.each(Sample(**values))
    assert str(error.value) == message


def test_what_is_accepted():
    validate.each(Sample())
    validate.each(Sample("b", 9.0, 0.0, 7, "5%", ("x",), math.inf))


def every() -> list[tuple[str, option.Declaration]]:
    """Returns (whole name, declaration) of all options of training, of every choice of a group."""
    classes = [("", schema.Config)]
    for group, options in compose.GROUPS.items():
        classes += [(f"{group}.", cls) for cls in options.values()]
    return [item for prefix, cls in classes for item in option.names(cls, prefix)]


def test_conditions_speak_of_what_exists():
    """Each name in a condition is an option or a group, and each value one that it may have."""
    known: dict[str, list] = {}
    for key, declaration in every():
        known.setdefault(key, []).append(declaration)
    for key, declaration in every():
        reasons = [r for several in declaration.accepts.needs.values() for r in several]
        texts = [r if isinstance(r, str) else r[0] for r in reasons]
        for text in filter(None, [declaration.accepts.read_if, *texts]):
            for term in (term for part in condition.parse(text) for term in part):
                if term.key in condition.ABOUT_TASKS:
                    asked = {f"{term.key}={value}" for value in term.values}
                    assert asked <= set(condition.OF_TASKS) or term.key == "reads", (key, text)
                elif term.key in compose.GROUPS:
                    assert set(term.values) <= set(compose.GROUPS[term.key]), (key, text)
                else:
                    assert term.key in known, (key, text)
                    words = [w for d in known[term.key] for w in (*d.accepts.choices,)]
                    assert not words or set(term.values) - {"null", ""} <= set(words), (key, text)


def test_defaults_are_what_their_declarations_accept():
    for key, declaration in every():
        option.check(key, declaration, declaration.default)


def test_documented_and_read():
    """Every option has a sentence; the name of a choice is the group's."""
    names = {f"{group}.{name}" for group in compose.GROUPS for name in ("name", "kind")}
    assert {key for key, declaration in every() if not declaration.doc} <= names - {"model.kind"}


@pytest.mark.parametrize("task", ["chat", "classify", "tag", "pair", "seq2seq", "mlm"])
def test_an_option_that_nothing_reads_is_refused(task):
    """The perturbation test of fields that are not read: all of them, from their declarations."""
    config = overrides.composed([f"task={task}", "data.train=FILE", "mesh.data=1"])
    values, unread = validate.flat(config), 0
    for key, declaration, value in option.walk(config):
        text = declaration.accepts.read_if
        if not text or condition.holds(text, values) or "[" in key:
            continue
        unread += 1
        changed = replaced(config, key, another(declaration, value))
        with pytest.raises(ConfigError, match=r": is read .* only$"):
            validate._unread(changed, validate.flat(changed))
    assert unread > 25
    validate._unread(config, values)


def another(declaration, value):
    choices = [c for c in declaration.accepts.choices if c != value]
    if choices:
        return choices[0]
    if isinstance(value, bool):
        return not value
    return value + 0.5 if isinstance(value, float) else 7


def replaced(config, key, value):
    head, _, rest = key.partition(".")
    new = replaced(getattr(config, head), rest, value) if rest else value
    return dataclasses.replace(config, **{head: new})


def test_a_condition_is_a_sentence():
    assert condition.where("a.b>0") == "with a.b above 0 only"
    text = "output=words and task.crf!=true or task=pair and task.loss=mse"
    assert condition.where(text) == (
        "by tasks on words with task.crf other than true, or with task=pair and task.loss=mse only"
    )
    lacking = condition.where("a=1 and b=2", {"a": 1, "b": 3})
    assert lacking == "with b=2 only"


def test_lists_fulfil_a_condition_by_one_of_their_items():
    assert condition.holds("a=x|y", {"a": ["z", "y"]}) and not condition.holds("a=x", {"a": []})
    assert condition.holds("a=null", {"a": None}) and condition.holds("a=null", {"a": []})
    assert condition.holds("a!=x", {}) and not condition.holds("a", {"a": ()})


def test_what_a_loss_declares_is_an_option_of_its_tasks():
    pair = declarations(schema.PairTask)["loss"].accepts
    assert "contrastive" in pair.choices and "contrastive" in pair.needs
    delta = declarations(schema.PairTask)["huber_delta"].accepts
    assert delta.read_if == "task.loss=huber" and delta.traced
    assert not {"margin", "temperature"} & {*declarations(schema.RegressTask)}


def test_what_is_traced_is_inherited():
    """An optimizer with another default of its learning rate need not say again what it is."""
    for name, cls in compose.GROUPS["optim"].items():
        assert declarations(cls)["learning_rate"].accepts.traced, name


def test_a_field_is_no_default():
    with pytest.raises(TypeError, match="a value, found a field: names"):
        option.option(dataclasses.field(default_factory=list), "names")
