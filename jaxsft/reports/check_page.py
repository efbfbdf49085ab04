"""The page of a check, `check.html`, made from `check.json` alone, without any network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxsft.reports import ledger_facts, page
from jaxsft.rundir import write_text

BARS = 40  # classes with a bar of their own
TEXT = 4000  # characters of a row that is shown token by token


def write_page(content: Mapping[str, Any], path: str | Path) -> Path:
    """Writes the page of a `check.json` and returns its path.

    Raises JaxsftError if it cannot be written.
    """
    return write_text(path, render(content))


def render(content: Mapping[str, Any]) -> str:
    """Returns the page as text.

    Everything that comes from the data goes through Jinja's escaping.
    """
    splits = content["splits"]
    return (
        page.templates()
        .get_template("check.html.jinja")
        .render(
            task=content["task"],
            counts=content["counts"],
            findings=content["findings"],
            rows={name: found["rows"] for name, found in splits.items()},
            panels={title: page.stacks(bars) for title, bars in _panels(splits).items()},
            lengths=_lengths(splits),
            labels=_labels(splits),
            samples=[_sample(sample) for sample in content["samples"]],
        )
    )


def _panels(splits: Mapping[str, Any]) -> dict[str, Any]:
    panels = ledger_facts.ledger_panels(
        {name: found["ledger"] for name, found in splits.items() if "ledger" in found}
    )
    scripts = {
        name: dict(list(found["scripts"].items())[:6])
        for name, found in splits.items()
        if found.get("scripts")
    }
    return panels | (
        {"Scripts": scripts} if any(len(found) > 1 for found in scripts.values()) else {}
    )


def _lengths(splits: Mapping[str, Any]) -> dict[str, Any]:
    kinds = (("lengths", "tokens"), ("characters", "characters"))
    found = (
        (name, found[key], unit)
        for name, found in splits.items()
        for key, unit in kinds
        if found.get(key)
    )
    return {
        f"{name}, in {unit}": page.histogram(lengths, unit, "rows") for name, lengths, unit in found
    }


def _labels(splits: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the classes in the order of the training split, with their share in every split."""
    counts = {name: found["labels"] for name, found in splits.items() if found.get("labels")}
    if not counts:
        return None
    names = list(dict.fromkeys(label for found in counts.values() for label in found))
    totals = {name: sum(found.values()) for name, found in counts.items()}
    highest = max(n / totals[name] for name, found in counts.items() for n in found.values())
    lines = [
        (
            label,
            {
                s: (c.get(label, 0), round(100 * c.get(label, 0) / totals[s] / highest, 2))
                for s, c in counts.items()
            },
        )
        for label in names
    ]
    return {"splits": list(counts), "lines": lines[:BARS], "all": len(lines)}


def _sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    runs, left = [], TEXT
    for run in sample["runs"]:
        runs.append((run["kind"], run["text"][:left]))
        left -= len(run["text"])
        if left <= 0:
            runs.append(("template", " ..."))
            break
    return {**sample, "runs": runs}
