"""ROC, precision-recall and reliability curves as a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxsft.reports import facts


def draw_scores(
    split: str,
    content: Mapping[str, Any],
    colours: Sequence[str],
    named: Callable[[str, str], str],
) -> Figure:
    """Draws the curves of a split beside each other.

    Args:
      content: of `figures/curves_<split>.json`.
      named: `(label, otherwise)`, the label where the fonts can draw it.
    """
    panels = 3 if content["roc"] else 1
    figure = Figure(figsize=(4.4 * panels + 0.6, 4.6), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    where = named(split, "this split")
    label = lambda i, c: (
        f"{named(facts.short(c['label'], 24), f'#{i}')} ({facts.number_text(c['area'])})"
    )
    if panels == 3:
        _ideal(axes[0])
        for i, curve in enumerate(content["roc"]):
            colour = colours[i % len(colours)]
            axes[0].plot(curve["fpr"], curve["tpr"], color=colour, label=label(i, curve))
        _square(axes[0], f"ROC on {where} (area)", "share of others", "share of the label found")
        for i, curve in enumerate(content["precision_recall"]):
            colour = colours[i % len(colours)]
            axes[1].plot(curve["recall"], curve["precision"], color=colour, label=label(i, curve))
        _square(axes[1], "Precision and recall (average)", "recall", "precision")
        axes[0].legend(loc="lower right", fontsize=8.5)
        axes[1].legend(loc="lower left", fontsize=8.5)
    bins = content["reliability"]
    _ideal(axes[-1])
    most = max(bins["rows"], default=1)
    sizes = [12 + 110 * rows / most for rows in bins["rows"]]
    axes[-1].plot(bins["confidence"], bins["accuracy"], color=colours[0], linewidth=1.2)
    axes[-1].scatter(bins["confidence"], bins["accuracy"], sizes, color=colours[0], zorder=3)
    title = f"Reliability (ECE {facts.number_text(bins['ece'])})"
    _square(axes[-1], title, "probability", "share that is right")
    return figure


def _ideal(axes: Axes) -> None:
    axes.plot((0, 1), (0, 1), color="#8a8f98", linewidth=1, linestyle=(0, (4, 4)), zorder=1)


def _square(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_aspect("equal")
