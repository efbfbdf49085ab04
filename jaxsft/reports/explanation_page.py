"""The page of an explanation, `explanations.html`: coloured tokens and the summary, without any
network.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxsft.reports import page
from jaxsft.rundir import write_text

SHOWN = 200  # texts


def write_page(path: str | Path, content: Mapping[str, Any]) -> Path:
    """Writes the page of `lines`, `summary`, `influence` and `layers` and returns its path.

    Raises JaxsftError if it cannot be written.
    """
    return write_text(path, render(content))


def render(content: Mapping[str, Any]) -> str:
    """Returns the page as text; what comes from the data is escaped by Jinja."""
    lines, influence = content["lines"], content.get("influence") or []
    layers = content.get("layers")
    return (
        page.templates()
        .get_template("explanation.html.jinja")
        .render(
            count=len(lines),
            texts=[_text(line) for line in lines[:SHOWN]],
            summary=[_line(line) for line in content["summary"]],
            influence=influence[:SHOWN],
            layers=_layers(layers) if layers else None,
        )
    )


def _text(line: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a text with the colours of its tokens by each method, as shares of its highest."""
    methods = {}
    for method, scores in line["scores"].items():
        highest = max((abs(x) for x in scores if x is not None), default=0) or 1
        methods[method] = [
            {
                "text": _shown_token(token, i),
                "title": "not explained" if score is None else f"{score:+.4f}",
                "side": "" if score is None else "up" if score >= 0 else "down",
                "strength": 0 if score is None else round(70 * abs(score) / highest),
            }
            for i, (token, score) in enumerate(zip(line["tokens"], scores, strict=True))
        ]
    about = {name: line.get(name) for name in ("where", "target", "prediction", "label")}
    return {**about, "value": f"{line['value']:.4f}", "methods": methods}


def _shown_token(token: str, place: int) -> str:
    """Returns a token with the space before it, which the vocabularies of BERT leave out."""
    if token.startswith("##"):
        return token[2:]
    return token if token[:1].isspace() or not place else f" {token}"


def _line(line: Mapping[str, Any]) -> dict[str, str]:
    between = lambda low, high: "" if low is None else f"[{low:.4f}, {high:.4f}]"
    return {
        "method": line["method"],
        "number": line["number"],
        "value": f"{line['value']:.4f}",
        "bounds": between(line["low"], line["high"]),
        "difference": f"{line['difference']:+.4f}" if "difference" in line else "",
        "difference_bounds": between(line["difference_low"], line["difference_high"])
        if "difference" in line
        else "",
    }


def _layers(layers: Mapping[str, Any]) -> dict[str, Any]:
    highest = max((x for row in layers["heads"] or [] for x in row), default=0) or 1
    heads = [[(f"{x:.3f}", round(70 * x / highest)) for x in row] for row in layers["heads"] or []]
    shown = lambda found: [
        (one["layer"], f"{one['value']:.4f}", f"[{one['low']:.4f}, {one['high']:.4f}]")
        if one["low"] is not None
        else (one["layer"], f"{one['value']:.4f}", "")
        for one in found
    ]
    return {
        "probe": shown(layers.get("probe", [])),
        "skipped": shown(layers["skipped"]),
        "heads": heads,
    }
