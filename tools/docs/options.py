"""docs/config.md: every option with its type, default, what is accepted and its comment, from the
code that reads it.

Defaults are those of composed configs, so that presets count. What is accepted and where an option
is read stand in its declaration.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from jaxsft import tasks
from jaxsft.config import compose, condition, option, schema
from jaxsft.config import optim as optim_options
from jaxsft.config.option import Declaration
from jaxsft.config.probe_options import ProbeConfig
from jaxsft.config.search_options import SearchConfig
from jaxsft.config.sweep_options import SweepConfig
from tools.docs.composed import FILE, GIVEN, composed

TASKS = tasks.NAMES
TITLES = {
    "": "The run itself",
    "data": "Data",
    "model": "Model",
    "loss": "Loss",
    "train": "Training",
    "seeds": "Seeds",
    "checkpoint": "Checkpoints",
}
TITLES |= {
    "evaluation": "Evaluation",
    "generate": "Generated answers",
    "check": "Check",
    "crossval": "Cross-validation",
    "prune": "Pruning",
    "distil": "Distillation",
    "plan": "Planning",
    "mesh": "Devices",
    "hosts": "Processes",
    "trackers": "Trackers",
}
NAMES = ("name", "kind")  # chosen by the group's option: optim=adamw


def page() -> str:
    out = [
        "# Config",
        "",
        (
            "Written by `tools/docs/options.py` from `jaxsft/config/` and `conf/`; `make docs`"
            " writes it again."
        ),
        "",
        (
            "`jaxsft train --cfg job task=chat` prints all options of a command as they would run,"
            " with what `model.pretrained` makes of them and where each such value comes from. What"
            " only the devices decide stays `auto` there, and stands in `config.yaml` of the run."
            " A default is what runs where nothing else is given; where it differs between tasks,"
            " each has its own. A duration is a number with a unit: `60steps`, `3epochs`,"
            " `10000examples`, `5%`. Lists and mappings are written in quotes:"
            " `train.freeze='[\"embed/.*\"]'`."
        ),
        "",
    ]
    for name, cls in _sections():
        out += [f"## {TITLES[name]}", "", *_about(cls), *_table(cls, name, TASKS), ""]
    out += ["Each item of `loss.penalties`:", "", *items(schema.Penalty), ""]
    for group, title in (
        ("task", "Tasks"),
        ("tokenizer", "Tokenizers"),
        ("schedule", "Schedules"),
        ("optim", "Optimizers"),
        ("adapter", "Adapters"),
    ):
        out += [f"## {title}", "", *_group(group)]
    out += [
        "Each item of `optim.lr_groups` and `optim.decay_groups`:",
        "",
        *_about(optim_options.Group),
        *items(optim_options.Group),
        "",
    ]
    out += [
        "## Preparation",
        "",
        (
            "`jaxsft prepare` has the options of `data` down to `data.max_dropped`, and these;"
            " [Stages](stages.md) lists the stages."
        ),
        "",
    ]
    out += [
        *items(schema.PrepareConfig, ("data", "output")),
        *items(schema.OutputConfig, prefix="output.")[2:],
        "",
    ]
    out += [
        "## Quality",
        "",
        (
            "`jaxsft quality` has the options of `data` down to `data.max_dropped`, and these;"
            " [Quality](quality.md) says more."
        ),
        "",
    ]
    out += [
        *items(schema.QualityConfig, ("data", "ratings")),
        *items(schema.RatingsConfig, prefix="ratings.")[2:],
        "",
    ]
    out += [
        "## Sweeps",
        "",
        (
            "`jaxsft train -m` and `jaxsft sweep` have these; they say how a sweep is run, and no"
            " trial has them. [Sweeps and studies](sweeps.md) says more."
        ),
        "",
        *items(SweepConfig, prefix="sweep."),
        "",
        "## Search",
        "",
        (
            "Keys of `search:` in a study.yaml, and `search.NAME=value` behind `jaxsft train -m`"
            " and `jaxsft sweep run`. [Search](search.md) says more."
        ),
        "",
        *items(SearchConfig, prefix="search."),
        "",
        "## Probe",
        "",
        "`probe.NAME=value` behind `jaxsft probe`. [Probes](probes.md) says more.",
        "",
        *items(ProbeConfig, prefix="probe."),
        "",
        "## Presets",
        "",
        "What a file in `conf/` sets, beside the defaults above:",
        "",
        *_presets(),
        "",
    ]
    return "\n".join(out).rstrip() + "\n"


# --- sections
# --------------------------------------------------------------------------------------------------
def _sections() -> list[tuple[str, type]]:
    """(prefix, class) of every part of the config that is no group; the root's own options come
    first.
    """
    hints = typing.get_type_hints(schema.Config)
    parts = [
        (name, hint)
        for name, hint in hints.items()
        if dataclasses.is_dataclass(hint) and name not in compose.GROUPS
    ]
    return [("", schema.Config), *parts]


def _group(group: str) -> list[str]:
    out = []
    for choice, cls in compose.GROUPS[group].items():
        where = (choice,) if group == "task" else ("chat",)
        table = _table(cls, group, where, None if group == "task" else f"{group}={choice}")
        out += [
            f"### {group}={choice}",
            "",
            *_about(cls),
            *(table if len(table) > 2 else ["No options of its own."]),
            "",
        ]
    return out


def _about(cls: type) -> list[str]:
    """The class's docstring, where it wrote one."""
    return (
        [" ".join(cls.__doc__.split()), ""]
        if "__doc__" in vars(cls) and not cls.__doc__.startswith(f"{cls.__name__}(")
        else []
    )


def _table(
    cls: type, prefix: str, for_tasks: tuple[str, ...], choice: str | None = None
) -> list[str]:
    rows = ["| option | type | default | accepted | |", "|---|---|---|---|---|"]
    hints = typing.get_type_hints(cls)
    for f in compose.option_fields(cls):
        key = f"{prefix}.{f.name}" if prefix else f.name
        if f.name in NAMES or (not prefix and dataclasses.is_dataclass(hints[f.name])):
            continue
        inner = hints[f.name]
        options, about = {key: option.declarations(cls)[f.name]}, ""
        if dataclasses.is_dataclass(inner):  # data.columns
            options = {f"{key}.{name}": one for name, one in option.declarations(inner).items()}
            about = " ".join(inner.__doc__.split())
        for name, one in options.items():
            said, about = " ".join(filter(None, [about, _notes(one)])), ""
            default = _default(name, for_tasks, choice)
            rows.append(_row(name, one.hint, default, _accepted(one), said))
    return rows


def items(cls: type, skip: tuple[str, ...] = (), prefix: str = "") -> list[str]:
    """The fields of a dataclass as a table."""
    comments, hints = option.docs(cls), typing.get_type_hints(cls)
    rows = ["| field | type | default | |", "|---|---|---|---|"]
    for f in (f for f in dataclasses.fields(cls) if f.name not in skip):
        default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        default = (
            "???"
            if default is dataclasses.MISSING
            else tuple(default)
            if isinstance(default, list)
            else default
        )
        rows.append(
            f"| `{prefix}{f.name}` | {_type(hints[f.name])} | {_show(default)} |"
            f" {_cell(comments.get(f.name, ''))} |"
        )
    return rows


def _row(key: str, hint: Any, default: str, accepted: str, comment: str) -> str:
    return f"| `{key}` | {_type(hint)} | {default} | {accepted} | {_cell(comment)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _type(hint: Any) -> str:
    arguments = typing.get_args(hint)
    if type(None) in arguments:
        return f"{_type(arguments[0])} or null"
    if hint is Any:
        return "number or word"
    if typing.get_origin(hint) in (list, Sequence):
        return f"list of {_type(arguments[0])}"
    if typing.get_origin(hint) in (dict, Mapping):
        return "mapping"
    plain = {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}
    return (plain | {"Penalty": "penalties", "Group": "groups", "MixtureSource": "sources"})[
        hint.__name__
    ]


# --- what the code says
# --------------------------------------------------------------------------------------------------
def _default(key: str, for_tasks: tuple[str, ...], choice: str | None) -> str:
    shown = {
        task: _show(_value(composed(task, *([choice] if choice else [])), key))
        for task in for_tasks
    }
    return (
        next(iter(shown.values()))
        if len(set(shown.values())) == 1
        else "<br>".join(f"{task}: {text}" for task, text in shown.items())
    )


def _value(config: schema.Config, key: str) -> Any:
    value = functools.reduce(getattr, key.split("."), config)
    return None if value == FILE else value


def _show(value: Any) -> str:
    if isinstance(value, tuple | dict):
        return f"`{json.dumps(value)}`"
    return "must be given" if value in ("???", GIVEN) else f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    return (
        {True: "true", False: "false", None: "null"}[value]
        if value is None or isinstance(value, bool)
        else str(value)
    )


def _accepted(declaration: Declaration) -> str:
    """Returns what an option may be, as its declaration says."""
    if declaration.accepts.choices and declaration.nullable is False:
        return ", ".join(f"`{c}`" for c in declaration.accepts.choices)
    return option.expected(declaration)


def _notes(declaration: Declaration) -> str:
    """Returns what an option does, where it is read, and what it needs."""
    comment, accepts = declaration.doc, declaration.accepts
    if set(comment.split(" | ")) == set(accepts.choices):
        comment = ""  # it stands in the column before
    read = f"is read {condition.where(accepts.read_if)}" if accepts.read_if else ""
    return "; ".join(filter(None, [comment, read]))


# --- presets
# --------------------------------------------------------------------------------------------------
def _presets() -> list[str]:
    rows = ["| preset | sets | |", "|---|---|---|"]
    folder = Path(__file__).parents[2] / "conf"
    for path in sorted(folder.glob("*/*.yaml")):
        text = path.read_text(encoding="utf-8")
        comment = " ".join(m[1] for m in re.finditer(r"^# (?!@)(.*)$", text, re.MULTILINE))
        values = yaml.safe_load(text) or {}
        prefix = "" if "@package _global_" in text else f"{path.parent.name}."
        defaults = [
            item for d in values.pop("defaults", []) if isinstance(d, dict) for item in d.items()
        ]
        chosen = [
            f"{key.split()[-1].strip('/')}={value}"
            for key, value in defaults
            if key.startswith("override")
        ]
        sets = [*chosen, *(f"{prefix}{k}={_plain(v)}" for k, v in compose.flat(values).items())]
        if sets:
            rows.append(
                f"| `{path.parent.name}={path.stem}` | {' '.join(f'`{s}`' for s in sets)} |"
                f" {_cell(comment)} |"
            )
    return rows
