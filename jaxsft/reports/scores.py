"""The numbers of a run for readers: the metric that chose the checkpoint comes first.

Numbers that are equal by definition have one line.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxsft.config.metric_names import ORDER, ordered, repeated
from jaxsft.reports import facts


def chosen(config: Mapping[str, Any]) -> str:
    """Returns the metric by which a run chooses its checkpoint; "" where its config has none."""
    asked = (
        (config.get("evaluation") or {}).get("metric")
        if isinstance(config.get("evaluation"), Mapping)
        else None
    )
    return asked.partition("/")[2] if isinstance(asked, str) else ""


def table(
    values: Mapping[tuple[str, str], Any], first: str
) -> tuple[list[str], list[str], list[str]]:
    """Returns (splits, metrics, omitted metrics) of numbers by (split, metric).

    Omitted are those that are the accuracy again.

    Numbers of training and of the run itself (steps, the best step) are no results, and are not in
    it.
    """
    metrics = [
        m
        for m in dict.fromkeys(m for _, m in values)
        if m in ORDER or any(s not in ("", "train") for s, n in values if n == m)
    ]
    left_out = repeated(values, metrics)
    metrics = [metric for metric in ordered(metrics, first) if metric not in left_out]
    splits = [
        s for s in facts.by_split([s for s, _ in values]) if any((s, m) in values for m in metrics)
    ]
    return splits, metrics, left_out


def lines(
    numbers: Mapping[str, Any], first: str, intervals: Mapping[str, Any] | None = None
) -> list[str]:
    r"""Returns the numbers of `result.json` as a small table of text, with the bounds that
    `intervals.json` has of them.

    It has a row for each metric, a column for each split, then numbers of the run.

    >>> result = {"train/steps": 20, "test/loss": 1.25, "test/accuracy": 0.5}
    >>> print("\n".join(lines({**result, "validation/accuracy": 0.75}, "accuracy")))
                   test  validation
    accuracy *      0.5        0.75
    loss           1.25
    steps 20 (* chose the checkpoint)
    """
    values = {
        (split, metric) if slash else ("", split): value
        for key, value in numbers.items()
        for split, slash, metric in [key.partition("/")]
    }
    splits, metrics, left_out = table(values, first)
    name = {metric: f"{metric} *" if metric == first else metric for metric in metrics}
    cell = lambda s, m: " ".join(
        filter(None, [_cell(values, s, m), bound_text((intervals or {}).get(f"{s}/{m}"))])
    )
    cells = [["", *splits], *([name[m], *(cell(s, m) for s in splits)] for m in metrics)]
    widths = [max(6, *(len(row[i]) for row in cells)) for i in range(len(splits) + 1)]
    pad = lambda row: [
        row[0].ljust(widths[0] + 2),
        *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
    ]
    beside = {
        m: v
        for (s, m), v in values.items()
        if s in ("", "train") and m not in (*metrics, *left_out)
    }
    notes = ["* chose the checkpoint"] if first in metrics else []
    notes += [f"{', '.join(left_out)}: equal to accuracy"] if left_out else []
    last = [
        ", ".join(f"{m.replace('_', ' ')} {facts.number_text(v)}" for m, v in beside.items()),
        f"({'; '.join(notes)})" if notes else "",
    ]
    return [
        *("  ".join(pad(row)).rstrip() for row in cells),
        *filter(None, [" ".join(filter(None, last))]),
    ]


def bound_text(interval: Any) -> str:
    """Returns the bounds of a number as text, or nothing where there are none.

    >>> bound_text({"low": 0.81, "high": 0.8567, "method": "percentile"})
    '[0.81, 0.8567]'
    """
    if not isinstance(interval, Mapping) or interval.get("low") is None:
        return ""
    return f"[{facts.number_text(interval['low'])}, {facts.number_text(interval['high'])}]"


def _cell(values: Mapping[tuple[str, str], Any], split: str, metric: str) -> str:
    return facts.number_text(values[split, metric]) if (split, metric) in values else ""


def of_run(run_dir: Path) -> str:
    """Returns the metric by which a run chose its checkpoint; "" where its config has none."""
    return chosen(facts.config_or_empty(run_dir))


def intervals_of_run(run_dir: Path) -> dict[str, Any]:
    """Returns the bounds of the numbers of a run, by name; none where it has no file of them."""
    path = run_dir / "intervals.json"
    return facts.read_json(path) if path.is_file() else {}
