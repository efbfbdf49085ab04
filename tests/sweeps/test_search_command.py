"""Searches from the command line: processes that train nothing, and one search that trains."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jaxsft import documents
from jaxsft.errors import ConfigError, DataError
from jaxsft.sweeps import analysis, search_book, search_runs, search_study, sweep_parent, worse_rows
from jaxsft.sweeps.sweep_plan import SweepPlan
from tests import tiny
from tests.sweeps import sweeping
from tests.sweeps.sweeping import starts, states, statuses, until_started

optuna = pytest.importorskip("optuna", reason="needs jaxsft[search]")

FAKE = (sys.executable, str(Path(__file__).with_name("search_worker.py")))
STUDY = """
question: Which learning rate?
options: {task: lm, data.train: book.txt, data.validation: book.txt}
search:
  trials: 4
  start: 2
  confirm: 2
  metric: validation/loss
  space: {optim.learning_rate: {low: 1e-5, high: 1e-2, log: true}}
"""


@pytest.fixture
def study(place, monkeypatch):
    monkeypatch.setattr(sweep_parent, "WORKER", FAKE)
    Path("book.txt").write_text(sweeping.LINES)
    Path("rate").mkdir()
    Path("rate/study.yaml").write_text(STUDY)
    return place


def parent(*words: str) -> subprocess.Popen:
    """A parent in a process of its own, with workers that are processes and train nothing."""
    code = (
        "import sys; from jaxsft.sweeps import launchers, sweep_parent; from pathlib import Path;"
        f"sweep_parent.WORKER = {FAKE!r};"
        f"sys.exit(launchers.study(Path('rate'), {list(words)!r}))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(*words: str) -> tuple[int, str, str]:
    return tiny.jaxsft("sweep", "run", "rate", "run_dir=s", *words)


def told(folder: str = "s") -> list:
    """Optuna's trials."""
    plan = SweepPlan.read(folder)
    url = search_study.url_of(None, Path(folder))
    return optuna.load_study(study_name=f"rate {plan.created}", storage=url).trials


def test_a_killed_search_goes_on_and_a_second_parent_is_refused(study):
    Path("s").mkdir()
    Path("s/wait").touch()
    first = parent("run_dir=s", "sweep.slots=2")
    until_started({0: 1, 1: 1})
    code, _, err = run()
    assert code == 1 and "runs this sweep; wait for it" in err
    sweeping.kill(first)
    os.kill(states("s")[1].pid, signal.SIGKILL)
    Path("s/go").touch()
    code, out, err = run("sweep.slots=2")
    assert code == 0, err
    # what ran without a parent was waited for, what was killed ran again; four points and two
    # confirmations
    assert starts("s") == {0: 1, 1: 2, 2: 1, 3: 1, 4: 1, 5: 1}
    assert statuses("s") == ["done"] * 6
    assert [t.state.name for t in told()] == ["COMPLETE"] * 4
    assert [t.value for t in told()] == [s.value for s in states("s")[:4]]
    assert "with 2 other seeds: validation/loss" in out
    code, out, _ = tiny.jaxsft("sweep", "status", "s")
    assert code == 0 and "search: best: point" in out and "the search found it" in out
    found = documents.read_json(Path("s/search.json"), DataError, dict)
    about = found["best"][0]["confirmation"]
    assert found["searched"] and found["best"][0]["confirmed"] and about["trials"] == [4, 5]
    assert "selection_bias" in about["validation/loss"]
    # the report has the search, and the confirmations in no arm
    page = (study / "s/report.html").read_text("utf-8")
    assert '<section id="search">' in page and "selection bias" in page.lower()
    one = analysis.analyse(analysis.read_sweep("s"), replicates=200)
    assert [t.number for t in one.results.trials if t.confirms] == [4, 5]
    assert sum(len(group.trials) for group in one.groups) == 4 == len(one.results.measured())
    best = found["best"][0]
    assert one.summaries[one.best].mean == best["found"]["validation/loss"]
    assert one.summaries[one.best].n == 1 and not one.search.warning()
    assert one.search.confirmed["validation/loss"]["mean"] == about["validation/loss"]["mean"]
    # more of the same
    code, _, err = run("sweep.slots=2", "search.trials=5", "search.confirm=1")
    assert code == 0, err
    assert len(search_book.points_of(SweepPlan.read("s"))) == 5
    code, _, err = run("search.sampler=random")
    assert code == 1 and "rate/study.yaml: search.sampler: found 'random', but s holds" in err
    code, _, err = tiny.jaxsft("sweep", "resume", "s")
    assert code == 0, err


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("metric: validation/loss", "metric: test/loss", "study.yaml: search.metric: found 't"),
        ("metric: validation/loss", "metric: validation/f1", "unknown; task=lm has validation/"),
        ("low: 1e-5", "low: -1", "rate/study.yaml: search.space.optim.learning_rate.low: found -1"),
        ("low: 1e-5, high: 1e-2, log: true", "low: -1, high: 1", "cannot run; none was started"),
        ("optim.learning_rate", "optim.lr", "cannot run; none was started"),
        ("confirm: 2", "prune: wilcoxon", "wilcoxon compares rows of finished trainings"),
        ("confirm: 2", "constraints: {validation/f1: {at_most: 1}}", "unknown; task=lm has"),
        ("confirm: 2", "confirms: 2", "rate/study.yaml: search.confirms: unknown option; did you"),
        ("question:", "arms: {a: {}}\nquestion:", "expected either arms or trials, or search"),
        ("options: {", "seeds: [0, 1]\noptions: {", None),
        ("options: {", "options: {evaluation.metric: validation/perplexity, ", "leave one of"),
    ],
)  # fmt: skip
def test_a_wrong_study_is_a_sentence_and_nothing_is_started(study, old, new, said):
    Path("rate/study.yaml").write_text(STUDY.replace(old, new))
    words = ["search.prune=median"] if said is None else []
    code, out, err = run(*words)
    assert code == 1 and err.startswith("jaxsft: ") and not Path("s").exists(), out
    assert (said or "median looks at one training") in err and "Traceback" not in err


def test_without_optuna_it_says_what_to_install(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, err = run()
    assert (code, err) == (1, "jaxsft: search: install jaxsft[search]\n")


def test_seeds_train_each_set_of_values_and_rows_end_it_early(study, monkeypatch):
    Path("rate/study.yaml").write_text(
        STUDY.replace("options:", "seeds: [0, 1, 2]\noptions:").replace("confirm: 2", "confirm: 1")
    )
    asked = []

    def is_worse(runs, others, name, more):
        asked.append((len(runs), [run.name[:3] for run in others], name, more))
        return len(asked) == 1

    monkeypatch.setattr(worse_rows, "is_worse", is_worse)
    monkeypatch.setattr(search_runs, "of_rows", lambda *_: True)
    code, _, err = run("search.prune=wilcoxon", "search.start=1", "search.trials=3")
    assert code == 0, err
    # the first point was not asked for; of the second, two seeds were spared
    assert statuses("s")[:9] == ["done"] * 4 + ["cancelled"] * 2 + ["done"] * 3
    assert states("s")[4].message == "pruned: wilcoxon, after 1 of 3"
    assert asked[0] == (1, ["000"], "validation/loss", False) and asked[2][0] == 2
    assert [t.state.name for t in told()] == ["COMPLETE", "PRUNED", "COMPLETE"]
    mean = sum(s.value for s in states("s")[:3]) / 3
    assert told()[0].value == pytest.approx(mean)
    # the confirmation has a seed that none of them had
    assert SweepPlan.read("s").trials[9].config["seed"] == 3


def test_parameters_are_a_bound(study):
    code, _, err = tiny.jaxsft(
        "train", "-m", "task=lm", "data.train=book.txt", "data.validation=book.txt",
        "train.batch_size=8,16,32", "search.sampler=grid", "search.confirm=0", "run_dir=s",
        "search.constraints={parameters: {at_most: 20000}}", "sweep.slots=2",
    )  # fmt: skip
    assert code == 0, err
    found = documents.read_json(Path("s/search.json"), DataError, dict)
    assert found["points"]["done"] == 3 and found["infeasible"] == 1
    assert found["best"][0]["values"] == {"train.batch_size": 8}


@pytest.mark.slow
def test_a_search_trains_finds_and_confirms(place):
    """Two sets of values and a confirmation, truly trained."""
    tiny.data(place)
    code, _, err = tiny.jaxsft(
        "train", "-m", "task=classify", "data.train=labels.jsonl", "data.test=labels_held.jsonl",
        "data.columns.text=text", "data.columns.label=label", "data.validation=labels_held.jsonl",
        *tiny.FAST, "optim.learning_rate=0.0,0.01", "search.sampler=grid", "search.confirm=1",
        "search.metric=validation/loss", "run_dir=s", "evaluation.replicates=0",
    )  # fmt: skip
    assert code == 0, err
    found = documents.read_json(Path("s/search.json"), DataError, dict)
    (best,) = found["best"]
    assert best["values"] == {"optim.learning_rate": 0.01} and best["confirmed"]
    plan = SweepPlan.read("s")
    assert [one.config["seed"] for one in plan.trials] == [0, 0, 1]
    assert all(one.config["evaluation"]["metric"] == "validation/loss" for one in plan.trials)
    runs = [[one.run_dir] for one in plan.trials[:2]]
    assert not worse_rows.is_worse(runs[0], runs[0], "validation/accuracy", True)
    with pytest.raises(ConfigError, match="f1_macro is no mean over rows"):
        worse_rows.is_worse(*runs, "validation/f1_macro", True)


def test_rows_say_which_is_worse(tmp_path):
    right = {"a": [1] * 30 + [0] * 10, "b": [1] * 15 + [0] * 25, "c": [1] * 29 + [0] * 11}
    for name, column in right.items():
        rows = [{"row": i, "text": str(i), "correct": x} for i, x in enumerate(column)]
        (tmp_path / name / "predictions").mkdir(parents=True)
        tiny.write_lines(tmp_path / name / "predictions/validation.jsonl", rows)
    a, b, c = (tmp_path / name for name in right)
    assert worse_rows.is_worse([b], [a], "validation/correct", True)
    assert not worse_rows.is_worse([a], [b], "validation/correct", True)
    assert worse_rows.is_worse([a], [b], "validation/correct", False)
    assert not worse_rows.is_worse([c], [a], "validation/correct", True)
    assert worse_rows.is_worse([b, c], [a, a], "validation/correct", True)
