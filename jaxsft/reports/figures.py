"""Draws the figures of a run: curves, confusion matrices, and the ledger of rows and tokens.

Drawn with Matplotlib's Agg canvas and no pyplot, so that nothing global changes and no display is
needed. A label that no installed font can draw (Chinese, on a machine without a Chinese font) is
shown as its number, never as a row of empty boxes.
"""

import contextlib
import io
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from jaxsft.errors import DataError, JaxsftError, first_line
from jaxsft.reports import score_charts, score_figures
from jaxsft.reports.confusion import confusions, read_confusion, shares
from jaxsft.reports.curves import (
    from_zero,
    metric_groups,
    needs_log_scale,
    series,
    smooth,
    smoothing,
)
from jaxsft.reports.facts import short
from jaxsft.reports.ledger_facts import ledger_panels
from jaxsft.rundir import read_json, read_jsonl, write_bytes

BLUE, ORANGE, GREEN, RED, GREY = "#2f6db5", "#e07b39", "#3a9d6e", "#c8403a", "#8a8f98"
PALETTE = (BLUE, ORANGE, GREEN, RED, "#7d5ba6", "#b08d2e", "#3aa6b9", "#c65b93")
LOSSES = ("#f0a26b", "#e07b39", "#c8403a", "#9c2f6b", "#7d5ba6", "#5c6370")
CHINESE_FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN",
                 "WenQuanYi Micro Hei", "WenQuanYi Zen Hei",
                 "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei",
                 "Droid Sans Fallback", "Noto Sans CJK JP",
                 "Arial Unicode MS", "AR PL UMing CN")  # fmt: skip
# How the files of these fonts are called; to open all fonts of a system would take seconds.
NAMED = re.compile(
    r"cjk|noto.*s[ck]|source.?han|wqy|pingfang|hiragino|msyh|simhei|droidsansfallback|arial.?unicode|uming",
    re.IGNORECASE,
)
STYLE = {
    "figure.dpi": 150, "savefig.dpi": 150, "font.size": 10, "axes.titlesize": 13,
    "axes.titlecolor": "#22262e", "axes.titlelocation": "left",
    "axes.titlepad": 10, "axes.labelcolor": "#3c4250", "axes.edgecolor": "#b9bec7",
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e9ebef", "grid.linewidth": 0.8,
    "xtick.color": "#3c4250",
    "ytick.color": "#3c4250", "xtick.major.size": 0, "ytick.major.size": 0, "legend.frameon": False,
    "lines.linewidth": 2,
    # inches around each panel
    "figure.constrained_layout.h_pad": 0.1, "figure.constrained_layout.w_pad": 0.1,
    "text.parse_math": False,  # a label such as "costs $5 or $6" is not a formula
}  # fmt: skip
ANNOTATED_CLASSES, LABELLED_CLASSES, TOP_CONFUSIONS = 12, 30, 15


def write_figures(run_dir: str | Path) -> list[Path]:
    """Draws every figure that the files of a run allow into its `figures/`; returns the PNG paths.

    Raises:
        JaxsftError: `run_dir` is no directory, or a figure cannot be written.
        DataError: a file of the run is not what its name says; the message names it.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise JaxsftError(f"{run_dir}: no such run directory")
    return save(run_dir / "figures", _figures(run_dir))


def save(folder: Path, figures: Iterable[tuple[str, Figure]]) -> list[Path]:
    """Draws figures in the style of all, and returns the PNG paths. Raises JaxsftError."""
    written = []
    # a list of fonts, not of generic names: only that falls back glyph by glyph
    style = STYLE | {"font.family": list(_families())}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        for name, figure in figures:
            image = io.BytesIO()
            figure.savefig(image, format="png", metadata={"Software": None})
            written.append(write_bytes(folder / f"{name}.png", image.getvalue()))
    return written


def _figures(run_dir: Path) -> Iterator[tuple[str, Figure]]:
    """Yields (name, figure); errors of damaged files come last."""
    failed: list[str] = []
    for name, read in (
        ("metrics.jsonl", _of_metrics),
        ("figures", _of_confusions),
        ("figures", _of_scores),
        ("figures/dynamics.json", _of_dynamics),
        ("ledger.json", _of_ledger),
    ):
        try:
            if (run_dir / name).exists():
                yield from read(run_dir / name)
        except Exception as error:  # whatever a damaged file makes a reader raise
            text = (
                str(error)
                if isinstance(error, JaxsftError)
                else f"{run_dir / name}: {type(error).__name__}: {first_line(error)}"
            )
            failed.append(f"{text}; its figures are not drawn")
    if failed:
        raise DataError("; ".join(failed))


def _of_metrics(path: Path) -> Iterator[tuple[str, Figure]]:
    rows = read_jsonl(path)
    if any("loss" in row for row in rows):
        yield "loss", _loss(rows)
    steps, rates = series(rows, "train", "learning_rate")
    if len(steps):
        yield "learning_rate", _learning_rate(steps, rates)
    for group, keys in metric_groups(rows).items():
        yield (
            f"validation_{re.sub(r'[^A-Za-z0-9_.-]+', '-', group)}",
            _validation(rows, group, keys),
        )


def _of_confusions(folder: Path) -> Iterator[tuple[str, Figure]]:
    for path in sorted(folder.glob("confusion_*.json")):
        labels, matrix = read_confusion(path)
        draw = _small_confusion if len(labels) <= LABELLED_CLASSES else _large_confusion
        yield path.stem, draw(path.stem.removeprefix("confusion_"), labels, matrix)


def _of_scores(folder: Path) -> Iterator[tuple[str, Figure]]:
    for split, path in score_charts.paths_of(folder.parent).items():
        content = score_charts.read_curves(path)
        yield path.stem, score_figures.draw_scores(split, content, PALETTE, drawable)


def _of_dynamics(path: Path) -> Iterator[tuple[str, Figure]]:
    """Yields the map of the training rows: how sure the model was, and how much that changed."""
    found = read_json(path)
    x, y, share = (found[name] for name in ("variability", "confidence", "correctness"))
    figure, axes = canvas()
    drawn = axes.scatter(x, y, c=share, s=9, alpha=0.6, cmap="viridis", vmin=0, vmax=1, lw=0)
    axes.set(title="Training rows", xlabel="variability", ylabel="confidence", ylim=(-0.02, 1.02))
    figure.colorbar(drawn, ax=axes, label="share of evaluations that are right")
    yield "dynamics", figure


def _of_ledger(path: Path) -> Iterator[tuple[str, Figure]]:
    ledger = read_json(path)
    panels = ledger_panels(ledger) if isinstance(ledger, dict) else {}
    if panels:
        yield "ledger", _ledger(panels)


def canvas(width: float = 7.5, height: float = 4.2) -> tuple[Figure, Axes]:
    """Returns a figure with one panel, sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _by_step(axes: Axes, title: str, label: str) -> None:
    axes.set(title=title, xlabel="step", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=9, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.grid(axis="x", visible=False)
    axes.margins(x=0.02)


def _loss(rows: list[dict]) -> Figure:
    figure, axes = canvas()
    _by_step(axes, "Loss", "loss")
    steps, values = series(rows, "train", "loss")
    width = smoothing(len(values))
    if len(values) and width > 1:
        axes.plot(steps, values, color=BLUE, alpha=0.25, linewidth=0.9)
        axes.plot(
            steps, smooth(values, width), color=BLUE, label=f"training (mean of {width} points)"
        )
    elif len(values):
        axes.plot(steps, values, color=BLUE, marker="o", markersize=4, label="training")
    checked, checks = series(rows, "validation", "loss")
    if len(checks):
        axes.plot(
            checked,
            checks,
            color=ORANGE,
            marker="o",
            markersize=5.5,
            markeredgecolor="white",
            linewidth=1.3,
            label="validation",
        )
    both = np.concatenate([values, checks])
    finite = both[np.isfinite(both)]
    if needs_log_scale(finite):
        axes.set(yscale="log", ylabel="loss (log scale)")
        # matplotlib's own is a formula, and those are off
        axes.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
    elif from_zero(finite):
        axes.set_ylim(bottom=0)
    bad = np.concatenate([steps[~np.isfinite(values)], checked[~np.isfinite(checks)]])
    if len(bad):
        for step in bad[:200]:
            axes.axvline(step, color=RED, linewidth=0.8, alpha=0.45, zorder=0)
        axes.plot(
            bad,
            np.full(len(bad), 0.03),
            "x",
            color=RED,
            transform=axes.get_xaxis_transform(),
            label=f"not finite ({len(bad)})",
        )
    axes.legend()
    return figure


def _learning_rate(steps: np.ndarray, rates: np.ndarray) -> Figure:
    figure, axes = canvas(height=3.2)
    _by_step(axes, "Learning rate", "learning rate")
    axes.plot(steps, rates, color=GREEN, marker="o" if len(steps) == 1 else None)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 4), useMathText=False)
    axes.set_ylim(bottom=0)
    return figure


def _validation(rows: list[dict], group: str, keys: list[str]) -> Figure:
    figure, axes = canvas(height=3.6)
    _by_step(
        axes,
        f"Validation: {drawable(short(group, 60), 'metric')}",
        drawable(short(group, 30), "metric"),
    )
    left_out = len(keys) - len(PALETTE)
    for i, (key, colour) in enumerate(zip(keys, PALETTE, strict=False)):
        steps, values = series(rows, "validation", key)
        axes.plot(
            steps,
            values,
            color=colour,
            marker="o",
            markersize=4.5,
            label=drawable(short(key, 40), f"#{i}"),
        )
        bad = steps[~np.isfinite(values)]
        axes.plot(
            bad, np.full(len(bad), 0.03), "x", color=colour, transform=axes.get_xaxis_transform()
        )
    if not any(np.any(series(rows, "validation", key)[1]) for key in keys):
        axes.set_ylim(0, 1)  # of what is always 0
    if len(keys) > 1 or keys[0] != group:
        axes.legend(title=f"and {left_out} more" if left_out > 0 else None)
    return figure


def _heat(figure: Figure, axes: Axes, by_class: np.ndarray) -> None:
    colours = matplotlib.colormaps["Blues"].with_extremes(bad="#e3e5e9")
    # The square root of the share: a confusion of 2 % has to be visible beside a diagonal of 95 %.
    image = axes.imshow(
        by_class, cmap=colours, norm=PowerNorm(0.5, vmin=0, vmax=1), interpolation="nearest"
    )
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="predicted", ylabel="true")
    bar = figure.colorbar(
        image,
        ax=axes,
        shrink=0.75,
        ticks=[0, 0.05, 0.25, 0.5, 1],
        format=FuncFormatter(lambda x, _: f"{x:.0%}"),
    )
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)


def _small_confusion(split: str, labels: list[str], matrix: np.ndarray) -> Figure:
    count = len(labels)
    names = [drawable(short(label, 22), f"#{i}") for i, label in enumerate(labels)]
    side = max(3.0, 0.62 * count if count <= ANNOTATED_CLASSES else 0.3 * count)
    longest = max(map(len, names))
    figure, axes = canvas(
        side + 1.8 + 0.08 * longest, side + 1.0 + (0.08 * longest if count > 4 else 0)
    )
    by_class = shares(matrix)
    _heat(figure, axes, by_class)
    axes.set_title(
        f"Confusions on {drawable(split, 'this split')} ({int(matrix.sum()):,} examples)"
    )
    tilted = count > 4 and longest > 4
    axes.set_xticks(
        range(count),
        names,
        rotation=45 if tilted else 0,
        ha="right" if tilted else "center",
        rotation_mode="anchor",
    )
    axes.set_yticks(range(count), names)
    if any(not drawable(label, "") for label in labels):
        # in two lines: in one it is wider than the figure of two classes
        axes.set_xlabel("predicted\n(#n: class n, whose name no font here can draw)")
    if not tilted:
        axes.tick_params(axis="x", pad=8)
    if count <= ANNOTATED_CLASSES:
        for (i, j), value in np.ndenumerate(matrix):
            dark = by_class[i, j] > 0.35
            share = f"\n{by_class[i, j]:.0%}" if count <= 6 and np.isfinite(by_class[i, j]) else ""
            size = 11 if count <= 6 else 9
            if value or count <= 6:
                axes.text(
                    j,
                    i,
                    f"{value:,.0f}{share}",
                    ha="center",
                    va="center",
                    fontsize=size,
                    color="white" if dark else "#2b303b",
                )
    return figure


def _large_confusion(split: str, labels: list[str], matrix: np.ndarray) -> Figure:
    top = confusions(labels, matrix)[:TOP_CONFUSIONS]
    figure = Figure(figsize=(14.5, 6.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _heat(figure, left, shares(matrix))
    left.set_anchor("N")
    left.set_title(
        f"Confusions on {drawable(split, 'this split')} ({len(labels)} classes,"
        f" {int(matrix.sum()):,} examples)"
    )
    left.set(xlabel="predicted (number of the class)", ylabel="true (number of the class)")
    left.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=9, steps=[1, 2, 5, 10]))
    left.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=9, steps=[1, 2, 5, 10]))
    right.set_title(f"The {len(top)} most frequent confusions" if top else "No confusions")
    number_of = {label: i for i, label in enumerate(labels)}
    names = [
        "  →  ".join(
            drawable(f"{number_of[x]} {short(x, 26)}", f"#{number_of[x]}") for x in pair[:2]
        )
        for pair in top
    ]
    bars = right.barh(range(len(top)), [count for *_, count in top], color=ORANGE, height=0.66)
    right.bar_label(bars, [f"{count:,}" for *_, count in top], padding=4, fontsize=9)
    right.set_yticks(range(len(top)), names, fontsize=9)
    right.invert_yaxis()
    right.grid(axis="y", visible=False)
    right.set_xlabel("examples  (true → predicted)")
    right.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    right.margins(x=0.1)
    return figure


def _ledger(panels: dict[str, dict[str, dict[str, float]]]) -> Figure:
    heights = [0.75 + 0.42 * max(2, len(splits)) for splits in panels.values()]
    figure = Figure(figsize=(9.5, sum(heights) + 0.6), layout="constrained")
    for axes, (title, splits) in zip(
        np.ravel(figure.subplots(len(panels), 1, height_ratios=heights)),
        panels.items(),
        strict=True,
    ):
        _stack(axes, title, splits)
    return figure


def _stack(axes: Axes, title: str, splits: dict[str, dict[str, float]]) -> None:
    """Draws one bar per split, cut into the shares of its parts."""
    fixed = {"kept": BLUE, "trained": BLUE, "real": BLUE, "masked": "#a9c6e8", "padding": "#d5d8de"}
    names = list(dict.fromkeys(part for parts in splits.values() for part in parts))
    reasons = iter(LOSSES * len(names))
    left = np.zeros(len(splits))
    totals = np.array([sum(parts.values()) for parts in splits.values()], dtype=float)
    for name in names:
        counts = np.array([parts.get(name, 0) for parts in splits.values()], dtype=float)
        shares = 100 * counts / totals
        colour = fixed[name] if name in fixed else next(reasons)
        label = drawable(short(name, 40), "dropped")
        bars = axes.barh(
            range(len(splits)),
            shares,
            left=left,
            color=colour,
            height=0.62,
            edgecolor="white",
            linewidth=0.8,
            label=label,
        )
        texts = [
            f"{count:,.0f}" if share >= 9 else ""
            for count, share in zip(counts, shares, strict=True)
        ]
        axes.bar_label(
            bars,
            texts,
            label_type="center",
            color="#2b303b" if name in ("masked", "padding") else "white",
            fontsize=8.5,
        )
        left += shares
    axes.set_title(title, fontsize=10.5, pad=5)
    axes.set_yticks(
        range(len(splits)),
        [f"{drawable(short(split, 20), f'split {i}')}" for i, split in enumerate(splits)],
    )
    axes.set_xlim(0, 100)
    axes.set_ylim(len(splits) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0f}%"))
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.legend(
        loc="upper left", bbox_to_anchor=(1.0, 1.05), fontsize=8.5, handlelength=1, handleheight=1
    )


@cache
def _families() -> tuple[str, ...]:
    """Returns the fonts that figures are drawn with, Matplotlib's own first."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    # its list is kept on disk from the first time: a font may have been installed since
    if not installed.intersection(CHINESE_FONTS):
        known = {font.fname for font in font_manager.fontManager.ttflist}
        for path in font_manager.findSystemFonts():
            if path not in known and NAMED.search(Path(path).name):
                with contextlib.suppress(OSError, RuntimeError):  # not a font that it reads
                    font_manager.fontManager.addfont(path)
        installed = {font.name for font in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in CHINESE_FONTS if name in installed))


@cache
def _fonts() -> tuple[Any, ...]:
    return tuple(font_manager.get_font(font_manager.findfont(name)) for name in _families())


def drawable(text: str, otherwise: str) -> str:
    """Returns the text if installed fonts have glyphs for all of it, else `otherwise`."""
    plain = unicodedata.normalize("NFC", text)
    return (
        plain
        if all(any(font.get_char_index(ord(char)) for font in _fonts()) for char in plain)
        else otherwise
    )
