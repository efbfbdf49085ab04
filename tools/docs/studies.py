"""`docs/methods.md`: what each method came to in the studies of `experiments/`, from the
`results.json` of each. That file is a summary of a sweep:

    python -m tools.docs.studies runs/long_tail experiments/long_tail
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsft import documents, rundir
from jaxsft.errors import DataError
from jaxsft.sweeps import analysis
from jaxsft.sweeps.sweep_reading import SweptTrial

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
RESULTS, REPLICATES = "results.json", 2000
HEAD = """# Methods

What each method came to in the studies of `experiments/`: when it helped here, by how much, and
what it cost. The page is written from the `results.json` of each study; of one that is run again,
or of another one, `python -m tools.docs.studies RUN_DIR experiments/NAME` makes it from the sweep.

An effect is the difference to the baseline on the test rows, with bounds of 95 % from rows and
seeds together and p by Holm for all comparisons of the study ([how](sweep_report.md)); bounds of a
slice are from its rows. *Not told* means that neither gain nor loss was shown, not that there is
none. Cost is the time of a trial by that of the baseline in the same sweep, on shared cores.
"""


# --- a sweep -> results.json
# --------------------------------------------------------------------------------------------------
def summary(run: Path) -> dict[str, Any]:
    """Returns what a sweep came to, arm by arm; arms without a finished trial are not in it."""
    found = analysis.analyse(analysis.read_sweep(run))
    study, base = found.results.study, found.baseline
    costs, pairs = found.costs("seconds"), {}
    for pair in found.family.pairs:
        pairs[pair.b if pair.a == base else pair.a] = pair
    arms = []
    for group in (group for group in found.groups if group.trials):
        one: dict[str, Any] = {
            "arm": group.label,
            "options": dict(study["arms"][group.label]),
            "seeds": len(group.trials),
            "validation": found.summaries[group.label].mean,
            "test": found.of_test[group.label].mean,
            "slices": _slices(found.group(base).trials, group.trials),
            "cost": costs[group.label] / costs[base],
        }
        if (pair := pairs.get(group.label)) is not None:
            turn = 1 if pair.a == base else -1
            bounds = sorted((turn * pair.low, turn * pair.high))
            one |= {
                "effect": turn * pair.difference,
                "low": bounds[0],
                "high": bounds[1],
                "p_holm": pair.p_holm,
                "verdict": _verdict(turn * pair.difference, pair.verdict),
                "rows_of": pair.split,
            }
        arms.append(one)
    return {
        "question": study["question"],
        "metric": found.results.metric.partition("/")[2],
        "baseline": base,
        "arms": arms,
    }


def _verdict(effect: float, verdict: str) -> str:
    told = verdict in ("better", "worse")
    return ("better" if effect > 0 else "worse") if told else "not told"


def _slices(base: Sequence[SweptTrial], trials: Sequence[SweptTrial]) -> dict[str, Any]:
    """Returns the accuracy of each slice of the test rows, and by how much it is above that of the
    baseline, with bounds of a bootstrap over rows.
    """
    out: dict[str, Any] = {}
    config = documents.read_yaml(trials[0].run_dir / "config.yaml", DataError, dict)
    for column in config["evaluation"]["slices"]:
        with Path(config["data"]["test"]).open(encoding="utf-8", newline="") as file:
            values = np.array([row[column] for row in csv.DictReader(file)])
        one, other = (np.mean([_hits(t) for t in of], axis=0) for of in (trials, base))
        for value in sorted(set(values)):
            rows = values == value
            draws = np.random.default_rng(0).integers(0, rows.sum(), (REPLICATES, rows.sum()))
            means = (one - other)[rows][draws].mean(1)
            low, high = np.quantile(means, [0.025, 0.975])
            out[f"{column}={value}"] = {
                "rows": int(rows.sum()),
                "value": float(one[rows].mean()),
                "effect": float((one - other)[rows].mean()),
                "low": float(low),
                "high": float(high),
            }
    return out


def _hits(trial: SweptTrial) -> np.ndarray:
    lines = rundir.read_jsonl(trial.run_dir / "predictions" / "test.jsonl")
    return np.array([line["correct"] for line in sorted(lines, key=lambda line: line["row"])])


# --- results.json -> the page
# --------------------------------------------------------------------------------------------------
def page(folder: Path = EXPERIMENTS) -> str:
    """Returns the text of the page, of all studies that have results."""
    parts = [HEAD]
    for path in sorted(folder.glob(f"*/{RESULTS}")):
        parts.append(_section(path.parent.name, rundir.read_json(path)))
    return "\n".join(parts)


def _section(name: str, found: Mapping[str, Any]) -> str:
    metric, base = found["metric"], found["baseline"]
    slices = list(found["arms"][0]["slices"])
    heads = ["method", "helped here", metric, "effect", *slices, "cost"]
    lines = [
        f"## {found['question']}",
        "",
        f"`experiments/{name}`: {found['arms'][0]['seeds']} seeds an arm, baseline *{base}*.",
        "",
        _line(heads),
        _line("---" for _ in heads),
    ]
    for arm in sorted(found["arms"], key=lambda one: -one["test"]):
        lines.append(_line(_cells(arm, slices, base)))
    return "\n".join([*lines, ""])


def _cells(arm: Mapping[str, Any], slices: Sequence[str], base: str) -> list[str]:
    if arm["arm"] == base:
        effect, helped = "", "baseline"
    else:
        p = "p < 0.001" if arm["p_holm"] < 0.001 else f"p = {arm['p_holm']:.3f}"
        effect = f"{_bounded(arm)}, {p}"
        helped = {"better": "yes", "worse": "no, it harmed", "not told": "not told"}[arm["verdict"]]
    of_slices = []
    for name in slices:
        one = arm["slices"][name]
        beside = "" if arm["arm"] == base else f" ({_bounded(one)})"
        of_slices.append(f"{one['value']:.3f}{beside}")
    return [arm["arm"], helped, f"{arm['test']:.3f}", effect, *of_slices, f"{arm['cost']:.2f}"]


def _bounded(one: Mapping[str, Any]) -> str:
    return f"{one['effect']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]"


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def main(run: Path, experiment: Path) -> None:
    rundir.write_json(experiment / RESULTS, summary(run))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
