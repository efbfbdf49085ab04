"""Looks after a sweep: what jaxsft train -m, or a study, has planned in a directory.

  jaxsft sweep run experiments/NAME [option=value ...] [run_dir=DIR]
                                   plans and runs the study of its study.yaml, or its search
  jaxsft sweep status DIR          every trial: its status, number and time
  jaxsft sweep resume DIR          runs what is left; interrupted trials go on from checkpoints
  jaxsft sweep retry DIR [NUMBER ...]   runs failed trials again, all or these
  jaxsft sweep add DIR option=a,b ...   plans further trials, and runs them
  jaxsft sweep cancel DIR NUMBER ... | all   ends these trials, in a running sweep too
  jaxsft sweep report DIR          the analysis: report.html, trials.csv, study.tex

sweep.slots=N runs N trials at a time; sweep.timeout=2h, sweep.retries=N and sweep.on_error=stop say
what happens to those that hang, are killed or fail. docs/sweeps.md has all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from jaxsft.errors import ConfigError, JaxsftError


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in ACTIONS:
        raise ConfigError(f"jaxsft sweep: expected one of {', '.join(ACTIONS)} (see --help)")
    if len(arguments) < 2:
        what = "experiments/NAME" if arguments[0] == "run" else "the directory of a sweep"
        raise ConfigError(f"jaxsft sweep {arguments[0]}: expected {what} behind it")
    return ACTIONS[arguments[0]](arguments[1], arguments[2:])


def _run(place: str, words: Sequence[str]) -> int:
    from jaxsft.sweeps import launchers

    return launchers.study(Path(place), words)


def _status(place: str, words: Sequence[str]) -> int:
    from jaxsft.sweeps import live_table, search_book, search_outcome
    from jaxsft.sweeps.sweep_plan import SweepPlan
    from jaxsft.sweeps.trial_ledger import TrialLedger

    _nothing_behind("status", words)
    plan = SweepPlan.read(place)
    states = TrialLedger(plan.folder).states()
    print("\n".join(live_table.status_lines(plan.trials, states)))
    if search_book.is_search(plan):
        print("\n".join(search_outcome.lines(search_outcome.outcome(plan, states))))
    return 0


def _resume(place: str, words: Sequence[str]) -> int:
    from jaxsft.config import sweep_options
    from jaxsft.sweeps import launchers

    options, others = sweep_options.taken(words)
    _nothing_behind("resume", others)
    return launchers.resume(Path(place), options)


def _retry(place: str, words: Sequence[str]) -> int:
    from jaxsft.config import sweep_options
    from jaxsft.sweeps import launchers

    options, others = sweep_options.taken(words)
    return launchers.resume(Path(place), options, again=_numbers(others))


def _add(place: str, words: Sequence[str]) -> int:
    from jaxsft.sweeps import launchers

    if not words:
        raise ConfigError("jaxsft sweep add: expected options behind the directory: seed=3,4")
    return launchers.add(Path(place), words)


def _cancel(place: str, words: Sequence[str]) -> int:
    from jaxsft.sweeps import sweep_parent

    if not words:
        raise ConfigError("jaxsft sweep cancel: expected numbers of trials behind it, or all")
    numbers = None if list(words) == ["all"] else _numbers(words)
    print(f"cancelled: {', '.join(map(str, sweep_parent.cancel(Path(place), numbers))) or 'none'}")
    return 0


def _report(place: str, words: Sequence[str]) -> int:
    _nothing_behind("report", words)
    from jaxsft.sweeps import sweep_end

    if (page := sweep_end.report(Path(place))) is None:
        raise JaxsftError("jaxsft sweep report: this installation has no jaxsft.sweeps.analysis")
    print(page)
    return 0


def _numbers(words: Sequence[str]) -> list[int]:
    for word in words:
        if not (word.isascii() and word.isdecimal()):
            raise ConfigError(f"{word}: expected the number of a trial, as jaxsft sweep status has")
    return [int(word) for word in words]


def _nothing_behind(action: str, words: Sequence[str]) -> None:
    if words:
        raise ConfigError(f"jaxsft sweep {action}: takes no {words[0]}")


ACTIONS: dict[str, Callable[[str, Sequence[str]], int]] = {
    "run": _run,
    "status": _status,
    "resume": _resume,
    "retry": _retry,
    "add": _add,
    "cancel": _cancel,
    "report": _report,
}
