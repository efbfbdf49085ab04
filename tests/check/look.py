"""Checks of small files in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxsft.check import CheckResult, Finding, check
from jaxsft.config import schema
from tests import tiny

TASKS = schema.GROUPS["task"]


def config(
    task: str,
    folder: Path,
    splits: dict[str, Any],
    /,
    columns: dict | None = None,
    context: int = 2048,
    model: dict | None = None,
    **groups: dict,
) -> schema.Config:
    """Splits by name: rows (dicts, written as JSON lines; or text, as it is) or a path."""
    files = {}
    for name, rows in splits.items():
        path = rows if isinstance(rows, Path) else folder / f"{name}.jsonl"
        if isinstance(rows, list):
            tiny.write_lines(path, rows)
        elif isinstance(rows, str):
            path.write_text(rows, encoding="utf-8")
        files[name] = str(path)
    data = schema.DataConfig(
        **files, columns=schema.Columns(**(columns or {})), **groups.pop("data", {})
    )
    looked = schema.CheckConfig(**groups.pop("check", {}))
    made = TASKS[task](**groups.pop("task", {}))
    shape = schema.ModelConfig(context=context, causal=task != "classify", **(model or {}))
    return schema.Config(task=made, data=data, check=looked, model=shape, **groups)


def look(*arguments: Any, **groups: Any) -> CheckResult:
    return check(config(*arguments, **groups))


def found(result: CheckResult, id: str, split: str | None = None) -> Finding | None:
    """The finding of this name (and split); None where there is none."""
    those = [
        finding
        for finding in result.findings
        if finding.id == id and split in (None, finding.split)
    ]
    assert len(those) <= 1, those
    return those[0] if those else None


def lines(finding: Finding) -> list[int]:
    """The lines of the rows that it names."""
    return [int(place.split(" ")[0].rsplit(":", 1)[1]) for place in finding.rows]
