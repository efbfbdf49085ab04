"""The figures of a run, drawn from the files in its directory: curves, confusion matrices, and what became of rows and tokens.

Drawn with Matplotlib's Agg canvas and no pyplot, so that nothing global changes and no display is needed. A label that no installed
font can draw (Chinese, on a machine without a Chinese font) is shown as its number, never as a row of empty boxes.
"""

import io
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

from jaxsft.errors import DataError, JaxsftError
from jaxsft.rundir import number, read_json, read_jsonl, write_bytes

BLUE, ORANGE, GREEN, RED, GREY = "#2f6db5", "#e07b39", "#3a9d6e", "#c8403a", "#8a8f98"
PALETTE = (BLUE, ORANGE, GREEN, RED, "#7d5ba6", "#b08d2e", "#3aa6b9", "#c65b93")
LOSSES = ("#f0a26b", "#e07b39", "#c8403a", "#9c2f6b", "#7d5ba6", "#5c6370")
CHINESE_FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei",
                 "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei", "Droid Sans Fallback", "Noto Sans CJK JP",
                 "Arial Unicode MS", "AR PL UMing CN")  # fmt: skip
STYLE = {
    "figure.dpi": 150, "savefig.dpi": 150, "font.size": 10, "axes.titlesize": 13, "axes.titlecolor": "#22262e", "axes.titlelocation": "left",
    "axes.titlepad": 10, "axes.labelcolor": "#3c4250", "axes.edgecolor": "#b9bec7", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e9ebef", "grid.linewidth": 0.8, "xtick.color": "#3c4250",
    "ytick.color": "#3c4250", "xtick.major.size": 0, "ytick.major.size": 0, "legend.frameon": False, "lines.linewidth": 2,
    "figure.constrained_layout.h_pad": 0.1, "figure.constrained_layout.w_pad": 0.1,  # inches around each panel
    "text.parse_math": False,  # a label such as "costs $5 or $6" is not a formula
}  # fmt: skip
ANNOTATED_CLASSES, LABELLED_CLASSES, TOP_CONFUSIONS = 12, 30, 15
COUNTS = {"tokens", "rows", "generated_rows"}  # the same at every evaluation
NOT_METRICS = {
    "step",
    "kind",
    "epoch",
    "time",
    "seconds",
    "wall_time",
    "learning_rate",
    "tokens_per_second",
    "model_flops_per_second",
    "mfu",
    "loss",
    *COUNTS,
}
AVERAGES = re.compile(r"(?:^|(?<=_))(?:macro|micro|weighted|samples)_|_(?:macro|micro|weighted|samples)$")


def write_figures(run_dir: str | Path) -> list[Path]:
    """Draw every figure that the files of a run allow into its `figures/`, as PNG, and return their paths.

    Raises:
        JaxsftError: `run_dir` is no directory, or a figure cannot be written.
        DataError: a file of the run is not what its name says; the message names it.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise JaxsftError(f"{run_dir}: no such run directory")
    written = []
    style = STYLE | {"font.family": list(_families())}  # a list of fonts, not of generic names: only that falls back glyph by glyph
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        for name, figure in _figures(run_dir):
            image = io.BytesIO()
            figure.savefig(image, format="png", metadata={"Software": None})
            written.append(write_bytes(run_dir / "figures" / f"{name}.png", image.getvalue()))
    return written


def series(rows: Iterable[Mapping[str, Any]], kind: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return steps `[N]` and values `[N]` (float64, NaN where NaN was logged) of one number in the lines of `metrics.jsonl`."""
    found = [(number(row.get("step", 0)), number(row[key])) for row in rows if row.get("kind") == kind and row.get(key) is not None]
    steps, values = np.array(found, dtype=float).reshape(-1, 2).T
    return steps, values


def metric_groups(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the validation metrics other than the loss by the chart they share: macro_f1 and f1_micro go to "f1", f1/cat too."""
    groups: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for row in rows if row.get("kind") == "validation" for key in row):
        if key not in NOT_METRICS:
            groups.setdefault(AVERAGES.sub("", key.split("/")[0]) or key, []).append(key)
    return groups


def confusions(labels: Sequence[str], matrix: np.ndarray) -> list[tuple[str, str, int]]:
    """Return (true, predicted, count) for each pair of different classes that were confused, the most frequent first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[: np.count_nonzero(wrong)]
    return [(labels[i], labels[j], int(wrong[i, j])) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)]


def read_confusion(path: str | Path) -> tuple[list[str], np.ndarray]:
    """Return the labels and the counts `[true, predicted]` of a confusion file. Raises DataError if it holds something else."""
    content = read_json(path)
    try:
        labels, matrix = [str(label) for label in content["labels"]], np.array(content["matrix"], dtype=float)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: expected labels and a matrix of counts ({type(error).__name__}: {error})") from error
    if not labels or matrix.shape != (len(labels), len(labels)):
        raise DataError(f"{path}: expected a matrix of {len(labels)} x {len(labels)} counts (found shape {matrix.shape})")
    return labels, matrix


def short(text: str, width: int) -> str:
    """Return the text on one line, with an ellipsis at its end where it is longer than `width` characters."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Return the centred mean over `width` points (odd), fewer at the ends; points that are not finite are left out, not spread."""
    finite = np.isfinite(values)
    half = width // 2
    total = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(finite)])
    low, high = np.clip(np.arange(len(values)) - half, 0, None), np.clip(np.arange(len(values)) + half + 1, None, len(values))
    seen = count[high] - count[low]
    return np.where(seen > 0, (total[high] - total[low]) / np.maximum(seen, 1), np.nan)


def _figures(run_dir: Path) -> Iterator[tuple[str, Figure]]:
    rows = read_jsonl(run_dir / "metrics.jsonl") if (run_dir / "metrics.jsonl").exists() else []
    if any("loss" in row for row in rows):
        yield "loss", _loss(rows)
    steps, rates = series(rows, "train", "learning_rate")
    if len(steps):
        yield "learning_rate", _learning_rate(steps, rates)
    for group, keys in metric_groups(rows).items():
        yield f"validation_{re.sub(r'[^A-Za-z0-9_.-]+', '-', group)}", _validation(rows, group, keys)
    for path in sorted((run_dir / "figures").glob("confusion_*.json")):
        labels, matrix = read_confusion(path)
        draw = _small_confusion if len(labels) <= LABELLED_CLASSES else _large_confusion
        yield path.stem, draw(path.stem.removeprefix("confusion_"), labels, matrix)
    if (run_dir / "ledger.json").exists():
        ledger = read_json(run_dir / "ledger.json")
        panels = _ledger_panels(ledger) if isinstance(ledger, dict) else {}
        if panels:
            yield "ledger", _ledger(panels)


def _canvas(width: float = 7.5, height: float = 4.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _by_step(axes: Axes, title: str, label: str) -> None:
    axes.set(title=title, xlabel="step", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=9, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.grid(axis="x", visible=False)
    axes.margins(x=0.02)


def _loss(rows: list[dict]) -> Figure:
    figure, axes = _canvas()
    _by_step(axes, "Loss", "loss")
    steps, values = series(rows, "train", "loss")
    width = max(1, len(values) // 25) | 1
    if len(values) and width > 1:
        axes.plot(steps, values, color=BLUE, alpha=0.25, linewidth=0.9)
        axes.plot(steps, smooth(values, width), color=BLUE, label=f"training (mean of {width} points)")
    elif len(values):
        axes.plot(steps, values, color=BLUE, marker="o", markersize=4, label="training")
    checked, checks = series(rows, "validation", "loss")
    if len(checks):
        axes.plot(checked, checks, color=ORANGE, marker="o", markersize=5.5, markeredgecolor="white", linewidth=1.3, label="validation")
    both = np.concatenate([values, checks])
    finite = both[np.isfinite(both)]
    if len(finite) and finite.min() > 0 and finite.max() / finite.min() > 200:
        axes.set(yscale="log", ylabel="loss (log scale)")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))  # matplotlib's own is a formula, and those are off
    elif len(finite) and finite.min() >= 0:
        axes.set_ylim(bottom=0)
    bad = np.concatenate([steps[~np.isfinite(values)], checked[~np.isfinite(checks)]])
    if len(bad):
        for step in bad[:200]:
            axes.axvline(step, color=RED, linewidth=0.8, alpha=0.45, zorder=0)
        axes.plot(bad, np.full(len(bad), 0.03), "x", color=RED, transform=axes.get_xaxis_transform(), label=f"not finite ({len(bad)})")
    axes.legend()
    return figure


def _learning_rate(steps: np.ndarray, rates: np.ndarray) -> Figure:
    figure, axes = _canvas(height=3.2)
    _by_step(axes, "Learning rate", "learning rate")
    axes.plot(steps, rates, color=GREEN, marker="o" if len(steps) == 1 else None)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 4), useMathText=False)
    axes.set_ylim(bottom=0)
    return figure


def _validation(rows: list[dict], group: str, keys: list[str]) -> Figure:
    figure, axes = _canvas(height=3.6)
    _by_step(axes, f"Validation: {drawable(short(group, 60), 'metric')}", drawable(short(group, 30), "metric"))
    left_out = len(keys) - len(PALETTE)
    for i, (key, colour) in enumerate(zip(keys, PALETTE, strict=False)):
        steps, values = series(rows, "validation", key)
        axes.plot(steps, values, color=colour, marker="o", markersize=4.5, label=drawable(short(key, 40), f"#{i}"))
        bad = steps[~np.isfinite(values)]
        axes.plot(bad, np.full(len(bad), 0.03), "x", color=colour, transform=axes.get_xaxis_transform())
    if len(keys) > 1 or keys[0] != group:
        axes.legend(title=f"and {left_out} more" if left_out > 0 else None)
    return figure


def _shares(matrix: np.ndarray) -> np.ndarray:
    """Return each row divided by its sum; a class that never occurs gives NaN, which is drawn grey."""
    totals = matrix.sum(axis=1, keepdims=True)
    return np.divide(matrix, totals, out=np.full_like(matrix, np.nan), where=totals > 0)


def _heat(figure: Figure, axes: Axes, shares: np.ndarray) -> None:
    colours = matplotlib.colormaps["Blues"].with_extremes(bad="#e3e5e9")
    # The square root of the share: a confusion of 2 % has to be visible beside a diagonal of 95 %.
    image = axes.imshow(shares, cmap=colours, norm=PowerNorm(0.5, vmin=0, vmax=1), interpolation="nearest")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="predicted", ylabel="true")
    bar = figure.colorbar(image, ax=axes, shrink=0.75, ticks=[0, 0.05, 0.25, 0.5, 1], format=FuncFormatter(lambda x, _: f"{x:.0%}"))
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)


def _small_confusion(split: str, labels: list[str], matrix: np.ndarray) -> Figure:
    count = len(labels)
    names = [drawable(short(label, 22), f"#{i}") for i, label in enumerate(labels)]
    side = max(3.0, 0.62 * count if count <= ANNOTATED_CLASSES else 0.3 * count)
    longest = max(map(len, names))
    figure, axes = _canvas(side + 1.8 + 0.08 * longest, side + 1.0 + (0.08 * longest if count > 4 else 0))
    shares = _shares(matrix)
    _heat(figure, axes, shares)
    axes.set_title(f"Confusions on {drawable(split, 'this split')} ({int(matrix.sum()):,} examples)")
    tilted = count > 4 and longest > 4
    axes.set_xticks(range(count), names, rotation=45 if tilted else 0, ha="right" if tilted else "center", rotation_mode="anchor")
    axes.set_yticks(range(count), names)
    if any(not drawable(label, "") for label in labels):
        axes.set_xlabel("predicted (#n: class number n, whose name no installed font can draw)")
    if not tilted:
        axes.tick_params(axis="x", pad=8)
    if count <= ANNOTATED_CLASSES:
        for (i, j), value in np.ndenumerate(matrix):
            dark = shares[i, j] > 0.35
            share = f"\n{shares[i, j]:.0%}" if count <= 6 and np.isfinite(shares[i, j]) else ""
            size = 11 if count <= 6 else 9
            if value or count <= 6:
                axes.text(j, i, f"{value:,.0f}{share}", ha="center", va="center", fontsize=size, color="white" if dark else "#2b303b")
    return figure


def _large_confusion(split: str, labels: list[str], matrix: np.ndarray) -> Figure:
    top = confusions(labels, matrix)[:TOP_CONFUSIONS]
    figure = Figure(figsize=(14.5, 6.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _heat(figure, left, _shares(matrix))
    left.set_anchor("N")
    left.set_title(f"Confusions on {drawable(split, 'this split')} ({len(labels)} classes, {int(matrix.sum()):,} examples)")
    left.set(xlabel="predicted (number of the class)", ylabel="true (number of the class)")
    left.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=9, steps=[1, 2, 5, 10]))
    left.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=9, steps=[1, 2, 5, 10]))
    right.set_title(f"The {len(top)} most frequent confusions" if top else "No confusions")
    number_of = {label: i for i, label in enumerate(labels)}
    names = ["  →  ".join(drawable(f"{number_of[x]} {short(x, 26)}", f"#{number_of[x]}") for x in pair[:2]) for pair in top]
    bars = right.barh(range(len(top)), [count for *_, count in top], color=ORANGE, height=0.66)
    right.bar_label(bars, [f"{count:,}" for *_, count in top], padding=4, fontsize=9)
    right.set_yticks(range(len(top)), names, fontsize=9)
    right.invert_yaxis()
    right.grid(axis="y", visible=False)
    right.set_xlabel("examples  (true → predicted)")
    right.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    right.margins(x=0.1)
    return figure


def _ledger_panels(ledger: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Return title → split → part → count, in the order in which the parts are stacked."""
    panels: dict[str, dict[str, dict[str, float]]] = {"Rows": {}, "Tokens": {}, "Positions of packed rows": {}}
    for split, entry in ledger.items():
        if not isinstance(entry, Mapping):
            continue
        rows, tokens, packing = (entry.get(key) or {} for key in ("rows", "tokens", "packing"))
        dropped = {key: {f"dropped: {reason}": n for reason, n in (entry.get(key) or {}).get("dropped", {}).items()} for key in ("rows", "tokens")}
        panels["Rows"][split] = {"kept": rows.get("kept", 0)} | dropped["rows"]
        # Where whole texts carry the targets, no token is one.
        kept = {k: tokens.get(k, 0) for k in (("trained", "masked") if tokens.get("trained") else ("kept",))}
        panels["Tokens"][split] = kept | dropped["tokens"]
        panels["Positions of packed rows"][split] = {"real": packing.get("real", 0), "padding": packing.get("padded", 0)}
    used = {title: {split: parts for split, parts in splits.items() if sum(parts.values())} for title, splits in panels.items()}
    return {title: splits for title, splits in used.items() if splits}


def _ledger(panels: dict[str, dict[str, dict[str, float]]]) -> Figure:
    heights = [0.75 + 0.42 * max(2, len(splits)) for splits in panels.values()]
    figure = Figure(figsize=(9.5, sum(heights) + 0.6), layout="constrained")
    for axes, (title, splits) in zip(np.ravel(figure.subplots(len(panels), 1, height_ratios=heights)), panels.items(), strict=True):
        _stack(axes, title, splits)
    return figure


def _stack(axes: Axes, title: str, splits: dict[str, dict[str, float]]) -> None:
    """Draw one bar per split, cut into the shares of its parts."""
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
        bars = axes.barh(range(len(splits)), shares, left=left, color=colour, height=0.62, edgecolor="white", linewidth=0.8, label=label)
        texts = [f"{count:,.0f}" if share >= 9 else "" for count, share in zip(counts, shares, strict=True)]
        axes.bar_label(bars, texts, label_type="center", color="#2b303b" if name in ("masked", "padding") else "white", fontsize=8.5)
        left += shares
    axes.set_title(title, fontsize=10.5, pad=5)
    axes.set_yticks(range(len(splits)), [f"{drawable(short(split, 20), f'split {i}')}" for i, split in enumerate(splits)])
    axes.set_xlim(0, 100)
    axes.set_ylim(len(splits) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0f}%"))
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.05), fontsize=8.5, handlelength=1, handleheight=1)


@cache
def _families() -> tuple[str, ...]:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in CHINESE_FONTS if name in installed))


@cache
def _fonts() -> tuple[Any, ...]:
    return tuple(font_manager.get_font(font_manager.findfont(name)) for name in _families())


def drawable(text: str, otherwise: str) -> str:
    """Return the text if an installed font has a glyph for each of its characters, else `otherwise`."""
    plain = unicodedata.normalize("NFC", text)
    return plain if all(any(font.get_char_index(ord(char)) for font in _fonts()) for char in plain) else otherwise
