"""The command line as a user meets it: every command, and one clear line for everything that is
wrong.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import subprocess
import sys

import pytest

from jaxsft import cli, rundir, tasks
from jaxsft.commands import hydra_app, predict
from jaxsft.config import overrides
from jaxsft.data import splits
from jaxsft.errors import ConfigError
from jaxsft.training import setup
from tests import realdata, tiny
from tests.tiny import jaxsft


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny.data(tmp_path_factory.mktemp("data"))


def training(files, run):
    """The words of the run of `classified`."""
    data = [f"data.train={files / 'labels.jsonl'}", f"data.test={files / 'labels_held.jsonl'}"]
    return ["train", "task=classify", *data, f"run_dir={run}", *tiny.FAST]


@pytest.fixture(scope="module")
def classified(files, tmp_path_factory):
    run = tmp_path_factory.mktemp("classify") / "run"
    code, out, err = jaxsft(*training(files, run))
    assert code == 0, err
    return run, out


@pytest.fixture(scope="module")
def chatted(files, tmp_path_factory):
    run = tmp_path_factory.mktemp("chat") / "run"
    code, _, err = jaxsft(
        "train", "task=chat", f"data.train={files / 'chat.jsonl'}", f"run_dir={run}", *tiny.FAST
    )
    assert code == 0, err
    return run


# --- what works
# --------------------------------------------------------------------------------------------------
def test_help_answers_without_jax():
    code = (
        "import sys; from jaxsft import cli; cli.main(['--help']); cli.main(['train', '--help']);"
        " print('jax' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert out.endswith("False\n") and "usage: jaxsft" in out and "debug=overfit" in out


def test_a_run_directory_is_whole(classified):
    run, out = classified
    wanted = {
        "config.yaml",
        "manifest.json",
        "ledger.json",
        "metrics.jsonl",
        "result.json",
        "checkpoints",
        "predictions",
        "figures",
        "tensorboard",
        "report.md",
        "intervals.json",
    }
    curves = rundir.read_json(run / "figures" / "curves_test.json")
    assert curves["rows"] == 12 and sum(curves["reliability"]["rows"]) == 12
    assert wanted <= {p.name for p in run.iterdir()}
    numbers = rundir.read_json(run / "result.json")
    assert numbers["test/rows"] == 12 and "{" not in out
    table = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    found = rundir.read_json(run / "intervals.json")["test/accuracy"]
    told = f"* {numbers['test/accuracy']:.4g} [{found['low']:.4g}, {found['high']:.4g}]"
    assert " ".join(table["accuracy"]) == told
    assert table["report:"] == [str(run / "report.html")]
    assert rundir.read_json(run / "manifest.json")["command"][:2] == ["jaxsft", "train"]
    assert rundir.read_jsonl(run / "times.jsonl")[0].keys() >= {
        "started",
        "seconds",
        "host",
        "first_step",
        "last_step",
    }
    lines = rundir.read_jsonl(run / "predictions" / "test.jsonl")
    assert [line["row"] for line in lines] == list(range(12))
    assert sum(line["correct"] for line in lines) / 12 == numbers["test/accuracy"]


def test_eval_gives_the_numbers_of_training(classified, files):  # guards A10, E1
    run, _ = classified
    code, out, err = jaxsft(
        "eval", f"run={run}", f"data.path={files / 'labels_held.jsonl'}", "evaluation.batch_size=3"
    )
    assert code == 0, err
    again, numbers = json.loads(out), rundir.read_json(run / "result.json")
    for name in ("accuracy", "f1_macro", "rows", "loss"):
        assert again[f"labels_held/{name}"] == pytest.approx(numbers[f"test/{name}"], rel=1e-6)


def test_predict_answers_every_row_in_order(classified, chatted, files, tmp_path):  # guards E2, E3
    texts = [r["text"] for r in rundir.read_jsonl(files / "labels_held.jsonl")]
    tiny.write_lines(tmp_path / "in.jsonl", [{"text": t} for t in texts])
    code, _, err = jaxsft(
        "predict",
        f"run={classified[0]}",
        f"input={tmp_path / 'in.jsonl'}",
        f"output={tmp_path / 'out.jsonl'}",
    )
    assert code == 0, err
    lines, before = (
        rundir.read_jsonl(tmp_path / "out.jsonl"),
        rundir.read_jsonl(classified[0] / "predictions" / "test.jsonl"),
    )
    assert [x["text"] for x in lines] == texts
    assert [x["prediction"] for x in lines] == [x["prediction"] for x in before]
    tiny.write_lines(tmp_path / "ask.jsonl", [{"prompt": t} for t in texts[:3]])
    code, _, err = jaxsft(
        "predict",
        f"run={chatted}",
        f"input={tmp_path / 'ask.jsonl'}",
        f"output={tmp_path / 'answers.jsonl'}",
    )
    assert code == 0, err
    answers = rundir.read_jsonl(tmp_path / "answers.jsonl")
    assert [x["prompt"] for x in answers] == texts[:3]
    code, out, _ = jaxsft("generate", f"run={chatted}", f"prompt={texts[0]}")
    assert code == 0 and out.strip() == answers[0]["prediction"].strip()  # guards C10


def test_one_file_is_split(files):
    words = ["task=classify", f"data.path={files / 'labels.tsv'}", "data.columns.text=1"]
    config = overrides.composed([*words, "data.columns.label=0", *tiny.FAST])
    found = splits.read_splits(setup.resolve(config), tasks.get("classify"))
    assert set(found) == {"train", "validation", "test"}
    assert sum(len(part.records) for part in found.values()) == 40


def test_a_second_start_repeats_the_numbers(classified, files):
    run, out = classified
    code, again, err = jaxsft(*training(files, run))
    assert code == 0 and "is complete" in err and out.endswith(again) and "accuracy *" in again


def test_a_sweep_finds_what_cannot_run_before_anything_starts(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = jaxsft(
        "train",
        "-m",
        "task=lm",
        f"data.train={files / 'book.txt'}",
        "model.kv_heads=1,3,2",
        "optim.learning_rate=1e-3,fast",
        *[o for o in tiny.FAST if "kv_heads" not in o],
    )
    lines = err.splitlines()
    assert code == 1 and len(lines) == 5, err
    assert (
        "job 2 (model.kv_heads=3,optim.learning_rate=0.001): model.kv_heads=3: does not divide"
        in (lines[1])
    )
    assert "job 5 (model.kv_heads=2,optim.learning_rate=fast): optim.learning_rate: " in lines[3]
    assert lines[4] == "jaxsft: 4 of 6 jobs cannot run; none was started"
    assert not (tmp_path / "runs").exists()


def test_a_sweep_trains_each_job_and_sets_them_side_by_side(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        "train",
        "-m",
        "task=lm",
        f"data.train={files / 'book.txt'}",
        "model.kv_heads=1,2",
        "run_dir=two",
        *[o for o in tiny.FAST if "kv_heads" not in o],
    ]
    code, out, err = jaxsft(*words)
    assert code == 0, err
    runs = sorted(tmp_path.glob("two/jobs/*/result.json"))
    assert [p.parent.name[:4] for p in runs] == ["000-", "001-"]
    table = [line.split() for line in out[out.rindex("\nrun ") + 1 :].splitlines()]
    assert [line[1] for line in table[:3]] == ["model.kv_heads", "1", "2"]
    assert (tmp_path / "two" / "comparison.html").is_file()
    command = rundir.read_json(runs[0].parent / "manifest.json")["command"]
    assert "-m" not in command and "model.kv_heads=1" in command
    assert f"run_dir={runs[0].parent.relative_to(tmp_path)}" in command
    # the words of one trial train that trial: here they find it complete
    code, _, err = jaxsft(*command[1:])
    assert code == 0 and "this run is complete" in err
    # and the sweep is complete: nothing is trained again
    before = [p.stat().st_mtime_ns for p in runs]
    code, again, err = jaxsft(*words)
    assert code == 0 and "(2 done; 1 at a time)" in err and "started" not in err
    assert again == out and before == [p.stat().st_mtime_ns for p in runs]


@pytest.mark.parametrize(
    "given",
    [
        "task.variables={mood: kind, deep: false}",
        "task.variables.mood=kind +task.variables.deep=false",
    ],
)
def test_the_user_names_the_variables_of_a_template(given, files, tmp_path):
    given = given.split(" ") if "{" not in given else [given]
    turn, prompt = (
        "<|user|>{{ mood }}{{ deep }}{{ m.content }}<|end|>",
        "<|user|>{{ mood }}{{ deep }}",
    )
    template = (
        "{% for m in messages %}"
        + turn
        + "{% endfor %}{% if add_generation_prompt %}"
        + prompt
        + "{% endif %}"
    )
    (tmp_path / "mine.jinja").write_text(template)
    given += [f"task.template={tmp_path / 'mine.jinja'}", "tokenizer=bytes"]
    code, out, err = jaxsft("check", "task=chat", f"data.train={files / 'chat.jsonl'}", *given)
    assert code == 0, out + err
    assert "<|user|>kindFalse[+" in out  # as it is trained


def test_text_is_taken_as_it_stands(tmp_path):
    code, _, err = jaxsft("train", "task=lm", f"data.train={tmp_path}/it's a=b, 中文 (x).txt")
    assert (
        code == 1 and err == f"jaxsft: {tmp_path}/it's a=b, 中文 (x).txt: there is no such file\n"
    )


# --- what is wrong
# --------------------------------------------------------------------------------------------------
FILES = {
    "empty.csv": b"",
    "bytes.csv": b"text,label\nx,a\n\xff,b\n",
    "columns.csv": b"foo,bar\n1,2\n",
    "good.csv": b"text,label\nx,a\ny,b\n",
    "label.csv": b"text,label\nx,a\ny,q\n",
    "cells.csv": b"text,label\nx,a\ny,b,c\n",
    "broken.jsonl": b'{"prompt": "a", "completion": "b"}\n{"prompt": "a",\n',
    "long.jsonl": json.dumps({"prompt": "a" * 3000, "completion": "b"}).encode() + b"\n",
}
WRONG = [
    (["train"], "no training data: set data.train=FILE"),
    (["train", "task=classify", "data.train=none.csv"], "none.csv: there is no such file"),
    (["train", "task=classify", "data.train=empty.csv"], "empty.csv:1: the file is empty"),
    (
        ["train", "task=classify", "data.train=bytes.csv"],
        "bytes.csv:3: byte 15 (0xff) is not valid utf-8",
    ),
    (["train", "task=classify", "data.train=columns.csv"], "columns.csv:1: missing column 'text'"),
    (["train", "task=classify", "data.train=cells.csv"], "cells.csv:3: found 3 cells, expected 2"),
    (
        ["train", "task=classify", "data.train=good.csv", "data.test=label.csv"],
        "label.csv:3: label 'q' is not in the vocabulary of 2 labels",
    ),
    (["train", "task=chat", "data.train=broken.jsonl"], "broken.jsonl:2: broken JSON"),
    (["train", "task=chat", "data.train=long.jsonl"], "long.jsonl:1: "),
    (
        ["train", "task=clasify", "data.train=good.csv"],
        "task=clasify: unknown; there are chat, classify, joint, lm",
    ),
    (
        ["train", "data.train=good.csv", "optim.lr=1"],
        "optim.lr: unknown option of optim=adamw; did you mean optim.learning_rate?",
    ),
    (
        ["train", "task=classify", "data.train=good.csv", "optim=sgd", "optim.b1=0.9"],
        "optim.b1: unknown option",
    ),
    (
        ["train", "task=classify", "data.train=good.csv", "evaluation.metric=validation/foo"],
        "evaluation.metric=validation/foo: unknown",
    ),
    (
        ["train", "task=classify", "data.train=good.csv", "train.duration=5"],
        "train.duration=5: expected a number with a unit",
    ),
    (
        ["train", "task=classify", "data.train=good.csv", "mesh.data=16"],
        "mesh.data=16 mesh.fsdp=1 mesh.context=1 mesh.tensor=1 needs 16 devices, found 8",
    ),
    (
        ["train", "task=classify", "data.train=good.csv", "data.path=good.csv"],
        "data.path excludes data.train",
    ),
    (["train", "task=classify", "data.train=good.csv", "train.freeze=[nothing]"], "nothing"),
    (["train", "data.train"], "data.train: expected key=value"),
    (["eval", "run=none", "data.path=good.csv"], "none: not a run directory"),
    (["predict", "run=none"], "missing input="),
    (["report", "none"], "none"),
    (["nothing"], "unknown command nothing; there are demo, prepare, train"),
]


@pytest.mark.parametrize(
    "arguments, message", WRONG, ids=lambda x: " ".join(x[-2:]) if isinstance(x, list) else ""
)
# guards D9, D12, E8, H5
def test_what_is_wrong_is_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    code, out, err = jaxsft(*arguments)
    assert code == 1 and not out
    assert err.startswith("jaxsft: ") and err.count("\n") == 1 and message in err
    assert not list(tmp_path.glob("runs/*"))  # nothing is left behind


def test_what_a_run_cannot_change_is_refused(classified, files):
    code, _, err = jaxsft(
        "eval", f"run={classified[0]}", f"data.path={files / 'labels_held.jsonl'}", "model.layers=9"
    )
    assert code == 1 and "model.layers: cannot be changed for a trained run" in err


def test_a_batch_that_the_devices_cannot_share_is_refused(classified, files):
    given = (
        "eval",
        f"run={classified[0]}",
        f"data.path={files / 'labels_held.jsonl'}",
        "mesh.data=8",
    )
    code, _, err = jaxsft(*given, "evaluation.batch_size=3")
    assert (
        code == 1
        and "evaluation.batch_size=3: not divisible by mesh.data x mesh.fsdp=8" in err
        and "Traceback" not in err
    )
    assert jaxsft(*given, "evaluation.batch_size=8")[0] == 0


def test_a_row_that_is_dropped_has_its_line_in_a_file_of_cells(classified, tmp_path):  # guards E3
    """First or not, and where predictions have columns by their names."""
    for texts in (["", "red cat", "a dog"], ["red cat", ""]):
        tiny.write_lines(
            tmp_path / "in.jsonl", [{"id": i, "text": text} for i, text in enumerate(texts)]
        )
        code, _, err = jaxsft(
            "predict",
            f"run={classified[0]}",
            f"input={tmp_path / 'in.jsonl'}",
            f"output={tmp_path / 'out.csv'}",
        )
        assert code == 0, err
        lines = list(csv.DictReader((tmp_path / "out.csv").open(encoding="utf-8")))
        assert [(int(x["id"]), x["text"], x["dropped"], bool(x["prediction"])) for x in lines] == [
            (i, text, "" if text else "empty", bool(text)) for i, text in enumerate(texts)
        ]
    lost, whole = (
        {"text": "", "prediction": None, "dropped": "empty"},
        {
            "text": "a",
            "prediction": {"x": 1, "y": 2},
            "probability": {"x": 0.5},
        },
    )
    rows = predict.table([lost, whole], ";")
    assert rows[1] == {
        "text": "a",
        "prediction_x": 1,
        "prediction_y": 2,
        "probability_x": 0.5,
        "dropped": None,
    }
    assert rows[0] == {
        "text": "",
        "prediction_x": None,
        "prediction_y": None,
        "probability_x": None,
        "dropped": "empty",
    }
    assert (
        list(rows[0]) == list(rows[1])
        and predict.table([lost], ";") == [lost]
        and "dropped" not in predict.table([whole], ";")[0]
    )


def test_predictions_are_written_whole_or_not_at_all(classified, tmp_path):
    (tmp_path / "in.csv").write_bytes(b"text\nfine\n\xff\n")
    code, _, err = jaxsft(
        "predict",
        f"run={classified[0]}",
        f"input={tmp_path / 'in.csv'}",
        f"output={tmp_path / 'out.jsonl'}",
    )
    assert code == 1 and "in.csv:3: byte" in err and not (tmp_path / "out.jsonl").exists()


@pytest.mark.slow
def test_a_run_of_many_devices_opens_on_one(classified, files, tmp_path, monkeypatch):
    import jax

    given = (
        "train",
        "task=classify",
        f"data.train={files / 'labels.jsonl'}",
        f"data.test={files / 'labels_held.jsonl'}",
        *tiny.FAST,
    )
    code, _, err = jaxsft(
        *given, "mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2", f"run_dir={tmp_path / 'run'}"
    )
    assert code == 0, err
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    code, out, err = jaxsft(
        "eval", f"run={tmp_path / 'run'}", f"data.path={files / 'labels_held.jsonl'}"
    )
    assert code == 0 and "trained on 8 devices; running on one of 1" in err
    again, numbers = json.loads(out), rundir.read_json(tmp_path / "run" / "result.json")
    assert again["labels_held/loss"] == pytest.approx(numbers["test/loss"], rel=1e-5)


def test_an_answer_that_cannot_be_reached_is_an_error(files, tmp_path):
    given = [
        "train",
        "task=chat",
        f"data.train={files / 'chat.jsonl'}",
        f"data.test={files / 'chat_held.jsonl'}",
        f"run_dir={tmp_path / 'run'}",
        *tiny.FAST,
    ]
    given = [*given, "evaluation.generate=end"]
    code, _, err = jaxsft(*given)
    assert (
        code == 1
        and "chat_held.jsonl:" in err
        and "more than generate.max_new_tokens=4" in err
        and "generate.allow_cut=true" in err
    )
    assert not (tmp_path / "run").exists()
    code, out, err = jaxsft(*given, "generate.allow_cut=true")
    assert code == 0 and "references are longer and count as wrong" in out


# --- real files
# --------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_ledger_of_gsm8k_is_full(tmp_path):  # guards B6
    folder = realdata.real("gsm8k")
    columns = ("data.columns.prompt=question", "data.columns.completion=answer")
    code, _, err = jaxsft(
        "train",
        "task=chat",
        f"data.train={folder / 'test.jsonl'}",
        *columns,
        f"run_dir={tmp_path / 'run'}",
        *tiny.FAST,
        "model.context=2048",
    )
    assert code == 0, err
    rows = rundir.read_json(tmp_path / "run" / "ledger.json")["train"]["rows"]
    assert rows["read"] == rows["kept"] == 1319


LONG = "n" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "task=classify", f"data.path={LONG}.csv"],
        ["check", "task=classify", "data.path=\udc80.csv"],
        ["check", "task=classify", f"data.path={LONG}/*.csv"],
        ["prepare", f"data.path={LONG}.csv", "stages=[clean]", "output.dir=o"],
        ["prepare", "data.path=a.csv", "stages=[clean]", f"output.dir={LONG}"],
        ["quality", "data.path=a.csv", f"output={LONG}"],
        ["predict", f"run={LONG}", "input=a.csv", "output=o.jsonl"],
        ["predict", "run=\udc80", "input=a.csv", "output=o.jsonl"],
        ["report", LONG],
        ["report", "\udc80"],
        ["train", "task=classify", "data.path=a.csv", "run_dir=\udc80"],
    ],
)
def test_a_name_that_no_file_can_have_is_one_line(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("text,label\nx,a\ny,b\n")
    code, out, err = jaxsft(*arguments)
    told = err.strip() or out.strip()
    as_finding = (
        arguments[0] == "check"
        and "unreadable: train cannot be read" in told
        and "refused: 1 error" in told
    )
    assert code == 1 and (as_finding or len(told.splitlines()) == 1) and "Traceback" not in told, (
        ascii(told)
    )


def test_what_is_raised_in_a_job_comes_through_without_lines_of_hydra(monkeypatch, capsys):
    def broken(config):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        hydra_app.run(["task=classify", "data.path=a.csv"], broken)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "content, told",
    [
        ("seed: " + "[" * 300 + "]" * 300, "nested more than 100 deep"),
        ("a: &a [1]\nb: *a\n", "alias or anchor 'a'"),
    ],
    ids=["nested", "alias"],
)
def test_a_preset_of_the_user_has_the_bounds_of_every_yaml_file(tmp_path, content, told):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{content}")
    with pytest.raises(ConfigError, match=rf"mine\.yaml:\d.*{told}"):
        hydra_app.run(
            ["--config-dir", str(tmp_path), "experiment=mine", "task=classify", "data.path=a.csv"],
            lambda config: 0,
        )


def test_an_override_that_nests_without_end_is_refused_in_a_sentence():
    with pytest.raises(ConfigError, match=r"^task\.variables: .* more than 50 deep"):
        hydra_app.run(
            ["task=chat", "task.variables={a: " + "[" * 3000 + "]" * 3000 + "}"], lambda config: 0
        )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_behind_the_output_is_a_sentence(number, monkeypatch, capsys):
    monkeypatch.setattr(
        cli, "_dispatch", lambda argv: (_ for _ in ()).throw(OSError(number, os.strerror(number)))
    )
    assert cli.main(["report", "run"]) == 1
    assert (
        capsys.readouterr().err == f"jaxsft: the output: cannot be used ({os.strerror(number)})\n"
    )


def test_after_a_failure_nothing_follows_the_one_line(monkeypatch, capsys):
    """The process ends while the exception is held: what it holds is not collected, and says
    nothing.
    """

    class Loud:
        def __del__(self):
            print("late", file=sys.stderr)

    def failing(arguments):
        loud = Loud()
        raise rundir.JaxsftError("no") from RuntimeError(loud)

    ends = []
    monkeypatch.setattr(
        cli.importlib, "import_module", lambda name: type("M", (), {"main": staticmethod(failing)})
    )
    assert (
        cli.main(
            ["report", "x"], end=lambda code: ends.append((code, capsys.readouterr().err)) or code
        )
        == 1
    )
    assert ends == [(1, "jaxsft: no\n")]


def test_numbers_that_are_not_finite_are_printed_as_json_has_them():
    assert json.loads(rundir.json_text({"r2": float("nan"), "x": [float("-inf")]}, indent=1)) == {
        "r2": "NaN",
        "x": ["-Infinity"],
    }
