"""Reads the folder of a sweep: its plan, its ledger, and what each trial left in its directory.

A sweep may be half finished, and a file may be missing or torn: what is not there is told in
`SweepResults.notes`, and the rest is read. Nothing here imports JAX.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxsft import documents
from jaxsft.config import overrides
from jaxsft.errors import ConfigError, DataError
from jaxsft.metrics import by_name
from jaxsft.reports import facts
from jaxsft.sweeps.run_numbers import read_run

PLAN, LEDGER, CONTRACT = "plan.yaml", "ledger.jsonl", 1
SEEDS = ("seed", "seeds")  # options of these names, those below them, and those ending in _seed
ABSENT = "–"
UNFINISHED = ("planned", "leased", "started", "interrupted")
OUT = ("superseded", "cancelled")
MIXED = "auto"
LISTED = 5  # trials that a sentence names


@dataclass(frozen=True)
class SweptTrial:
    """One trial of a sweep.

    Attributes:
      options: the swept options other than seeds, by name.
      seeds: the swept seeds, by name.
      overrides: the words by which it differs, `option=value`.
      status: planned, leased, started, done, failed, interrupted, cancelled or superseded.
      numbers: of `result.json`, by `split/metric`.
      value: the number that chooses; NaN where it is missing or not finite.
      row_error: the standard error of `value` over the rows, where it is known.
      tokens: that were trained on, padding left out; flops: of the model, on those.
      reason: why it failed, on one line.
      stream: a digest of the numbers that were logged, without those of speed; "" without any.
      confirms: whether it only confirms what a search chose, with seeds that had no part in it.
    """

    number: int
    id: str
    options: Mapping[str, Any]
    seeds: Mapping[str, Any]
    overrides: Sequence[str]
    arm: str
    status: str = "planned"
    attempts: int = 0
    run_dir: Path | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    value: float = math.nan
    row_error: float | None = None
    steps: int | None = None
    seconds: float | None = None
    parameters: int | None = None
    tokens: float | None = None
    flops: float | None = None
    peak_bytes: int | None = None
    reason: str = ""
    stream: str = ""
    confirms: bool = False

    @property
    def measured(self) -> bool:
        """Returns whether it is done and has the number that chooses."""
        return self.status == "done" and math.isfinite(self.value)


@dataclass(frozen=True)
class SweepResults:
    """All trials of a sweep, and by which number they are held against each other.

    Attributes:
      metric: `split/number`, such as validation/accuracy; "" where no trial says one.
      fixed: the overrides that all trials have.
      options: names of the swept options, seeds left out.
      study: what the plan says of the study, empty where it is none.
      notes: a sentence for each thing that is missing or damaged.
    """

    folder: Path
    fixed: Sequence[str]
    options: Sequence[str]
    seeds: Sequence[str]
    metric: str
    lower_is_better: bool
    study: Mapping[str, Any]
    trials: Sequence[SweptTrial]
    notes: Sequence[str] = ()

    def rows(self) -> list[dict[str, Any]]:
        """Returns a row for each trial, of plain values: what `trials.csv` holds."""
        return [_row(trial, self) for trial in self.trials]

    def measured(self) -> list[SweptTrial]:
        """Returns the trials that are done and have the number that chooses, those left out that
        confirm the choice of a search.
        """
        return [trial for trial in self.trials if trial.measured and not trial.confirms]

    def best(self, values: Mapping[str, float]) -> str:
        """Returns the name of the best of finite values."""
        return (min if self.lower_is_better else max)(values, key=lambda name: values[name])


def _row(trial: SweptTrial, of: SweepResults) -> dict[str, Any]:
    split = of.metric.partition("/")[0]
    # the test split is reported once, of what was chosen: it stands in no table of all trials
    kept = {
        key: value
        for key, value in trial.numbers.items()
        if key.partition("/")[0] in (split, "validation") and key != of.metric
    }
    return {
        "trial": trial.number,
        "id": trial.id,
        **({"arm": trial.arm} if of.study else {}),
        **{name: trial.options.get(name, ABSENT) for name in of.options},
        **{name: trial.seeds.get(name, ABSENT) for name in of.seeds},
        **({"confirms": trial.confirms} if "search" in of.study else {}),
        "status": trial.status,
        "attempts": trial.attempts,
        **({of.metric: trial.value if math.isfinite(trial.value) else None} if of.metric else {}),
        **kept,
        "steps": trial.steps,
        "seconds": trial.seconds,
        "parameters": trial.parameters,
        "tokens": trial.tokens,
        "flops": trial.flops,
        "peak_bytes": trial.peak_bytes,
        "reason": trial.reason,
        "run_dir": "" if trial.run_dir is None else str(trial.run_dir.relative_to(of.folder)),
    }


def read_sweep(folder: str | Path, metric: str | None = None) -> SweepResults:
    """Returns the trials of a sweep with their numbers and costs.

    Args:
      metric: `split/number` that chooses; None: that of the study, else of the trials.

    Raises DataError where the folder is no sweep, and ConfigError where the test split chooses.
    """
    folder = Path(folder)
    plan, planned = read_plan(folder)
    states, notes = read_ledger(folder / LEDGER)
    study = plan.get("study") if isinstance(plan.get("study"), Mapping) else {}
    swept = [_plain_name(name) for name in _texts(plan.get("swept"))]
    swept += [name for one in planned for name in one["options"] if name not in swept]
    swept = list(dict.fromkeys(swept))
    seeds = [name for name in swept if is_seed(name) or name in _texts(study.get("seeds"))]
    metric = metric or str(study.get("metric") or "")
    if not metric:
        metric, told = _metric_of(folder, planned, states)
        notes += told
    if metric and "/" not in metric:
        metric = f"validation/{metric}"
    check_metric(metric)
    trials, told_of = [], {}
    for one in planned:
        trial, told = _trial(folder, one, states.get(one["id"]), metric, seeds, swept, study)
        trials.append(trial)
        for text in told:
            told_of.setdefault(text, []).append(trial.number)
    notes += [f"{trials_text(numbers)}: {text}" for text, numbers in told_of.items()]
    notes += _unknown(states, planned)
    if planned and not metric:
        notes.append("No trial says by which number it chooses: name one with metric=.")
    options = [name for name in swept if name not in seeds]
    less = lower_is_better(metric)
    fixed = _fixed(plan, {*options, *seeds})
    return SweepResults(folder, fixed, options, seeds, metric, less, study, trials, notes)


def _fixed(plan: Mapping[str, Any], swept: set[str]) -> list[str]:
    """Returns the overrides that all trials have, as the plan says them or by its command."""
    if isinstance(plan.get("fixed"), list):
        words = _texts(plan["fixed"])
    else:
        words = [word for word in _texts(plan.get("given")) if "=" in word]
    name = lambda word: _plain_name(word.partition("=")[0])
    aside = lambda word: name(word) in {*swept, "run_dir"} or name(word).startswith("hydra")
    return [word for word in words if not aside(word)]


def check_metric(metric: str) -> None:
    """Raises ConfigError where the number that is to choose is one of the test split."""
    if metric.partition("/")[0] == "test":
        raise ConfigError(
            f"metric={metric}: the test split is reported once and chooses nothing; choose by"
            f" validation/{metric.partition('/')[2]}"
        )


def is_seed(name: str) -> bool:
    """Returns whether an option is a seed: trials that differ in it alone are of one arm."""
    return name.partition(".")[0] in SEEDS or name.endswith("_seed")


def lower_is_better(metric: str) -> bool:
    """Returns whether less is better of `split/number`."""
    name = metric.partition("/")[2]
    less = {"loss", *by_name.lower_is_better(by_name.METRICS)}
    # one number for each target has its name behind it
    return name in less or any(name.startswith(f"{other}_") for other in less)


# --- the plan and the ledger
# --------------------------------------------------------------------------------------------------
def read_plan(folder: Path) -> tuple[Mapping[str, Any], list[dict[str, Any]]]:
    """Returns the plan, and of each trial its number, id, options, words and config.

    Raises DataError where there is none, or it is not of the shape of one.
    """
    path = folder / PLAN
    if not path.is_file():
        raise DataError(f"{folder}: is no folder of a sweep (it has no {PLAN})")
    plan = documents.read_yaml(path, DataError, dict)
    if plan.get("contract", CONTRACT) != CONTRACT:
        raise DataError(
            f"{path}: is of contract {plan['contract']}, expected {CONTRACT}; another version of"
            " jaxsft wrote it"
        )
    trials = plan.get("trials")
    if not isinstance(trials, list):
        raise DataError(f"{path}: has no list of trials")
    out = []
    for i, one in enumerate(trials):
        if not isinstance(one, Mapping) or not isinstance(one.get("number"), int):
            raise DataError(f"{path}: trials[{i}]: expected a trial with a number and an id")
        words = one.get("overrides") or []
        if isinstance(words, Mapping):
            words = [f"{key}={value}" for key, value in words.items()]
        words = _texts(words)
        options = {_plain_name(w.partition("=")[0]): scalar(w.partition("=")[2]) for w in words}
        config = one.get("config") if isinstance(one.get("config"), Mapping) else {}
        found = {"number": one["number"], "id": str(one.get("id", one["number"]))}
        out.append(found | {"options": options, "words": words, "config": config})
    return plan, out


def read_ledger(path: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Returns what the ledger says of each trial by id, and a note for each line that is damaged.

    A torn last line, which a power cut leaves, is left out and no damage.
    """
    if not path.is_file():
        return {}, [f"{path.name} is missing: no trial is known to have started."]
    states: dict[str, dict[str, Any]] = {}
    notes = []
    lines = documents.read_text(path, DataError).split("\n")
    for i, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            event = documents.decode(line)
            state = states.setdefault(str(event["trial"]), {"status": "planned", "attempts": 0})
            _fold(state, event)
        except (ValueError, KeyError, TypeError, AttributeError):
            if i < len(lines):
                notes.append(f"{path.name}:{i}: is no event of a trial, and is left out.")
    return states, notes


def _fold(state: dict[str, Any], event: Mapping[str, Any]) -> None:
    """Adds one event to what is known of a trial.

    What an attempt says that is not the newest one no longer counts, but that it is done.
    """
    kind, attempt = str(event["event"]), int(event.get("attempt") or 0)
    if kind == "done":
        for key in ("run_dir", "seconds"):
            state[key] = event.get(key)
    if kind in ("planned", "superseded"):
        state["status"] = kind
    elif state["status"] == "superseded" or (state["status"] == "done" and kind != "done"):
        return
    elif kind in ("done", "cancelled"):
        state["status"] = kind
    elif kind == "leased":
        state |= {"status": kind, "attempts": attempt}
    elif attempt != state["attempts"] or state["status"] == "cancelled":
        return
    elif kind in UNFINISHED:
        state["status"] = kind
    elif kind == "failed":
        text = ": ".join(str(event[key]) for key in ("kind", "message") if event.get(key))
        state |= {"status": kind, "reason": facts.short(text, 300)}


def _unknown(states: Mapping[str, Any], planned: Sequence[Mapping[str, Any]]) -> list[str]:
    known = {one["id"] for one in planned}
    more = [name for name in states if name not in known]
    if not more:
        return []
    return [f"{LEDGER} has {len(more)} trials that {PLAN} does not have; they are left out."]


def _metric_of(
    folder: Path, planned: Sequence[Mapping[str, Any]], states: Mapping[str, Any]
) -> tuple[str, list[str]]:
    """Returns the metric that most trials chose their checkpoints by, and a note on the others.

    A run has it as it was resolved; a plan may say `auto`.
    """
    found: dict[str, list[int]] = {}
    for one in planned:
        name = _own_metric(one["config"])
        if name in ("", MIXED) and (run_dir := _run_dir(folder, one, states.get(one["id"]))):
            name = _own_metric(facts.config_or_empty(run_dir))
        if name not in ("", MIXED):
            found.setdefault(name, []).append(one["number"])
    metric = max(found, key=lambda name: len(found[name]), default="")
    return metric, [
        f"{trials_text(numbers)}: chose checkpoints by {name}, but is compared by {metric}."
        for name, numbers in found.items()
        if name != metric
    ]


def _own_metric(config: Mapping[str, Any]) -> str:
    own = config.get("evaluation")
    return str(own.get("metric") or "") if isinstance(own, Mapping) else ""


# --- a trial
# --------------------------------------------------------------------------------------------------
def _run_dir(
    folder: Path, planned: Mapping[str, Any], state: Mapping[str, Any] | None
) -> Path | None:
    """Returns the directory of a trial, None where there is none in the folder of the sweep."""
    asked = (state or {}).get("run_dir")
    name = f"jobs/{planned['number']:03d}-{planned['id'][:8]}"
    for place in (folder / str(asked) if asked else None, folder / name):
        # what a ledger says is no reason to read elsewhere
        if place and place.is_dir() and place.resolve().is_relative_to(folder.resolve()):
            return folder / place.resolve().relative_to(folder.resolve())
    return None


def _trial(
    folder: Path,
    planned: Mapping[str, Any],
    state: Mapping[str, Any] | None,
    metric: str,
    seeds: Sequence[str],
    swept: Sequence[str],
    study: Mapping[str, Any],
) -> tuple[SweptTrial, list[str]]:
    """Returns a trial, and what of it is missing or damaged."""
    state = state or {"status": "planned", "attempts": 0}
    values = {name: _value(name, planned) for name in swept}
    run_dir = _run_dir(folder, planned, state)
    options = {name: value for name, value in values.items() if name not in seeds}
    content: dict[str, Any] = {
        "status": state["status"],
        "attempts": state["attempts"],
        "run_dir": run_dir,
        "reason": state.get("reason", "") if state["status"] == "failed" else "",
        "seconds": state.get("seconds"),
    }
    notes = []
    if state["status"] == "done":
        if run_dir is None:
            notes.append("is done, but its run directory is missing.")
        else:
            found, notes = read_run(run_dir, metric)
            content |= {key: value for key, value in found.items() if value is not None}
    arm = _study_arm(study, planned["options"], planned["words"]) or label_of(options)
    words = planned["words"]
    of_seeds = {name: values[name] for name in seeds}
    number_of, trial_id = planned["number"], planned["id"]
    content["confirms"] = trial_id in _confirmations(study)
    return SweptTrial(number_of, trial_id, options, of_seeds, words, arm, **content), notes


def _confirmations(study: Mapping[str, Any]) -> set[str]:
    """Returns the trials that train what a search chose again, and had no part in the choice."""
    ids = lambda key: {name for one in study.get(key) or () for name in one.get("trials") or ()}
    return ids("confirmations") - ids("points")


def trials_text(numbers: Sequence[int]) -> str:
    """Returns trials as text, of many the first ones.

    >>> trials_text([3]), trials_text([0, 1, 2, 3, 4, 5, 6])
    ('trial 3', '7 trials (0, 1, 2, 3, 4, ...)')
    """
    if len(numbers) == 1:
        return f"trial {numbers[0]}"
    shown = ", ".join(map(str, numbers[:LISTED])) + (", ..." if len(numbers) > LISTED else "")
    return f"{len(numbers)} trials ({shown})"


def label_of(options: Mapping[str, Any]) -> str:
    """Returns the name of an arm: its options, of whose names the ends are enough, or what stands
    for none.

    >>> label_of({"optim.learning_rate": 0.001, "model.dropout": 0.1, "optim": "lion"})
    'learning_rate=0.001, dropout=0.1, optim=lion'
    """
    short = lambda name: name.rpartition(".")[2]
    ends = [short(name) for name in options]
    names = [short(name) if ends.count(short(name)) == 1 else name for name in options]
    pairs = zip(names, options.values(), strict=True)
    return ", ".join(f"{name}={text_of(value)}" for name, value in pairs) or "all trials"


def text_of(value: Any) -> str:
    """Formats a value of an option; one that a search drew has more digits than a reader wants."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _value(name: str, planned: Mapping[str, Any]) -> Any:
    """Returns the value of a swept option: as it was given, else as the config has it."""
    if name in planned["options"]:
        return planned["options"][name]
    node: Any = planned["config"]
    for part in name.split("."):
        node = node.get(part, ABSENT) if isinstance(node, Mapping) else ABSENT
    if isinstance(node, Mapping):  # a group
        node = next((node[key] for key in ("name", "kind") if key in node), ABSENT)
    return node if isinstance(node, str | int | float | bool) else facts.value_text(node)


def _study_arm(
    study: Mapping[str, Any], options: Mapping[str, Any], given: Sequence[str] = ()
) -> str:
    """Returns the name of the arm of a study whose options a trial has; "" where it has none's.

    Of several it is the one with the most options. A list or a mapping is known by the word that it
    was `given` as.
    """
    arms = study.get("arms")
    has = lambda key, value: (
        str(options.get(key)) == str(value)
        or {overrides.unquoted(word) for word in overrides.from_values({key: value})} <= {*given}
    )
    found = []
    for name, content in arms.items() if isinstance(arms, Mapping) else ():
        if isinstance(content, Mapping):
            wanted = {_plain_name(str(k)): v for k, v in content.items()}
        else:
            words = [content] if isinstance(content, str) else _texts(content)
            wanted = {
                _plain_name(w.partition("=")[0]): scalar(w.partition("=")[2])
                for w in words
                if "=" in w
            }
        if all(has(key, value) for key, value in wanted.items()):
            found.append((len(wanted), str(name)))
    return max(found, key=lambda pair: pair[0])[1] if found else ""


# --- words
# --------------------------------------------------------------------------------------------------
def _texts(values: Any) -> list[str]:
    return [str(value) for value in values] if isinstance(values, list | tuple) else []


def _plain_name(name: str) -> str:
    return name.lstrip("+~").strip()


def scalar(text: str) -> Any:
    """Returns a word of the command line as the number or truth value that it is, else as text."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    named = {"true": True, "false": False, "null": None}
    if text.lower() in named:
        return named[text.lower()]
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else text
    return text
