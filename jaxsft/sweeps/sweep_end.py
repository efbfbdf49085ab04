"""The end of a sweep: what became of its trials, side by side, and the exit code."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxsft.errors import JaxsftError
from jaxsft.sweeps.live_table import caption, failures
from jaxsft.sweeps.scheduler import KILLED
from jaxsft.sweeps.sweep_plan import SweepPlan
from jaxsft.sweeps.trial_ledger import BUSY, TrialLedger


def ended(plan: SweepPlan, ledger: TrialLedger, stopped_by: int | None) -> int:
    """Tells what became of a sweep, and returns its exit code."""
    states = ledger.states()
    counted = [one for one in plan.trials if states[one.id].status != "superseded"]
    for line in failures(counted, states):
        print(line, file=sys.stderr)
    compare([one.run_dir for one in counted if states[one.id].status == "done"], plan.folder)
    print(f"sweep: {plan.folder}: {caption(counted, states)}", file=sys.stderr, flush=True)
    if stopped_by is not None:
        again = shlex.join(["jaxsft", "sweep", "resume", str(plan.folder)])
        print(f"jaxsft: interrupted; {again} goes on", file=sys.stderr, flush=True)
        return KILLED + stopped_by
    left = any(states[one.id].status in (*BUSY, "planned", "interrupted") for one in counted)
    return int(left or any(states[one.id].status == "failed" for one in counted))


def compare(runs: Sequence[Path], folder: Path) -> None:
    """Prints the finished runs side by side, and writes the pages about the sweep."""
    from jaxsft.reports import run_comparison

    if len(runs) < 2:
        return
    try:
        print("\n" + "\n".join(run_comparison.compare(runs).lines()))
        print(f"comparison: {run_comparison.write(runs, folder / 'comparison.html')}", flush=True)
        if (page := report(folder)) is not None:
            print(f"report: {page}", flush=True)
    except JaxsftError as error:  # the runs are whole all the same
        print(f"jaxsft: {error}", file=sys.stderr)


def report(folder: Path) -> Path | None:
    """Writes the analysis of a sweep, and returns its page; None where it is not installed.

    Raises JaxsftError where the sweep cannot be read.
    """
    if importlib.util.find_spec("jaxsft.sweeps.analysis") is None:
        return None
    return importlib.import_module("jaxsft.sweeps.analysis").write_report(folder)
