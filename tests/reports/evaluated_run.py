"""What an evaluation with bounds, and other commands, leave in a run, made by hand."""

from pathlib import Path
from typing import Any

from jaxsft.rundir import JsonLines, write_json
from tests.reports.fake_run import make

LABELS = ["差评", "好评"]
SLICES = {"source=web": (120, 0.975), "source=短信": (20, 0.8), "length 3 to 9": (70, 0.95)}


def entry(value: float, half: float, **more: Any) -> dict[str, Any]:
    return {
        "value": value, "low": value - half, "high": value + half, "se": half / 2,
        "naive_se": half / 4, "n": 140, "clusters": 30, "method": "percentile", "level": 0.95,
    } | more  # fmt: skip


def evaluated(run: Path) -> Path:
    """Writes a run of two labels with intervals, slices, curves, and what stands beside it."""
    make(run, LABELS)
    write_json(run / "intervals.json", {
        "test/accuracy": entry(0.9625, 0.02),
        "test/rows": {"value": 140.0, "method": "count", "n": 140, "level": 0.95},
        "test/loss": {"value": 0.12, "low": None, "high": None, "n": None, "clusters": None,
                      "method": "none", "level": 0.95, "reason": "no sum over rows that is kept"},
        "validation/accuracy": entry(0.97, 0.01),
    })  # fmt: skip
    write_json(run / "figures" / "slices_test.json", [
        {"slice": name, "rows": rows, "numbers": {"accuracy": entry(value, 0.02)},
         "corrected": {"accuracy": [value - 0.05, value + 0.05]}}
        for name, (rows, value) in SLICES.items()
    ])  # fmt: skip
    curve = {"label": LABELS[1], "positives": 60, "area": 0.875}
    write_json(run / "figures" / "curves_test.json", {
        "of": "one label", "rows": 140, "labels_left_out": 0,
        "roc": [curve | {"fpr": [0.0, 0.0, 0.5, 1.0], "tpr": [0.0, 0.75, 1.0, 1.0]}],
        "precision_recall": [curve | {"recall": [0.0, 1.0], "precision": [1.0, 0.5]}],
        "reliability": {"rows": [40, 100], "confidence": [0.6, 0.9], "accuracy": [0.5, 0.95],
                        "ece": 0.064, "mce": 0.1},
    })  # fmt: skip
    with JsonLines(run / "predictions" / "validation.jsonl") as lines:
        for i in range(30):
            lines.append({
                "row": i, "text": f"一部电影 {i}", "label": LABELS[0], "prediction": LABELS[i % 2],
                "probability": 0.5 + i / 100, "correct": i % 2 == 0, "where": f"v.jsonl:{i + 1}",
            })  # fmt: skip
    return run


def beside(run: Path) -> Path:
    """Writes what cross-validation, robustness, explain and compare write."""
    fold = lambda i: {
        "repeat": 0, "fold": i, "train_rows": 90, "held_out_rows": 50, "steps": 10,
        "numbers": {"accuracy": entry(0.8 + i / 100, 0.03)}, "train": {"accuracy": 0.99},
    }  # fmt: skip
    points = [
        {"repeat": 0, "fold": i, "rows": rows, "numbers": {"accuracy": 0.5 + rows / 300}}
        for i in (0, 1)
        for rows in (30, 90)
    ]
    write_json(run / "figures" / "crossval.json", {
        "metric": "accuracy", "rows": 140, "notes": [], "settings": {"folds": 2, "repeats": 1},
        "pooled": {"accuracy": entry(0.8, 0.03)},
        "mean": {"accuracy": entry(0.805, 0.04, sd=0.01, folds=2)},
        "folds": [fold(0), fold(1)], "learning_curve": {"points": points, "fits": {}},
    })  # fmt: skip
    write_json(run / "figures" / "gaps.json", {
        "reference": "train", "level": 0.95,
        "sets": {"train": {"accuracy": {"value": 0.99}}, "test": {"accuracy": {"value": 0.9}}},
        "gaps": [{"number": "accuracy", "from": "train", "to": "test", "gap": -0.09,
                  "low": -0.12, "high": -0.06, "worse": True}],
    })  # fmt: skip
    write_json(run / "robustness" / "new" / "figures" / "robustness.json", {
        "level": 0.95,
        "curves": [{"model": "run", "number": "accuracy", "perturbation": "keyboard", "points": [
            {"strength": s, "value": 0.9 - s, "low": 0.85 - s, "high": 0.95 - s}
            for s in (0.0, 0.1, 0.3)]}],
    })  # fmt: skip
    write_json(
        run / "explanations" / "new" / "summary.json",
        [
            {
                "method": "occlusion",
                "number": "comprehensiveness",
                "value": 0.3,
                "low": 0.2,
                "high": 0.4,
                "difference": 0.1,
                "difference_low": -0.1,
                "difference_high": 0.3,
            }
        ],
    )
    write_json(run / "compare.json", {
        "rows": 140, "clusters": None, "level": 0.95, "notes": [], "tied": {},
        "arms": [{"name": "a", "runs": ["runs/a"]}, {"name": "b", "runs": ["runs/b"]}],
        "comparisons": [{"number": "accuracy", "a": "a", "b": "b", "value_a": 0.9, "value_b": 0.95,
                         "difference": 0.05, "low": 0.01, "high": 0.09, "p": 0.01, "p_holm": 0.02,
                         "p_bh": 0.01, "verdict": "better", "test": "McNemar"}],
    })  # fmt: skip
    return run
