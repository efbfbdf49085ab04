"""What a run shows and writes while it trains: the banner, a progress bar, `metrics.jsonl`,
TensorBoard; and the signals that stop it.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jaxsft import rundir
from jaxsft.config.schema import Config
from jaxsft.sharding import hosts
from jaxsft.training.tensorboard import TensorBoard
from jaxsft.training.trackers import Trackers


class StopSignal:
    """SIGTERM and Ctrl-C ask the loop to save and end after the step; a second Ctrl-C ends at
    once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        # not in the main thread: whoever runs us there handles signals
        with contextlib.suppress(ValueError):
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: Any) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number
        print(
            "\nstopping after this step, saving a checkpoint (once more: stop at once, without)",
            file=sys.stderr,
        )


class Metrics:
    """`metrics.jsonl`, TensorBoard and trackers. A resumed run first drops what was written after
    the step it resumes from.
    """

    def __init__(self, run_dir: Path, step: int, validated: int, config: Config):
        """`step`, `validated`: what the checkpoint knows that is resumed from: its step, and that
        of the last evaluation before it.
        """
        self.lines = self.board = self.trackers = None
        if not hosts.first():
            return
        path = run_dir / "metrics.jsonl"
        rundir.truncate_jsonl(
            path, lambda line: line["step"] <= (validated if line["kind"] == "validation" else step)
        )
        self.lines = rundir.JsonLines(path)
        self.board = TensorBoard(run_dir / "tensorboard", purge_step=step + 1 if step else None)
        self.trackers = Trackers(run_dir, config)

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        if self.lines is None:
            return
        self.lines.append({"step": step, "kind": kind, **values})
        numbers = {f"{kind}/{k}": float(v) for k, v in values.items() if isinstance(v, int | float)}
        self.board.scalars(step, numbers)
        self.trackers.scalars(step, numbers)

    def finish(self, numbers: dict[str, float]) -> None:
        """The run is complete; without this call `close` tells the trackers that it is not."""
        if self.trackers is not None:
            self.trackers.finish(numbers, ok=True)

    def sync(self) -> None:
        if self.lines is not None:
            self.lines.sync()

    def close(self) -> None:
        for writer in (self.lines, self.board, self.trackers):
            if writer is not None:
                writer.close()


class Progress:
    """A bar with loss, learning rate, real tokens per second and time left on a terminal;
    elsewhere, a line with these some twenty times in a run and once a minute of a long one, and a
    line per evaluation.
    """

    LINES, SECONDS = 20, 60.0

    def __init__(self, total: int, start: int):
        self.live = sys.stderr.isatty() and hosts.first()
        self._told, self._told_at = start, time.monotonic()
        self.total, self.start, self.began, self._bar = total, start, time.monotonic(), None
        if self.live:
            from rich import progress

            columns = (
                "[bold]{task.completed}/{task.total}",
                progress.BarColumn(),
                progress.TimeRemainingColumn(),
                "{task.description}",
            )
            self._bar = progress.Progress(
                *(progress.TextColumn(c) if isinstance(c, str) else c for c in columns),
                console=_console(),
            )
            self._task = self._bar.add_task("", total=total, completed=start)
            self._bar.start()

    def update(self, step: int, values: dict[str, float]) -> None:
        text = (
            f"loss {values['loss']:.4f} · lr {values['learning_rate']:.2e} ·"
            f" {values['tokens_per_second']:,.0f} tokens/s"
        )
        if self._bar:
            self._bar.update(self._task, completed=step, description=text)
        elif self._due(step):
            self.say(f"step {step:,}/{self.total:,} · {text}{self._left(step)}")

    def _due(self, step: int) -> bool:
        """Whether a line is to be told at this step."""
        now = time.monotonic()
        if (step - self._told) * self.LINES < self.total and now - self._told_at < self.SECONDS:
            return False
        self._told, self._told_at = step, now
        return True

    def _left(self, step: int) -> str:
        seconds = (time.monotonic() - self.began) / max(step - self.start, 1) * (self.total - step)
        return f" · {rundir.duration_text(seconds)} left" if seconds >= 1 else ""

    def say(self, text: str) -> None:
        if self._bar:
            self._bar.console.print(text, highlight=False, markup=False)
        elif hosts.first():
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar:
            self._bar.stop()


def followed(items: Iterable[Any], count: int, what: str) -> Iterator[Any]:
    """The items, with a bar on a terminal; elsewhere a line that says what begins."""
    if not sys.stderr.isatty():
        print(what, file=sys.stderr, flush=True)
        return iter(items)
    from rich import progress

    return iter(progress.track(items, what, count, console=_console()))


def _console():
    from rich.console import Console

    return Console(stderr=True)


def banner(config: Config, run_dir: str | Path, facts: dict[str, Any]) -> str:
    """What will happen, before step 0. `facts`: parameters, steps, ledgers, memory and what is
    unusual.
    """
    model = (
        f"the encoder of {config.model.pretrained} alone, without its decoder:"
        if config.model.part == "encoder"
        else "model"
    )
    lines = [
        f"run        {run_dir}",
        (
            f"task       {config.task.name}, {model} {facts['parameters']:,} parameters,"
            f" {facts['trainable']:,} trained"
        ),
    ]
    for name, entry in facts["ledger"].items():
        rows, packing = entry["rows"], entry["packing"]
        dropped = ", ".join(f"{reason} {n}" for reason, n in rows["dropped"].items()) or "none"
        cut = f", {rows['truncated']} truncated" if rows["truncated"] else ""
        leak = (
            f", {entry['also_in_train']} of them also in train!"
            if entry.get("also_in_train")
            else ""
        )
        lines.append(
            f"{name:<11}{rows['read']:,} rows read, {rows['kept']:,} kept (dropped:"
            f" {dropped}){cut}{leak}; fill {packing['fill']:.1%}"
        )
        if weights := entry.get("weights"):
            span = f"{weights['min']:g} to {weights['max']:g}, on average {weights['mean']:.3g}"
            lines.append(
                f"{'weights':<11}the loss of a row of {name} counts {span} times"
                f" ({config.data.columns.weight})"
            )
        if lacks := entry.get("lacks"):
            lines.append(
                f"{'note':<11}{name} has no row of {len(lacks)} labels:"
                f" {', '.join(lacks[:5])}{' ...' if len(lacks) > 5 else ''}"
            )
    train = facts["ledger"]["train"]["packing"]
    places = config.train.batch_size * train["row_length"]
    lines.append(
        f"steps      {facts['steps']:,} of {config.train.batch_size} rows x {train['row_length']} ="
        f" {places:,} tokens, {places * train['fill']:,.0f} real; {facts['steps_per_epoch']:,}"
        " steps an epoch"
    )
    lines += recipe(config)
    peak = (
        "peak unknown"
        if facts["peak"] is None
        else f"peak {facts['peak'] / 1e12:,.0f} TFLOP/s each"
    )
    why = dict(config.origins).get("precision")
    told = f"{config.precision} ({why})" if why else config.precision
    lines.append(
        f"device     {facts['devices']} ({peak}), {told}, {facts['memory']},"
        f" {flops_text(facts['flops'])} of the model"
    )
    return "\n".join(lines + [f"note       {note}" for note in facts["notes"]])


def recipe(config: Config) -> list[str]:
    """Returns the lines of the banner that tell how weights move, and which values were chosen for
    this run, with the reason.
    """
    why = dict(config.origins)
    head = [key for key in why if key.startswith("task.")]
    its = ", ".join(f"{key}={getattr(config.task, key.removeprefix('task.'))}" for key in head)
    told = lambda key, text: f"{text} ({why[key]})" if key in why else text
    o, s = config.optim, config.schedule
    falls = f" to {s.final:g} of it" if getattr(s, "final", None) else ""
    return [
        *([f"head       {its} ({why[head[0]]})"] if head else []),
        f"optimizer  {o.name}, "
        + told("optim.learning_rate", f"learning rate {o.learning_rate:g}")
        + f", {s.name}{falls} with {s.warmup} warm-up,"
        f" {told('train.duration', config.train.duration)}",
        f"{'':<11}"
        + told("model.dropout", f"dropout {config.model.dropout:g}")
        + ", "
        + told("loss.label_smoothing", f"label smoothing {config.loss.label_smoothing:g}")
        + ", "
        + told("train.batch_size", f"{config.train.batch_size} rows a step"),
    ]


def flops_text(flops: float) -> str:
    return f"{flops / 1e9:,.1f} GFLOP" if flops >= 1e8 else f"{flops / 1e6:,.2g} MFLOP"


def memory_text(compiled: Any) -> str:
    """What the compiled step needs, from the compiler."""
    try:
        m = compiled.memory_analysis()
        gib = (
            m.argument_size_in_bytes
            + m.temp_size_in_bytes
            + m.output_size_in_bytes
            - m.alias_size_in_bytes
        ) / 2**30
        if not math.isfinite(gib):
            return "memory unknown"
        return f"{gib:.2f} GiB for a step" if gib >= 0.01 else f"{gib * 2**10:.2f} MiB for a step"
    except (AttributeError, NotImplementedError):
        return "memory unknown"
