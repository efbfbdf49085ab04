"""Tests of behaviour in a YAML file (Ribeiro et al., 2020, CheckList): templates with slots, and
what a model must make of them.

Three kinds: `minimum` (a known answer), `invariance` (what does not matter must not change the
prediction) and `direction` (a change must move a probability or a number one way).
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxsft import documents
from jaxsft.errors import ConfigError
from jaxsft.evaluation import bounds

KINDS = {
    "minimum": ("expect",),
    "invariance": ("vary",),
    "direction": ("change", "expect"),
}
OPTIONAL = {"minimum": (), "invariance": (), "direction": ("label", "tolerance")}
DIRECTIONS = ("higher", "lower", "not_higher", "not_lower")
MOST = 5000  # cases of a test
Template = str | Mapping[str, str]


@dataclass(frozen=True)
class BehaviourTest:
    """One test.

    Attributes:
      kind: of `KINDS`.
      templates: texts with `{slot}`, or columns with such texts.
      expect: of minimum, the prediction; of direction, one of `DIRECTIONS`.
      vary: of invariance, the slots whose values must not matter.
      change: of direction, `[[from, to], ...]` values of slots, a template of the same slots each
        beside that of `templates`.
      label: of direction, whose probability moves; None: the prediction is a number.
      tolerance: of direction, how much is no move.
      slots: the values of each slot.
    """

    name: str
    kind: str
    templates: tuple[Template, ...]
    expect: Any = None
    vary: tuple[str, ...] = ()
    change: tuple[Template, ...] = ()
    label: str | None = None
    tolerance: float = 0.0
    slots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


# --- the file
# --------------------------------------------------------------------------------------------------
def read(path: str) -> list[BehaviourTest]:
    """Reads a file `{slots: {NAME: [TEXT, ...]}, tests: [{name, kind, templates, ...}, ...]}`.

    Raises ConfigError for anything else: an unknown key or slot, a slot that no test has, a name
    that stands twice.
    """
    content = documents.read_yaml(path, ConfigError, dict)
    if unknown := set(content) - {"slots", "tests"}:
        raise ConfigError(f"{path}: {sorted(unknown)[0]}: unknown; there are slots and tests")
    slots = _slots(content.get("slots", {}), path)
    entries = content.get("tests")
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path}: tests: expected a list of tests, and one at least")
    tests = [_test(entry, slots, f"{path}: test {i}") for i, entry in enumerate(entries, start=1)]
    names = [test.name for test in tests]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{path}: two tests are called {twice!r}; each needs its own name")
    used = {slot for test in tests for t in (*test.templates, *test.change) for slot in _in(t)}
    if idle := sorted(set(slots) - used):
        raise ConfigError(f"{path}: slots: no test has {{{idle[0]}}}; remove it, or use it")
    return tests


def _slots(content: Any, path: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: slots: expected {{NAME: [TEXT, ...], ...}}")
    for name, values in content.items():
        good = isinstance(values, list) and values and all(isinstance(v, str) for v in values)
        if not isinstance(name, str) or not name.isidentifier() or not good:
            raise ConfigError(
                f"{path}: slots: {name}: expected a name of letters and a list of texts (quote a"
                " number, or yes and no)"
            )
        if len(set(values)) < len(values):
            raise ConfigError(f"{path}: slots: {name}: a value stands twice")
    return {name: tuple(values) for name, values in content.items()}


def _test(entry: Any, slots: Mapping[str, tuple[str, ...]], where: str) -> BehaviourTest:
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: expected {{name, kind, templates, ...}}, found {entry!r:.60}")
    name, kind = entry.get("name"), entry.get("kind")
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"{where}: name: expected a text")
    where = f"{where} ({name})"
    if kind not in KINDS:
        raise ConfigError(f"{where}: kind: {kind!r} is none of {', '.join(KINDS)}")
    needed = ("name", "kind", "templates", *KINDS[kind])
    if missing := next((key for key in needed if key not in entry), None):
        raise ConfigError(f"{where}: {missing}: is missing; kind={kind} needs it")
    if unknown := sorted(set(entry) - {*needed, *OPTIONAL[kind]}):
        raise ConfigError(f"{where}: {unknown[0]}: unknown; kind={kind} has {', '.join(needed)}")
    templates = _templates(entry["templates"], slots, f"{where}: templates")
    own = {key: entry[key] for key in ("expect", "label") if key in entry}
    if kind == "direction":
        own["change"] = _templates(entry["change"], slots, f"{where}: change")
        _check_direction(entry, templates, own["change"], where)
        own["tolerance"] = float(entry.get("tolerance", 0.0))
    if kind == "invariance":
        own["vary"] = _varied(entry["vary"], templates, slots, where)
    test = BehaviourTest(name, kind, templates, slots=slots, **own)
    if (count := sum(_count(test, template) for template in templates)) > MOST:
        raise ConfigError(
            f"{where}: its slots make {count:,} cases, more than {MOST:,}; give fewer values"
        )
    return test


def _templates(
    content: Any, slots: Mapping[str, tuple[str, ...]], where: str
) -> tuple[Template, ...]:
    found = content if isinstance(content, list) else [content]
    for template in found:
        texts = template.values() if isinstance(template, dict) and template else [template]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise ConfigError(f"{where}: expected texts, or columns with texts; found {template!r}")
        try:
            names = _in(template)
        except ValueError as cause:
            raise ConfigError(f"{where}: {template!r:.60}: {cause}") from cause
        if unknown := [name for name in names if name not in slots]:
            known = ", ".join(slots) or "none"
            raise ConfigError(f"{where}: no slot {{{unknown[0]}}}; there are {known}")
    if not found:
        raise ConfigError(f"{where}: is empty")
    return tuple(found)


def _check_direction(
    entry: Mapping[str, Any],
    templates: Sequence[Template],
    changed: Sequence[Template],
    where: str,
) -> None:
    if entry["expect"] not in DIRECTIONS:
        raise ConfigError(
            f"{where}: expect: {entry['expect']!r} is none of {', '.join(DIRECTIONS)}"
        )
    if len(templates) != len(changed):
        raise ConfigError(
            f"{where}: change: {len(changed)} templates for {len(templates)}; give one for each"
        )
    tolerance = entry.get("tolerance", 0.0)
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or tolerance < 0:
        raise ConfigError(f"{where}: tolerance: expected a number that is not negative")
    if "label" in entry and not isinstance(entry["label"], str):
        raise ConfigError(f"{where}: label: expected a text (quote it)")


def _varied(
    content: Any,
    templates: Sequence[Template],
    slots: Mapping[str, tuple[str, ...]],
    where: str,
) -> tuple[str, ...]:
    names = content if isinstance(content, list) else [content]
    for name in names:
        if name not in slots or len(slots[name]) < 2:
            raise ConfigError(f"{where}: vary: {name!r} is no slot of two values at least")
        if not all(name in _in(template) for template in templates):
            raise ConfigError(f"{where}: vary: not every template has {{{name}}}")
    if not names:
        raise ConfigError(f"{where}: vary: is empty")
    return tuple(names)


def _in(template: Template) -> list[str]:
    """Returns the slots of a template, each once. Raises ValueError for braces that do not fit."""
    texts = [template] if isinstance(template, str) else list(template.values())
    names = [
        name
        for text in texts
        for _, name, spec, conversion in string.Formatter().parse(text)
        if name is not None and (not spec or _bad(text)) and (conversion is None or _bad(text))
    ]
    return list(dict.fromkeys(names))


def _bad(text: str) -> bool:
    raise ValueError("a slot is a name alone; write {{ for a brace")


def _count(test: BehaviourTest, template: Template) -> int:
    count = 1
    for name in _in(template):
        count *= len(test.slots[name])
    return count


# --- cases
# --------------------------------------------------------------------------------------------------
def _filled(template: Template, values: Mapping[str, str]) -> Template:
    if isinstance(template, str):
        return _text(template, values)
    return {column: _text(text, values) for column, text in template.items()}


def _text(template: str, values: Mapping[str, str]) -> str:
    parts = string.Formatter().parse(template)
    return "".join(text + ("" if name is None else values[name]) for text, name, _, _ in parts)


def _choices(names: Sequence[str], slots: Mapping[str, tuple[str, ...]]) -> list[dict[str, str]]:
    every = itertools.product(*(slots[name] for name in names))
    return [dict(zip(names, values, strict=True)) for values in every]


def groups(test: BehaviourTest) -> list[list[Template]]:
    """Returns the inputs of each case: one; a first one and its variants; or two, before and
    after a change.
    """
    if test.kind == "minimum":
        return [
            [_filled(template, values)]
            for template in test.templates
            for values in _choices(_in(template), test.slots)
        ]
    if test.kind == "direction":
        return [
            [_filled(before, values), _filled(after, values)]
            for before, after in zip(test.templates, test.change, strict=True)
            for values in _choices(list(dict.fromkeys(_in(before) + _in(after))), test.slots)
        ]
    return [
        [_filled(template, fixed | values) for values in _choices(test.vary, test.slots)]
        for template in test.templates
        for fixed in _choices([n for n in _in(template) if n not in test.vary], test.slots)
    ]


def reads_probabilities(tests: Sequence[BehaviourTest]) -> bool:
    """Returns whether a test is of the probability of a label."""
    return any(test.label is not None for test in tests)


def run(tests: Sequence[BehaviourTest], model: Any, level: float) -> list[dict[str, Any]]:
    """Returns, for each test, how many cases there are and fail, the failure rate with bounds
    (Wilson), and the first failures.

    Args:
      model: as `inference.load` returns it.

    Raises ConfigError for a label that the model does not have, or a task without predictions.
    """
    if model.task.of_words:
        raise ConfigError(
            f"tests: task={model.task.name} says something of words; tests of behaviour are of"
            " whole texts"
        )
    labels = list(getattr(model.task, "labels", ()) or ())
    for test in tests:
        wanted = [test.label] if test.label is not None else []
        wanted += (
            [test.expect] if test.kind == "minimum" and model.task.spec.output == "label" else []
        )
        if unknown := [label for label in wanted if labels and label not in labels]:
            raise ConfigError(
                f"tests: {test.name}: no label {unknown[0]!r}; the model has {', '.join(labels)}"
            )
        if test.label is not None and model.task.spec.output != "label":
            raise ConfigError(
                f"tests: {test.name}: label: task={model.task.name} gives no probability of labels"
            )
    return [_run(test, model, level) for test in tests]


def _run(test: BehaviourTest, model: Any, level: float) -> dict[str, Any]:
    cases = groups(test)
    flat = list(dict.fromkeys(map(_key, itertools.chain.from_iterable(cases))))
    # a key of columns is made from a mapping, and becomes one again
    lines = model.predict([x if isinstance(x, str) else dict(x) for x in flat])
    of = dict(zip(flat, lines, strict=True))
    failed = [case for case in cases if _fails(test, [of[_key(x)] for x in case])]
    low, high = bounds.wilson(len(failed), len(cases), level)
    return {
        "name": test.name,
        "kind": test.kind,
        "cases": len(cases),
        "failures": len(failed),
        "failure_rate": {
            "value": len(failed) / len(cases),
            "low": low,
            "high": high,
            "n": len(cases),
            "method": "wilson",
            "level": level,
        },
        "examples": [_shown(test, case, of) for case in failed[:5]],
    }


def _key(x: Template) -> Any:
    return x if isinstance(x, str) else tuple(x.items())


def _fails(test: BehaviourTest, lines: Sequence[Mapping[str, Any]]) -> bool:
    if any(line.get("prediction") is None for line in lines):
        return True  # a text that could not be read was not answered rightly
    predictions = [line["prediction"] for line in lines]
    if test.kind == "minimum":
        found, wanted = predictions[0], test.expect
        return sorted(found) != sorted(wanted) if isinstance(found, list) else found != wanted
    if test.kind == "invariance":
        return any(prediction != predictions[0] for prediction in predictions)
    before, after = (_number(test, line) for line in lines)
    rose, fell = after - before > test.tolerance, before - after > test.tolerance
    return {"higher": not rose, "lower": not fell, "not_higher": rose, "not_lower": fell}[
        test.expect
    ]


def _number(test: BehaviourTest, line: Mapping[str, Any]) -> float:
    """Returns what a change must move. Raises ConfigError where a line has no such number."""
    if test.label is not None:
        return line["probabilities"][test.label]
    value = line["prediction"]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(
            f"tests: {test.name}: a prediction is {value!r:.40}, no number; name the label whose"
            " probability moves"
        )
    return float(value)


def _shown(test: BehaviourTest, case: Sequence[Template], of: Mapping[Any, Any]) -> str:
    """Returns a case that failed, with what was predicted."""
    differ = case
    if test.kind == "invariance":
        first = of[_key(case[0])].get("prediction")
        other = next(x for x in case if of[_key(x)].get("prediction") != first or first is None)
        differ = [case[0], other]
    parts = []
    for x in differ:
        line = of[_key(x)]
        text = x if isinstance(x, str) else " / ".join(x.values())
        moved = test.kind == "direction" and line.get("prediction") is not None
        number = f" ({_number(test, line):.3f})" if moved else ""
        parts.append(f"{text!r}: {line.get('prediction')}{number}")
    return " → ".join(parts)
