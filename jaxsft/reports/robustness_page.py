"""The page of `jaxsft robustness`: what its JSON holds, as tables of Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def markdown(report: Mapping[str, Any]) -> str:
    """Returns the page of a report, which may hold perturbations, tests and an attack."""
    lines = ["# Robustness", ""]
    if "models" in report:
        lines += _perturbed(report)
    for name, tests in report.get("tests", {}).items():
        lines += _tests(name, tests)
    for name, attack in report.get("attacks", {}).items():
        lines += _attack(name, attack)
    return "\n".join([*lines, ""])


def curves(report: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of figures/robustness.json: each number over the strength, a curve for
    each model and perturbation, whose first point (strength 0) is the number as it is.
    """
    out = []
    for model, told in report["models"].items():
        for number, of in told["numbers"].items():
            for name in dict.fromkeys(entry["perturbation"] for entry in of["conditions"]):
                entries = [{"strength": 0.0, **of["clean"]}]
                entries += [e for e in of["conditions"] if e["perturbation"] == name]
                kept = ("strength", "value", "low", "high")
                points = [{key: entry[key] for key in kept} for entry in entries]
                own = {"model": model, "number": number, "perturbation": name, "points": points}
                out.append(own)
    return {"level": report["level"], "curves": out}


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns a table of Markdown, padded so that it can be read as text, too."""
    cells = [[text.replace("|", "\\|") for text in row] for row in (heads, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    join = lambda row: f"| {' | '.join(c.ljust(w) for c, w in zip(row, widths, strict=True))} |"
    rule = f"|{'|'.join('-' * (w + 2) for w in widths)}|"
    return [join(cells[0]), rule, *map(join, cells[1:]), ""]


def bounded(entry: Mapping[str, Any] | None, sign: str = "") -> str:
    """Returns a number with its bounds."""
    if entry is None:
        return "–"
    text = f"{entry['value']:{sign}.3f}"
    if entry.get("low") is None:
        return text
    return f"{text} [{entry['low']:{sign}.3f}, {entry['high']:{sign}.3f}]"


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


# --- perturbations
# --------------------------------------------------------------------------------------------------
HEADS = (
    "perturbation", "strength", "score", "drop", "p (Holm)", "flip rate", "worst slice",
)  # fmt: skip


def _perturbed(report: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"{report['rows']:,} rows; bounds of {report['level']:.0%} from"
        f" {report['replicates']:,} replicates (seed {report['seed']}). A drop is what the number"
        " loses on the same rows, above 0 for the worse; its p holds for all conditions of the"
        " table (Holm)."
    )
    yield ""
    models = report["models"]
    for number in next(iter(models.values()))["numbers"]:
        for model, told in models.items():
            yield from _of_model(model, number, told)
        if len(models) > 1:
            yield from _side_by_side(number, models, report["differences"])


def _of_model(model: str, number: str, told: Mapping[str, Any]) -> Iterator[str]:
    of = told["numbers"][number]
    flips = {(e["perturbation"], e["strength"]): e for e in told["flips"]}
    less = " (less is better)" if of["lower_is_better"] else ""
    yield f"## {model}: {number}{less}"
    yield ""
    yield f"As they are: {bounded(of['clean'])}"
    yield ""
    rows = [
        [
            entry["perturbation"],
            f"{entry['strength']:g}",
            bounded(entry),
            bounded(entry["drop"], "+"),
            _p(entry["drop"]["p_holm"]),
            bounded(flips.get((entry["perturbation"], entry["strength"]))),
            _slice(entry["worst_slice"]),
        ]
        for entry in of["conditions"]
    ]
    yield from table(HEADS, rows)
    means = [[name, bounded(entry, "+")] for name, entry in of["mean_drop"].items()]
    yield from table(("mean drop over strengths", "drop"), means)
    if "worst_case" in of:
        yield (
            "Each row in the condition that is worst for it (as it is among them):"
            f" {bounded(of['worst_case'])}"
        )
        yield ""


def _slice(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "–"
    return f"{entry['slice']} ({entry['rows']}): {bounded(entry)}, was {entry['clean']:.3f}"


def _side_by_side(
    number: str, models: Mapping[str, Any], differences: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    yield f"## {number} side by side"
    yield ""
    first = next(iter(models.values()))["numbers"][number]["conditions"]
    rows = [
        ["as they are", "0", *(bounded(t["numbers"][number]["clean"]) for t in models.values())]
    ]
    for i, entry in enumerate(first):
        cells = [bounded(told["numbers"][number]["conditions"][i]) for told in models.values()]
        rows.append([entry["perturbation"], f"{entry['strength']:g}", *cells])
    yield from table(("perturbation", "strength", *models), rows)
    own = [
        [f"{e['a']} → {e['b']}", e["perturbation"], bounded(e, "+")]
        for e in differences
        if e["number"] == number
    ]
    yield "How much more the second one loses, on average over strengths, on the same rows:"
    yield ""
    yield from table(("models", "perturbation", "difference of drops"), own)


# --- tests and attacks
# --------------------------------------------------------------------------------------------------
def _tests(model: str, tests: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield f"## {model}: behavioural tests"
    yield ""
    rows = [
        [
            test["name"],
            test["kind"],
            str(test["cases"]),
            str(test["failures"]),
            bounded(test["failure_rate"]),
            test["examples"][0] if test["examples"] else "",
        ]
        for test in tests
    ]
    heads = ("test", "kind", "cases", "failures", "failure rate", "first failure")
    yield from table(heads, rows)


def _attack(model: str, attack: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {model}: substituted tokens"
    yield ""
    yield (
        f"{attack['rows']} rows, at most {attack['queries']} queries and {attack['edits']} tokens"
        " each."
    )
    yield ""
    names = ("accuracy", "accuracy_under_attack", "accuracy_of_texts", "success_rate")
    rows = [[name, bounded(attack[name])] for name in names]
    rows += [["mean queries", f"{attack['mean_queries']:.1f}"]]
    rows += [["mean tokens changed", f"{attack['mean_edits']:.2f}"]]
    yield from table(("number", "value"), rows)
    for example in attack["examples"]:
        yield f"- {example['label']} → {example['prediction']}: {example['text']}"
        yield f"  - {example['changed']}"
    yield ""
