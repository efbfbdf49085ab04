"""What a run shows and writes while it trains: a progress bar, `metrics.jsonl`, TensorBoard; and
the signals that stop it.
"""

from __future__ import annotations

import contextlib
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

    def __init__(self, does: str = "saving a checkpoint") -> None:
        """Stores what the program says that it does after the step."""
        self.received: int | None = None
        self._does = does
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
            f"\nstopping after this step, {self._does} (once more: stop at once, without)",
            file=sys.stderr,
        )


class Metrics:
    """`metrics.jsonl`, TensorBoard and trackers. A resumed run first drops what was written after
    the step it resumes from.
    """

    def __init__(self, run_dir: Path, step: int, validated: int, config: Config):
        """Opens the files of metrics and drops lines that a resumed run writes again.

        Args:
          step: the step of the checkpoint that the run resumes from; 0 for a new run.
          validated: the step of the last evaluation before that checkpoint.
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
        """Tells the trackers the final numbers of a complete run.

        `close` alone reports it as unfinished.
        """
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

    def __init__(self, total: int, start: int, name: str = ""):
        """Starts the bar. With a name others are shown beside it: there is no bar, and what is said
        begins with the name.
        """
        self.name = name
        self.live = sys.stderr.isatty() and hosts.first() and not name
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
        elif not self.name and self._due(step):
            self.say(f"step {step:,}/{self.total:,} · {text}{self._left(step)}")

    def _due(self, step: int) -> bool:
        """Returns whether a line is due: every `total / LINES` steps or `SECONDS` seconds."""
        now = time.monotonic()
        if (step - self._told) * self.LINES < self.total and now - self._told_at < self.SECONDS:
            return False
        self._told, self._told_at = step, now
        return True

    def _left(self, step: int) -> str:
        seconds = (time.monotonic() - self.began) / max(step - self.start, 1) * (self.total - step)
        return f" · {rundir.duration_text(seconds)} left" if seconds >= 1 else ""

    def say(self, text: str) -> None:
        text = f"{self.name}: {text}" if self.name else text
        if self._bar:
            self._bar.console.print(text, highlight=False, markup=False)
        elif hosts.first():
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar:
            self._bar.stop()


def followed(items: Iterable[Any], count: int, what: str) -> Iterator[Any]:
    """Yields the items with a progress bar on a terminal.

    Elsewhere prints one line, `what`, at first.
    """
    if not sys.stderr.isatty():
        print(what, file=sys.stderr, flush=True)
        return iter(items)
    from rich import progress

    return iter(progress.track(items, what, count, console=_console()))


def _console():
    from rich.console import Console

    return Console(stderr=True)
