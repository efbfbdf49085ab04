"""docs/support.md: which options go together. Every cell is a composed config that was given to the
validators; a refusal is quoted.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from jaxsft import tasks
from jaxsft.config import compose
from jaxsft.errors import ConfigError
from jaxsft.hf import families
from jaxsft.metrics.by_name import numbers_of
from jaxsft.sharding import mesh as meshes
from jaxsft.tasks.specs import SPECS
from jaxsft.training import setup
from tools.config_fuzz import PUBLISHED
from tools.docs.composed import composed

TASKS = tasks.NAMES
HELD = {"data.validation": "HELD", "mesh.data": 1}


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows are overrides; columns are a name and what is composed before them: a task, choices of
    groups, values.
    """

    title: str
    about: str
    columns: Sequence[tuple[str, str, tuple[str, ...], dict[str, Any]]]
    rows: Sequence[str]


Cells = Sequence[str | None]  # of a row: its refusals, None where the config may run


def page(written: Mapping[tuple[str, str], Cells] | None = None) -> str:
    """Returns the page; the cells of rows in `written` (`read_cells`) are taken as they are."""
    out = [
        "# Support matrix",
        "",
        (
            "Written by `tools/docs/support.py`; `make docs` writes it again. Each cell is `jaxsft"
            " train data.train=FILE data.validation=HELD` with the options of its row and column,"
            " given to `jaxsft.training.setup.resolve`, as before every run; nothing here is"
            " written by hand. A number stands for the refusal below the table; where a refusal"
            " begins with the option of the row, that beginning is left out. What the data decides"
            " (a row that is too long, a template without a stop token) is refused when the data is"
            " read."
        ),
        "",
    ]
    for table in _tables():
        out += [f"## {table.title}", "", table.about, "", *_lines(table, written or {}), ""]
    return "\n".join([*out, *_families()]).rstrip() + "\n"


def _families() -> list[str]:
    """Lines of what is read of Hugging Face's models, from the tables of the families."""
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    out = [
        "## Pretrained families",
        "",
        "Every family is trained, packed and adapted by the same blocks; decoders and"
        " encoder-decoders write with a cache. The classes are those that `jaxsft export` writes."
        " *From nothing*: a model that did not come from such a folder can be written as one."
        " The last column is the largest model whose published `config.json` is among the tests.",
        "",
        "| `model_type` | kind | classes | from nothing | largest |",
        "|---|---|---|---|---|",
    ]
    for name, family in families.FAMILIES.items():
        own = {key: v for key, v in published.items() if v["model_type"] == name}
        size = lambda v: families.of(v, name).model(v)
        largest = max(own, key=lambda key: size(own[key]).embed * size(own[key]).layers)
        model = size(own[largest])
        kind = (
            "decoder" if model.causal else "encoder-decoder" if model.decoder_layers else "encoder"
        )
        heads = ", ".join(head.suffix for head in family.heads.values())
        written = "yes" if family.write else ""
        out.append(f"| `{name}` | {kind} | {heads} | {written} | {largest} |")
    return [
        *out,
        "",
        "What else is refused, with these words:",
        "",
        *(f"- `{name}`: {why}" for name, why in families.HINTS.items()),
    ]


def _tables() -> list[Table]:
    by_task = [(f"task={name}", name, (), {}) for name in TASKS]
    model = [
        "model.causal=true",
        "model.causal=false",
        *_choices("model."),
        "model.head_dim=31",
        "model.kv_heads=2",
        "model.kv_heads=3",
    ]
    model += [
        "model.gated=false",
        "model.tied=false",
        "model.dropout=0.2",
        "model.remat=true",
        "model.positions=learned model.rope_base=500",
    ]
    losses = [
        *_choices("task.loss"),
        "task.loss=huber task.huber_delta=2",
        "task.huber_delta=2",
        "loss.label_smoothing=0.1",
        "loss.z_loss=0.001",
    ]
    losses += [
        "loss.chunk=64",
        "loss.penalties=[{kind: l2, pattern: .*, weight: 0.1}]",
        "train.ema=0.999",
        *_choices("task.pool"),
    ]
    losses += ["task.pool=first model.causal=true", "task.labels=[a, b]", "task.template=default"]
    named = dict.fromkeys(m for name in TASKS for m in numbers_of(SPECS[name].measures))
    metrics = [f"evaluation.metric=validation/{m}" for m in named]
    metrics += [
        "evaluation.metric=validation/exact_match evaluation.generate=always",
        "evaluation.metric=test/loss",
        "evaluation.patience=3",
    ]
    metrics += [
        "evaluation.patience=3 data.validation=null",
        *_choices("evaluation."),
        "generate.allow_cut=true",
    ]
    data = [
        "data.path=FILE",
        "data.path=FILE data.train=null data.validation=null",
        "data.train=null",
        "data.fractions=[0.8, 0.1, 0.1]",
    ]
    data += [
        "data.packing=false",
        "data.max_length=4096",
        "data.max_length=4096 model.context=4096",
        *_choices("data.too_long"),
        "data.require_stop=false",
    ]
    meshed = [
        "mesh.data=2",
        "mesh.fsdp=2",
        "mesh.tensor=2",
        "mesh.data=2 mesh.fsdp=2 mesh.tensor=2",
        "mesh.data=auto mesh.fsdp=2",
        "mesh.data=auto",
    ]
    meshed += [
        "mesh.data=1 mesh.fsdp=auto",
        "mesh.data=auto mesh.fsdp=auto",
        "mesh.data=auto mesh.tensor=3",
        "mesh.data=3",
        "mesh.data=16",
    ]
    batches = [
        ("8 rows", "lm", (), {"train.batch_size": 8}),
        ("6 rows", "lm", (), {"train.batch_size": 6}),
    ]
    batches += [
        ("16 rows, accumulate=2", "lm", (), {"train.batch_size": 16, "train.accumulate": 2})
    ]
    optimizers = [(name, "lm", (f"optim={name}",), {}) for name in compose.GROUPS["optim"]]
    schedules = [(name, "lm", (f"schedule={name}",), {}) for name in compose.GROUPS["schedule"]]
    tokenizers = [(name, "lm", (f"tokenizer={name}",), {}) for name in compose.GROUPS["tokenizer"]]
    return [
        Table("Model options and tasks", "The model is one for all tasks.", by_task, model),
        Table(
            "Losses and tasks",
            "Options of a task that another does not have do not exist there.",
            by_task,
            losses,
        ),
        Table("Data and tasks", "FILE and HELD are not read for this page.", by_task, data),
        Table(
            "Evaluation and tasks",
            "What chooses the best checkpoint must be a metric of the task.",
            by_task,
            metrics,
        ),
        Table(
            "Meshes and batches",
            "On eight devices, with `task=lm`; a mesh accepts every task alike.",
            batches,
            meshed,
        ),
        Table(
            "Meshes and tasks",
            "On eight devices, with 16 rows.",
            [(t, n, c, {"train.batch_size": 16}) for t, n, c, _ in by_task],
            meshed[:4],
        ),
        Table(
            "Optimizers and their options",
            "An option that an optimizer does not read does not exist there.",
            optimizers,
            _fields("optim"),
        ),
        Table(
            "Schedules and their options", "The same for schedules.", schedules, _fields("schedule")
        ),
        Table(
            "Tokenizers and their options",
            "The same for tokenizers.",
            tokenizers,
            _fields("tokenizer"),
        ),
    ]


def _choices(prefix: str) -> list[str]:
    return [
        f"{key}={choice}"
        for key, choices in compose.choices().items()
        if key.startswith(prefix)
        for choice in choices
    ]


def _fields(group: str) -> list[str]:
    """Each option of any class of the group, with its default there."""
    found = {
        f"{group}.{f.name}": f
        for cls in compose.GROUPS[group].values()
        for f in dataclasses.fields(cls)
        if f.name not in ("name", "kind")
    }
    default = lambda f: (
        []
        if f.default is dataclasses.MISSING
        else {None: "null", "???": "FOLDER"}.get(f.default, f.default)
    )
    return [
        f"{key}={str(default(f)).lower() if isinstance(default(f), bool) else default(f)}"
        for key, f in found.items()
    ]


# --- cells
# --------------------------------------------------------------------------------------------------
def _lines(table: Table, written: Mapping[tuple[str, str], Cells]) -> list[str]:
    refusals: dict[str, int] = {}
    lines = [
        f"| | {' | '.join(f'`{name}`' if '=' in name else name for name, *_ in table.columns)} |",
        "|---" * (len(table.columns) + 1) + "|",
    ]
    for row in table.rows:
        found = written.get((table.title, row)) or [
            _without_option(refusal(task, choices, {**HELD, **values, **parse(row)}), row)
            for _, task, choices, values in table.columns
        ]
        cells = [
            "yes" if refused is None else f"({refusals.setdefault(refused, len(refusals) + 1)})"
            for refused in found
        ]
        lines.append(f"| `{row}` | {' | '.join(cells)} |")
    return [*lines, "", *(f"{number}. `{text}`" for text, number in refusals.items())]


def read_cells(text: str) -> dict[tuple[str, str], Cells]:
    """Returns the cells of a page by table and row, with the refusals that numbers stand for."""
    found: dict[tuple[str, str], Cells] = {}
    for section in text.split("\n## ")[1:]:
        title, _, rest = section.partition("\n")
        quoted = dict(re.findall(r"^(\d+)\. `(.*)`$", rest, re.M))
        for row, cells in re.findall(r"^\| `([^`]+=[^`]*)` \| (.*) \|$", rest, re.M):
            numbers = (cell.strip("()") for cell in cells.split(" | "))
            found[title, row] = [quoted.get(number) for number in numbers]
    return found


def _without_option(refused: str | None, row: str) -> str | None:
    """`optim.b1: unknown option of optim=sgd; ...` -> `unknown option of optim=sgd; ...` in the row
    of optim.b1.
    """
    begins, _, rest = (refused or "").partition(": ")
    alone = " " not in begins and begins.partition("=")[0] in parse(row)
    return rest if alone else refused


def parse(overrides: str) -> dict[str, Any]:
    """`"a.b=1 c=[x, y]"` as values: an override goes on until the next one begins."""
    parts: list[str] = []
    for word in overrides.split(" "):
        if "=" in word:
            parts.append(word)
        else:
            parts[-1] += f" {word}"
    return {key: yaml.safe_load(value) for key, _, value in (part.partition("=") for part in parts)}


def refusal(task: str, choices: tuple[str, ...], values: dict[str, Any]) -> str | None:
    """The sentence of the validators, or None where the config may run."""
    base = compose.to_dict(composed(task, *choices))
    for key, value in values.items():
        *path, last = key.split(".")
        node = base
        for name in path:
            node = node[name]
        node[last] = value
    try:
        meshes.make_mesh(setup.resolve(compose.typed(base)).mesh)
    except ConfigError as error:
        return " ".join(str(error).split())
    return None
