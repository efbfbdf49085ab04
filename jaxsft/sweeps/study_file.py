"""`study.yaml` of an experiment: a question, the trials that answer it, and what is compared.

  question: Is a low-rank adapter as good as training all weights?
  metric: validation/accuracy
  baseline: full
  options: {task: classify, data.path: rows.jsonl}     of every trial
  seeds: [0, 1, 2]
  arms:
    full: {adapter: none}
    lora: {adapter: lora, adapter.rank: 8}

In place of `arms`, `search` chooses values (`search_space.py`), or `trials` is a form. Each form
stands for a list of settings, option by option:

  product: {a: [1, 2], b: [3, 4]}    each with each; of a list of forms, each with each of the next
  zip: {a: [1, 2], b: [3, 4]}        (1, 3) and (2, 4)
  chain: [form, form]                one list behind the other
  when: {a: 1}                       in a product: the settings so far that have this value are
    then: form                       continued by each of the form, the others stay
  ablation:
    base: {a: 1}
    changes: {more: {b: 3}, less: {b: 0}}
    form: one_at_a_time              the base, then the base with each change alone;
                                     leave_one_out: with all changes, then without each one
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsft import documents
from jaxsft.config import overrides
from jaxsft.errors import ConfigError

NAME, MOST = "study.yaml", 10_000  # trials of a study
Setting = dict[str, Any]  # value by option
KEYS = (
    "name",
    "question",
    "metric",
    "baseline",
    "family",
    "effect",
    "options",
    "seeds",
    "arms",
    "trials",
    "search",
)
FORMS = ("product", "zip", "chain", "when", "ablation")
_EXPONENT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")  # which YAML takes for a text


@dataclasses.dataclass(frozen=True)
class Study:
    """A study as it was read.

    Attributes:
      options: of every trial.
      settings: of each trial, those that differ, seeds included.
      about: what the plan keeps of it: name, question, metric, baseline, arms, seeds, family and
        effect.
      search: the options of a search, as they were written, whose trials are not known beforehand;
        `settings` are its seeds then. None: all trials are known.
    """

    options: Setting
    settings: tuple[Setting, ...]
    about: Mapping[str, Any]
    search: Mapping[str, Any] | None = None

    @property
    def swept(self) -> list[str]:
        """Returns the options that differ, in the order in which they were named."""
        return list(dict.fromkeys(key for setting in self.settings for key in setting))


class _Place:
    """A part of the file, for the messages of errors."""

    def __init__(self, file: Path, path: str = ""):
        self.file, self.path = file, path

    def __truediv__(self, key: object) -> _Place:
        inner = f"[{key}]" if isinstance(key, int) else f".{key}" if self.path else str(key)
        return _Place(self.file, f"{self.path}{inner}")

    def error(self, message: str) -> ConfigError:
        return ConfigError(f"{self.file}: {self.path}{': ' if self.path else ''}{message}")

    def mapping(self, value: Any, empty: bool = False) -> dict[str, Any]:
        """Returns a value that must be a mapping with texts as keys."""
        if not isinstance(value, dict) or not (value or empty):
            raise self.error(f"found {value!r:.60}, expected options by name")
        for key in value:
            if not isinstance(key, str):
                raise self.error(f"the key {key!r} is no text; put it in quotes")
        return value

    def sequence(self, value: Any) -> list[Any]:
        """Returns a value that must be a list with something in it."""
        if not isinstance(value, list) or not value:
            raise self.error(f"found {value!r:.60}, expected a list of values")
        return value

    def known(self, given: Mapping[str, Any], names: Sequence[str]) -> None:
        for key in given:
            if key not in names:
                raise self.error(f"{key}: unknown; there are {', '.join(names)}")


def read(place: str | Path) -> Study:
    """Reads the study of an experiment's folder, or of a file.

    Raises ConfigError, which names the file and the key.
    """
    path = Path(place)
    file = path / NAME if path.is_dir() or not path.suffix else path
    at, values = _Place(file), documents.read_yaml(file, ConfigError, dict)
    at.known(at.mapping(values), KEYS)
    if sum(key in values for key in ("arms", "trials", "search")) != 1:
        raise at.error("expected either arms or trials, or search")
    options = _options(values.get("options", {}), at / "options")
    arms: dict[str, Setting] = {}
    if "arms" in values:
        for name, content in (at / "arms").mapping(values["arms"]).items():
            arms[name] = _options(content, at / "arms" / name)
        settings = list(arms.values())
    elif "search" in values:
        settings = [{}]
    else:
        settings = _form(values["trials"], at / "trials", arms)
    seeds = _seeds(values.get("seeds", []), at / "seeds")
    settings = _crossed(settings, _product(seeds), at)
    told = {key: values[key] for key in ("question", "metric", "baseline", "family", "effect")
            if values.get(key) is not None}  # fmt: skip
    _check(told, arms, at)
    name = values.get("name") or file.resolve().parent.name
    about = {"name": str(name), **told, "arms": arms or None, "seeds": list(seeds)}
    about = {key: value for key, value in about.items() if value is not None}
    search = (at / "search").mapping(values["search"]) if "search" in values else None
    return Study(options, tuple(_once(settings)), about, search)


def _check(told: Mapping[str, Any], arms: Mapping[str, Setting], at: _Place) -> None:
    """Raises ConfigError for what the comparison could not be made by."""
    metric, baseline = told.get("metric"), told.get("baseline")
    if metric is not None and not re.fullmatch(r"[\w-]+/[\w@.-]+", str(metric)):
        raise (at / "metric").error(f"found {metric!r}, expected one as validation/accuracy")
    if str(metric).startswith("test/"):
        raise (at / "metric").error(
            "the test split is reported once and chooses nothing; compare by a number of validation"
        )
    if baseline is not None and baseline not in arms:
        raise (at / "baseline").error(
            f"there is no arm {baseline!r}; there are {', '.join(arms) or 'none'}"
        )


def _seeds(value: Any, at: _Place) -> dict[str, list[Any]]:
    """Returns the values of each option that is a seed; a list is of the option `seed`."""
    if value == []:
        return {}
    given = at.mapping(value) if isinstance(value, dict) else {"seed": value}
    return {name: at.sequence(values) for name, values in given.items()}


def _options(value: Any, at: _Place) -> Setting:
    """Returns options by their whole names; those in a mapping have its name before theirs."""
    out: Setting = {}
    for key, inner in at.mapping(value, empty=True).items():
        if isinstance(inner, dict) and inner and not re.match(overrides.OPEN, key):
            nested = _options(inner, at / key)
            out |= {f"{key}.{name}": one for name, one in nested.items()}
        else:
            out[key] = _value(inner)
    return out


def _value(value: Any) -> Any:
    """Returns a value with `1e-3` as the number that it is."""
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    return [_value(one) for one in value] if isinstance(value, list) else value


# --- forms
# --------------------------------------------------------------------------------------------------
def _form(value: Any, at: _Place, arms: dict[str, Setting]) -> list[Setting]:
    """Returns the settings of a form. The arms of an ablation are added to `arms`."""
    given = at.mapping(value)
    kinds = [key for key in given if key in FORMS]
    if len(kinds) != 1:
        raise at.error(f"expected one of {', '.join(FORMS)}")
    kind = kinds[0]
    at.known(given, ("when", "then") if kind == "when" else (kind,))
    inner, here = given[kind], at / kind
    if kind == "when":
        raise here.error("stands in a list of a product, behind the forms that it looks at")
    if kind == "product" and isinstance(inner, list):
        return _product_of_forms(inner, here, arms)
    if kind in ("product", "zip"):
        columns = {key: (here / key).sequence(v) for key, v in here.mapping(inner).items()}
        columns = {key: [_value(one) for one in values] for key, values in columns.items()}
        return _product(columns) if kind == "product" else _zipped(columns, here)
    if kind == "chain":
        forms = here.sequence(inner)
        return [one for i, form in enumerate(forms) for one in _form(form, here / i, arms)]
    return _ablation(inner, here, arms)


def _product(columns: Mapping[str, Sequence[Any]]) -> list[Setting]:
    """Returns all combinations of the values of options.

    >>> _product({"a": [1, 2], "b": [3]})
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]
    """
    return [dict(zip(columns, row, strict=True)) for row in itertools.product(*columns.values())]


def _zipped(columns: Mapping[str, Sequence[Any]], at: _Place) -> list[Setting]:
    lengths = {key: len(values) for key, values in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{key} has {count}" for key, count in lengths.items())
        raise at.error(f"its options have different numbers of values ({told})")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _product_of_forms(forms: Any, at: _Place, arms: dict[str, Setting]) -> list[Setting]:
    """Returns each setting of each form with each of the next; `when` continues some only."""
    settings: list[Setting] = [{}]
    for i, form in enumerate(at.sequence(forms)):
        here = at / i
        if not (isinstance(form, dict) and "when" in form):
            settings = _crossed(settings, _form(form, here, arms), here)
            continue
        here.known(form, ("when", "then"))
        wanted = _options(form["when"], here / "when")
        more = _form(form.get("then"), here / "then", arms)
        unknown = [key for key in wanted if not any(key in one for one in settings)]
        if unknown:
            raise (here / "when").error(f"no form before it sets {unknown[0]}")
        fits = lambda one: all(one.get(key) == value for key, value in wanted.items())
        settings = [
            each
            for one in settings
            for each in (_crossed([one], more, here) if fits(one) else [one])
        ]
    return settings


def _crossed(left: Sequence[Setting], right: Sequence[Setting], at: _Place) -> list[Setting]:
    """Returns each of the left with each of the right.

    Raises ConfigError where both set an option, or there are too many.
    """
    if len(left) * len(right) > MOST:
        raise at.error(f"stands for more than {MOST:,} trials")
    for a, b in itertools.product(left[:1], right[:1]):
        if both := a.keys() & b.keys():
            raise at.error(f"{sorted(both)[0]} is set twice")
    return [a | b for a in left for b in right]


def _ablation(value: Any, at: _Place, arms: dict[str, Setting]) -> list[Setting]:
    """Returns the base and its changes, and names them as arms."""
    given = at.mapping(value)
    at.known(given, ("base", "changes", "form"))
    base = _options(given.get("base", {}), at / "base")
    changes = {
        name: _options(content, at / "changes" / name)
        for name, content in (at / "changes").mapping(given.get("changes")).items()
    }
    form = given.get("form", "one_at_a_time")
    if form == "one_at_a_time":
        found = {"base": base} | {name: base | change for name, change in changes.items()}
    elif form == "leave_one_out":
        parts = lambda out: [change for name, change in changes.items() if name != out]
        merged = lambda out: base | {k: v for change in parts(out) for k, v in change.items()}
        found = {"all": merged(None)} | {f"without {name}": merged(name) for name in changes}
    else:
        raise (at / "form").error(f"found {form!r}, expected one_at_a_time or leave_one_out")
    for name in found:
        if name in arms:
            raise at.error(f"another form has an arm {name!r} too")
    arms |= found
    return list(found.values())


def _once(settings: Sequence[Setting]) -> list[Setting]:
    """Returns the settings without those that occur again."""
    found: dict[str, Setting] = {}
    for one in settings:
        found.setdefault(repr(sorted(one.items(), key=lambda pair: pair[0])), one)
    return list(found.values())
