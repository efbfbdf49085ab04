"""A task is known by its spec alone: nothing outside `jaxsft/tasks/` compares its name, and what
the spec says is what the class does.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from jaxsft import tasks
from jaxsft.config import schema
from jaxsft.metrics import by_name
from jaxsft.tasks.specs import ANY, SPECS
from jaxsft.tasks.task import Task

ROOT = Path(__file__).parents[2] / "jaxsft"
# Other things than tasks that have one of their words: heads in the layouts of Hugging Face, and
# what annotators are asked for.
OTHERS = ("kind", "asked.kind", "config.task.spec.head", "schema.type", "self.heads")
ROOMS = ("hf/families/", "prepare/")  # where a word in a table names a head, or a type of labels


def _words(node: ast.AST) -> set[str]:
    return {
        one.value
        for one in ast.walk(node)
        if isinstance(one, ast.Constant) and isinstance(one.value, str)
    }


def comparisons(source: str) -> list[tuple[int, str]]:
    """The line and the text of every comparison, and every `match`, with the name of a task."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            plain = [ast.unparse(side) for side in sides]
            literal = (ast.Constant, ast.Tuple, ast.List, ast.Set)
            words = set().union(*(_words(s) for s in sides if isinstance(s, literal)))
            if words & {*tasks.NAMES} and not any(side in OTHERS for side in plain):
                found.append((node.lineno, ast.unparse(node)))
        elif isinstance(node, ast.MatchValue) and _words(node) & {*tasks.NAMES}:
            found.append((node.value.lineno, ast.unparse(node.value)))
    return found


def tables(source: str) -> list[tuple[int, str]]:
    """The line and the names of every dict, list, tuple or set of two names of tasks or more."""
    found = []
    for node in ast.walk(ast.parse(source)):
        parts = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", [])
        named = [p.value for p in parts if isinstance(p, ast.Constant) and p.value in tasks.NAMES]
        if len(named) > 1:
            found.append((node.lineno, "|".join(named)))
    return found


def test_nothing_compares_the_name_of_a_task():
    assert comparisons('a = x.name == "chat" or y in ("lm", "z")') == [
        (1, "x.name == 'chat'"),
        (1, "y in ('lm', 'z')"),
    ]
    found = {
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in ROOT.rglob("*.py")
        if path.parent != ROOT / "tasks"
        for line, text in comparisons(path.read_text(encoding="utf-8"))
    }
    assert not found


def test_there_is_no_second_table_of_tasks():
    heads = "hf/peft_write.py"  # of the kinds of heads
    found = {
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in ROOT.rglob("*.py")
        if path.parent != ROOT / "tasks"
        and not str(path.relative_to(ROOT)).startswith((*ROOMS, heads))
        for line, text in tables(path.read_text(encoding="utf-8"))
        if {*text.split("|")} - {"lm", "mlm", "text", "tag", "span"}
    }
    assert not found


def test_specs_import_no_jax():
    code = "import sys; import jaxsft.tasks.specs; assert 'jax' not in sys.modules, 'jax'"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", SPECS)
def test_the_class_is_that_of_its_spec(name):
    spec, kind = SPECS[name], tasks.get(name)
    assert issubclass(kind, Task) and kind.spec is spec and kind.name == name == spec.name
    assert schema.GROUPS["task"][name] is spec.options and spec.options().spec is spec
    assert spec.metric is None or spec.metric in ("loss", *by_name.numbers_of(spec.measures))
    assert {*spec.too_long} <= {*ANY} and spec.about in ("text", "words", "tokens")
    assert not spec.generates or spec.can_generate
    assert {*spec.records.reads} <= {*schema.Columns.__dataclass_fields__}
    assert hasattr(spec.options(), "loss") == bool(spec.losses)
