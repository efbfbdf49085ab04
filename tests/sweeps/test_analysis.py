"""The analysis of a sweep: its trials, arms, warnings, tables and report."""

import csv
import json
import math
import subprocess
import sys

import pytest
import yaml

from jaxsft.errors import ConfigError, DataError
from jaxsft.rundir import read_json, write_json
from jaxsft.sweeps import analysis, sweep_reading, sweep_tables
from jaxsft.sweeps.sweep_findings import analyse
from tests.sweeps.fake_sweep import Made, make

pytestmark = pytest.mark.heart
DROPOUT = {"model.dropout": [0.1, 0.5]}
BETTER = lambda options: 0.7 + 0.12 * (options.get("model.dropout") == 0.5)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two arms of four seeds, of which the second is clearly better; one trial failed."""
    how = Made(DROPOUT, seeds=(0, 1, 2, 3), quality=BETTER, rows=400, broken={1: "failed"})
    return make(tmp_path_factory.mktemp("sweep"), how)


def found_in(folder, how, **more):
    return analyse(analysis.read_sweep(make(folder, how), **more), replicates=200)


# --- trials
# --------------------------------------------------------------------------------------------------
def test_trials_have_options_numbers_and_costs(sweep):
    results = analysis.read_sweep(sweep)
    assert results.metric == "validation/accuracy" and not results.lower_is_better
    assert list(results.options) == ["model.dropout"] and list(results.seeds) == ["seed"]
    first, failed = results.trials[:2]
    assert first.options == {"model.dropout": 0.1} and first.seeds == {"seed": 0}
    numbers = read_json(first.run_dir / "result.json")
    assert first.value == numbers["validation/accuracy"] and first.steps == 40
    # 40 steps of 8 rows of 30 tokens; 2,000 FLOPs a token
    assert (first.tokens, first.flops) == (9600, 9600 * 2000) and first.parameters == 7000
    assert failed.status == "failed" and failed.reason == "error: train.batch_size=0: is too few"
    assert math.isnan(failed.value) and not failed.measured


def test_the_table_of_trials_is_csv_and_parquet(sweep):
    analysis.write_report(sweep)
    with open(sweep / "trials.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 and rows[1]["reason"].startswith("error: train.batch_size=0")
    assert float(rows[0]["validation/accuracy"]) > 0 and rows[1]["validation/accuracy"] == ""
    # of the test split one number is reported, of what was chosen
    assert not [name for name in rows[0] if name.startswith("test/")]
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.read_parquet(sweep / "trials.parquet")
    assert list(frame["model.dropout"]) == [float(row["model.dropout"]) for row in rows]


def test_without_pandas_there_is_csv_alone(sweep, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    old = tmp_path / "trials.parquet"
    old.write_bytes(b"of an earlier time")
    assert sweep_tables.write_parquet(old, [{"a": 1}]) is None and not old.exists()


# --- arms
# --------------------------------------------------------------------------------------------------
def test_seeds_make_an_arm_and_the_better_one_is_told(sweep):
    found = analyse(analysis.read_sweep(sweep), replicates=300)
    assert [(g.label, len(g.trials), g.failed) for g in found.groups] == [
        ("dropout=0.1", 3, 1), ("dropout=0.5", 4, 0)
    ]  # fmt: skip
    assert found.best == "dropout=0.5"
    (pair,) = found.family.pairs
    assert pair.verdict == "better" and found.family.split == "test"
    assert (pair.shared, pair.seeds_better) == (3, 3) and pair.row_se > 0 and pair.seed_se >= 0
    one = found.summaries["dropout=0.5"]
    assert one.low <= one.mean <= one.high and one.iqm_low <= one.iqm <= one.iqm_high
    values = sorted(found.group("dropout=0.5").values)
    assert one.iqm == pytest.approx(sum(values[1:3]) / 2)


def test_the_command_of_the_best_arm_is_the_fixed_words_and_its_own(sweep):
    found = analyse(analysis.read_sweep(sweep), replicates=200)
    assert found.command() == (
        "jaxsft train task=classify data.train=rows.jsonl model.dropout=0.5 seed=0"
    )


def test_the_fixed_words_are_those_of_the_plan(sweep, tmp_path):
    folder = make(tmp_path, Made(DROPOUT, seeds=(0,)))
    plan = yaml.safe_load((folder / "plan.yaml").read_text())
    plan["fixed"] = ["task=classify", "data.train='my rows.jsonl'"]
    write_json(folder / "plan.yaml", plan)  # YAML too
    found = analyse(analysis.read_sweep(folder), replicates=200)
    assert found.command().startswith("jaxsft train task=classify 'data.train='\"'\"'my rows.jsonl")


def test_of_a_number_where_less_is_better_the_lowest_wins(tmp_path):
    found = found_in(tmp_path, Made(DROPOUT, quality=BETTER, metric="validation/loss"))
    assert found.results.lower_is_better and found.best == "dropout=0.5"
    found = found_in(tmp_path / "other", Made(DROPOUT, quality=BETTER), metric="validation/loss")
    assert found.best == "dropout=0.5"


def test_many_arms_are_compared_with_the_best_where_they_were_chosen(tmp_path):
    """Of a search the test split has no part in comparisons: one number of it is reported."""
    how = Made({"model.dropout": [i / 10 for i in range(8)]}, quality=BETTER, seeds=(0, 1))
    found = found_in(tmp_path, how)
    assert found.family.split == "validation" and found.family.reference == found.best
    assert len(found.family.pairs) == 7 and {pair.a for pair in found.family.pairs} == {found.best}


def test_arms_of_a_study_have_its_names_and_its_baseline(tmp_path):
    study = {
        "name": "Does dropout help?", "question": "Is 0.5 better than 0.1?", "baseline": "plain",
        "arms": {"plain": ["model.dropout=0.1"], "more": {"model.dropout": 0.5}},
    }  # fmt: skip
    how = Made(
        arms=[{"model.dropout": 0.1}, {"model.dropout": 0.5}], quality=BETTER, study=study, rows=800
    )
    found = found_in(tmp_path, how)
    assert [group.label for group in found.groups] == ["plain", "more"]
    assert [(pair.a, pair.b) for pair in found.family.pairs] == [("plain", "more")]
    text = analysis.write_report(tmp_path).read_text("utf-8")
    assert "Does dropout help?" in text and "Is 0.5 better than 0.1?" in text


def test_runs_without_statistics_are_compared_by_their_seeds(tmp_path):
    found = found_in(tmp_path, Made(DROPOUT, quality=BETTER, statistics=False, seeds=(0, 1, 2, 3)))
    (pair,) = found.family.pairs
    assert pair.test == "t of shared seeds" and pair.verdict == "better"
    assert any("seeds alone" in note for note in found.family.notes)


# --- what chooses
# --------------------------------------------------------------------------------------------------
def test_the_test_split_never_chooses(tmp_path):
    make(tmp_path, Made(DROPOUT, study={"metric": "test/accuracy"}))
    for call in (analysis.read_sweep, analysis.write_report):
        with pytest.raises(
            ConfigError, match="the test split is reported once and chooses nothing"
        ):
            call(tmp_path)
    with pytest.raises(ConfigError, match="choose by validation/accuracy"):
        analysis.read_sweep(tmp_path, "test/accuracy")
    text = analysis.write_report(tmp_path, "validation/accuracy").read_text("utf-8")
    assert "the test split chose nothing" in text


def test_a_number_without_a_split_is_that_of_validation(tmp_path):
    make(tmp_path, Made(DROPOUT, study={"metric": "loss"}))
    results = analysis.read_sweep(tmp_path)
    assert results.metric == "validation/loss" and results.lower_is_better


def test_trials_that_choose_by_several_numbers_are_told(tmp_path):
    """All are compared by one number, that of the most, and a sentence says so."""
    make(tmp_path, Made(DROPOUT))
    plan = yaml.safe_load((tmp_path / "plan.yaml").read_text())
    plan["trials"][0]["config"]["evaluation"]["metric"] = "validation/loss"
    plan["trials"][1]["config"]["evaluation"] = "no mapping"
    write_json(tmp_path / "plan.yaml", plan)  # YAML too
    results = analysis.read_sweep(tmp_path)
    assert results.metric == "validation/accuracy"
    told = "trial 0: chose checkpoints by validation/loss, but is compared by validation/accuracy."
    assert told in results.notes
    assert analysis.read_sweep(tmp_path, "validation/loss").lower_is_better


# --- bold
# --------------------------------------------------------------------------------------------------
def test_a_table_for_a_paper_is_bold_where_holm_says_better(sweep, tmp_path):
    tex = sweep_tables.latex(analyse(analysis.read_sweep(sweep), replicates=300))
    plain, strong = (line for line in tex.splitlines() if line.startswith("0."))
    assert r"\mathbf" in strong and r"\mathbf" not in plain and r"\pm" in plain
    assert r"\toprule" in tex and "model.dropout & seeds" in tex
    tied = found_in(tmp_path, Made(DROPOUT, rows=100, seed_sd=0.05))
    assert r"\mathbf" not in sweep_tables.latex(tied)


def test_text_in_a_table_is_no_command():
    assert sweep_tables.escaped(r"a_b & 50% \input{x}") == (
        r"a\_b \& 50\% \textbackslash{}input\{x\}"
    )


# --- what is not there
# --------------------------------------------------------------------------------------------------
def warnings_of(folder):
    text = analysis.write_report(folder).read_text("utf-8")
    assert text.endswith("</html>\n") or text.rstrip().endswith("</html>")
    return analyse(analysis.read_sweep(folder), replicates=200).warnings


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({0: "started", 4: "planned"}, "2 of 6 trials are not finished."),
        (dict.fromkeys(range(6), "failed"), "No trial is finished"),
        (dict.fromkeys(range(6), "planned"), "No trial is finished"),
        ({2: "no_run"}, "trial 2: is done, but its run directory is missing."),
        ({2: "no_result"}, "trial 2: result.json is missing from this run."),
        ({2: "nan"}, "trial 2: validation/accuracy is not finite."),
        (dict.fromkeys(range(6), "nan"), "No trial is finished and has the number"),
    ],
)
def test_a_sweep_that_is_not_whole_has_a_report_and_a_sentence(tmp_path, broken, told):
    make(tmp_path, Made(DROPOUT, broken=broken))
    assert any(told in line for line in warnings_of(tmp_path))


@pytest.mark.parametrize("seeds", [(0,), (3,), (0, 1)])
def test_few_seeds_have_a_report(tmp_path, seeds):
    make(tmp_path, Made(DROPOUT, seeds=seeds, quality=BETTER))
    warnings_of(tmp_path)
    found = analyse(analysis.read_sweep(tmp_path), replicates=200)
    if len(seeds) == 1:
        assert found.family.pairs[0].verdict == "needs seeds"


def test_seeds_alone_are_one_arm(tmp_path):
    make(tmp_path, Made(arms=[{}], seeds=(0, 1, 2)))
    warnings_of(tmp_path)
    found = analyse(analysis.read_sweep(tmp_path))
    assert [group.label for group in found.groups] == ["all trials"] and not found.family.pairs


def test_a_torn_last_line_of_the_ledger_is_no_damage(tmp_path):
    make(tmp_path, Made(DROPOUT))
    whole = warnings_of(tmp_path)
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_text(ledger.read_text() + '{"time": "t", "event": "fai')
    assert warnings_of(tmp_path) == whole
    lines = ledger.read_text().splitlines()
    ledger.write_text("\n".join(["no JSON", "[]", *lines]))
    told = [line for line in warnings_of(tmp_path) if "ledger.jsonl:" in line]
    assert [line.partition(" ")[0] for line in told] == ["ledger.jsonl:1:", "ledger.jsonl:2:"]


def test_the_last_event_of_a_trial_is_its_state(tmp_path):
    make(tmp_path, Made(DROPOUT, broken={0: "failed"}))
    ledger = tmp_path / "ledger.jsonl"
    of = {"time": "t", "trial": "0" * 64, "number": 0, "attempt": 2, "host": "here", "pid": 1}

    def add(*events):
        lines = [json.dumps({**of, "event": event}) + "\n" for event in events]
        ledger.write_text(ledger.read_text() + "".join(lines))

    add("leased", "started")
    trial = analysis.read_sweep(tmp_path).trials[0]
    assert (trial.status, trial.attempts, trial.reason) == ("started", 2, "")
    of["attempt"] = 1
    add("failed")  # of an attempt that no longer counts
    assert analysis.read_sweep(tmp_path).trials[0].status == "started"
    add("superseded")
    results = analysis.read_sweep(tmp_path)
    assert results.trials[0].status == "superseded"
    assert analyse(results, replicates=200).groups[0].planned == 2


def test_damaged_files_of_a_trial_cost_what_they_hold(tmp_path):
    make(tmp_path, Made(DROPOUT))
    run = next(tmp_path.glob("jobs/000-*"))
    for name in ("metrics.jsonl", "manifest.json", "times.jsonl", "intervals.json", "ledger.json"):
        (run / name).write_text("[1, 2")
    (run / "predictions" / "test.npz").write_bytes(b"no zip")
    told = warnings_of(tmp_path)
    assert sum("trial 0:" in line for line in told) >= 3
    found = analyse(analysis.read_sweep(tmp_path), replicates=200)
    assert found.family.split == "validation"  # the rows of test cannot be compared
    assert any("rows of test are not compared" in note for note in found.family.notes)


def test_a_run_directory_outside_the_sweep_is_not_read(tmp_path):
    other = make(tmp_path / "other", Made(DROPOUT))
    folder = make(tmp_path / "mine", Made(DROPOUT, broken={0: "no_run"}))
    ledger = folder / "ledger.jsonl"
    secret = str(next(other.glob("jobs/000-*")))
    ledger.write_text(ledger.read_text().replace("jobs/000-00000000", secret))
    assert analysis.read_sweep(folder).trials[0].run_dir is None


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (None, "is no folder of a sweep"),
        ("trials: 3\n", "has no list of trials"),
        ("trials: [{id: x}]\n", "expected a trial with a number and an id"),
        ("contract: 2\ntrials: []\n", "is of contract 2, expected 1"),
        ("a: [", "not a readable YAML file"),
        ("[]", "found a list"),
    ],
)
def test_a_folder_that_is_no_sweep_is_one_sentence(tmp_path, plan, told):
    if plan is not None:
        (tmp_path / "plan.yaml").write_text(plan)
    with pytest.raises(DataError, match=told):
        analysis.write_report(tmp_path)


def test_a_plan_without_trials_has_a_report(tmp_path):
    (tmp_path / "plan.yaml").write_text("trials: []\n")
    assert "The plan has no trial." in warnings_of(tmp_path)
    assert (tmp_path / "study.tex").read_text() == "% No trial has a number yet.\n"


def test_trials_that_lack_the_same_are_told_together(tmp_path):
    make(tmp_path, Made(DROPOUT))
    analysis.write_report(tmp_path, "validation/bleu")
    notes = analysis.read_sweep(tmp_path, "validation/bleu").notes
    assert list(notes) == ["6 trials (0, 1, 2, 3, 4, ...): validation/bleu is missing."]


def test_a_sweep_that_says_no_number_is_a_sentence(tmp_path):
    make(tmp_path, Made(DROPOUT, metric="auto"))
    assert any("No trial says by which number it chooses" in line for line in warnings_of(tmp_path))
    assert analysis.read_sweep(tmp_path, "validation/accuracy").measured()


def test_options_that_are_not_given_are_read_from_the_config(tmp_path):
    """A trial that leaves a swept option at its default has the value that ran."""
    make(tmp_path, Made(arms=[{"model.dropout": 0.3}, {"optim": "lion"}], seeds=(0,)))
    plan = yaml.safe_load((tmp_path / "plan.yaml").read_text())
    for trial in plan["trials"]:
        trial["config"] |= {"model": {"dropout": 0.1}, "optim": {"name": "adamw"}}
    write_json(tmp_path / "plan.yaml", plan)  # YAML too
    first, second = analysis.read_sweep(tmp_path).trials
    assert first.options == {"model.dropout": 0.3, "optim": "adamw"}
    assert second.options == {"model.dropout": 0.1, "optim": "lion"}


# --- words
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("1e-3", 0.001),
        ("true", True),
        ("null", None),
        ("lion", "lion"),
        ("nan", "nan"),
        ("'a'", "a"),
    ],
)
def test_words_are_the_numbers_that_they_are(text, value):
    assert sweep_reading.scalar(text) == value and type(sweep_reading.scalar(text)) is type(value)


@pytest.mark.parametrize(
    ("name", "seed"),
    [("seed", True), ("seeds.init", True), ("data.split_seed", True), ("data.seeded", False)],
)
def test_which_options_are_seeds(name, seed):
    assert sweep_reading.is_seed(name) == seed


def test_names_of_arms_are_as_short_as_they_can_be():
    label = sweep_reading.label_of
    assert label({"optim.learning_rate": 1e-3, "model.dropout": 0.1}) == (
        "learning_rate=0.001, dropout=0.1"
    )
    assert label({"train.batch_size": 8, "evaluation.batch_size": 4}) == (
        "train.batch_size=8, evaluation.batch_size=4"
    )


def test_the_analysis_imports_no_jax(sweep):
    code = (
        "import sys; from jaxsft.sweeps import analysis; analysis.write_report(sys.argv[1]);"
        " print([m for m in ('jax', 'flax', 'optax') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(sweep)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_an_arm_whose_option_is_a_list_has_its_name():
    groups = {"optim.lr_groups": [{"pattern": "head/.*", "factor": 50}]}
    study, word = {"arms": {"full": groups}}, "optim.lr_groups=[{pattern:'head/.*',factor:50}]"
    of = lambda word: sweep_reading._study_arm(study, {"optim.lr_groups": "as text"}, [word])
    assert of(word) == "full" and of(word.replace("50", "5")) == ""
