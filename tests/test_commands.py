"""Small commands: completion, env, report of several runs; and what is told before and while a run
trains.
"""

import math
import subprocess

import jax
import pytest
import yaml

from jaxsft import cli, invocation, progress
from jaxsft.commands import completion, env
from jaxsft.config import overrides, schema
from jaxsft.data import config_files
from jaxsft.errors import ConfigError, DataError
from jaxsft.reports import facts, run_comparison
from jaxsft.rundir import JsonLines, read_json, write_json, write_text
from jaxsft.sharding import platforms
from jaxsft.training import callbacks
from tests import tiny
from tests.reports.fake_run import make


# --- completion
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("jaxsft tra", ["train ", "transfer "]),
        ("jaxsft train train.dur", ["train.duration="]),
        ("jaxsft train sched", ["schedule.", "schedule="]),
        ("jaxsft train seed=1 see", ["seeds."]),
        (
            "jaxsft train optim=ada",
            ["optim=adafactor ", "optim=adagrad ", "optim=adam ", "optim=adamw "],
        ),
        ("jaxsft train adapter.ran", ["adapter.rank="]),
        ("jaxsft check model.attention=b", ["model.attention=blocked "]),
        ("jaxsft train data.train=", []),  # a file
        ("jaxsft eval data.pa", ["data.packing=", "data.path="]),
        ("jaxsft predict in", ["input="]),
        ("jaxsft prepare output.d", ["output.dir="]),
        ("jaxsft export export.dtype=b", ["export.dtype=bf16 "]),
        ("jaxsft report ru", []),
        ("jaxsft", []),
    ],
)
def test_a_tab_completes(line, expected):
    assert completion.answers(line) == expected


def test_the_shell_calls_a_command_that_is_there():
    for asked in (["completion", "bash"], ["train", "-sc", "install=bash"]):
        code, out, err = tiny.jaxsft(*asked)
        assert code == 0 and not err and "jaxsft completion query" in out
    assert tiny.jaxsft("completion", "query", "jaxsft trai")[1] == "train \n"
    assert tiny.jaxsft("completion", "tcsh")[0] == 1
    line = "jaxsft train optim=mu"
    words = f'COMP_LINE="{line}" COMP_POINT={len(line)}; _jaxsft; echo "${{COMPREPLY[@]}}"'
    stand_in = 'command() { echo "optim=muon "; }'  # of the query, which the lines above ask
    done = subprocess.run(
        ["bash", "-c", f"{completion.BASH}\n{stand_in}\n{words}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "muon"  # bash completes what stands behind the sign


def test_help_shows_the_options_that_are_used_first():
    """By heading, each once, with its default; they say so themselves."""
    from jaxsft.commands import options_help

    named = [key for options in options_help.common().values() for key, _ in options]
    assert 15 <= len(named) <= 25 and len(named) == len(set(named))
    text = options_help.text()
    assert all(f"  {key}=" in text for key in named)
    assert "[0.001]" in text and "[false]" in text
    assert max(map(len, text.splitlines())) <= 100
    assert text.index("Data:") < text.index("Training:") < text.index("The run:")


def test_help_lists_every_task_and_group():
    out = tiny.jaxsft("train", "--help")[1]
    assert (
        all(f"\n  {name} " in out for name in schema.TASKS)
        and "optim=" in out
        and "--config-dir DIR experiment=NAME" in out
    )
    assert all(
        cls.__doc__ and not cls.__doc__.startswith(cls.__name__) for cls in schema.TASKS.values()
    )


# --- env and devices
# --------------------------------------------------------------------------------------------------
def test_env_tells_versions_devices_and_extras():
    code, out, _ = tiny.jaxsft("env")
    told = {line[:22].strip(): line[22:].strip() for line in out.splitlines()}
    assert (
        code == 0
        and told["jax"] == jax.__version__
        and told["devices"].startswith(f"{len(jax.devices())}: cpu")
    )
    assert {"jaxsft", "python", "NVIDIA driver", "cache"} <= told.keys()
    assert set(env.extras()) >= {"cuda", "text", "hub"} or not env.extras()


@pytest.mark.parametrize(
    "error", [AssertionError(), RuntimeError("Unable to initialize backend 'cuda'")]
)
def test_a_platform_that_is_not_there_is_one_sentence(error, monkeypatch):
    def fail():
        raise error

    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.setattr(platforms, "_asked", lambda: "cuda")
    with pytest.raises(
        ConfigError, match=r"JAX_PLATFORMS=cuda: JAX finds no such device .* needs jaxsft\[cuda\]"
    ):
        platforms.devices()
    assert "no such device" in dict(env.lines())["devices"]
    monkeypatch.setattr(platforms, "_asked", lambda: "gqu")
    with pytest.raises(ConfigError, match=r"JAX_PLATFORMS=gqu: .* expected cpu, cuda or tpu"):
        platforms.devices()


def test_a_gpu_that_is_not_used_is_told(monkeypatch):
    monkeypatch.setattr(platforms.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(platforms, "_asked", lambda: "")
    assert "jaxsft[cuda]" in platforms.unused_gpu(jax.devices())
    monkeypatch.setattr(platforms, "_asked", lambda: "cpu")
    assert not platforms.unused_gpu(jax.devices())


# --- what is told
# --------------------------------------------------------------------------------------------------
def test_a_path_that_is_not_there_is_told_before_jax(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv: there is no such file"):
        config_files.check_files(
            overrides.composed(["task=classify", f"data.train={tmp_path / 'none.csv'}"])
        )
    (tmp_path / "a.csv").write_text("text,label\n")
    config_files.check_files(
        overrides.composed(
            ["task=classify", f"data.train={tmp_path}/*.csv", "data.test=hub:datasets/a/b@main/c"]
        )
    )


def test_a_stage_that_takes_long_is_told(capsys, monkeypatch):
    class At(progress.threading.Timer):
        def start(self):
            self.function(*self.args)

    with progress.ended():
        progress.doing("reading")
    assert capsys.readouterr().err == "" and progress._timer is None
    monkeypatch.setattr(progress.threading, "Timer", At)
    progress.doing("compiling")
    progress.done()
    assert capsys.readouterr().err == "compiling ...\n"


def test_without_a_terminal_there_are_some_twenty_lines_of_loss(capsys):
    shown = callbacks.Progress(1000, 0)
    for step in range(10, 1001, 10):
        shown.update(step, {"loss": 1.0, "learning_rate": 1e-3, "tokens_per_second": 5.0})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 20 and lines[0].startswith(
        "step 50/1,000 · loss 1.0000 · lr 1.00e-03 · 5 tokens/s"
    )
    shown = callbacks.Progress(10**9, 0)
    shown.SECONDS = 0  # long runs tell a line a minute
    shown.update(10, {"loss": 1.0, "learning_rate": 1e-3, "tokens_per_second": 5.0})
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_command_of_a_run_can_be_pasted(tmp_path):
    cli.main(["env"])
    assert invocation.command() == ["jaxsft", "env"]
    run = make(tmp_path / "run")
    write_json(
        run / "manifest.json", {"command": ["jaxsft", "train", "data.train=it's.csv", "task=chat"]}
    )
    assert facts.command(run) == """jaxsft train 'data.train=it'"'"'s.csv' task=chat"""
    with JsonLines(run / "times.jsonl") as lines:
        for seconds in (3600, 65):
            lines.append(
                {
                    "started": "2026-01-02T03:04:05+00:00",
                    "seconds": seconds,
                    "host": "h",
                    "peak_host_bytes": 2**30,
                }
            )
    assert facts.sessions(run) == [
        ("started", "2026-01-02 03:04:05 UTC"),
        ("duration", "1 h 1 min, in 2 sessions"),
        ("host", "h"),
        ("peak memory of the process", "1.0 GiB"),
    ]


# --- several runs
# --------------------------------------------------------------------------------------------------
def test_runs_are_set_side_by_side(tmp_path):
    runs = [make(tmp_path / name) for name in ("one", "two")]
    config = yaml.safe_load((runs[1] / "config.yaml").read_text())
    config |= {
        "seed": 7,
        "run_dir": "elsewhere",
        "evaluation": config["evaluation"] | {"metric": "validation/accuracy"},
    }
    write_text(runs[1] / "config.yaml", yaml.safe_dump(config))
    write_json(
        runs[1] / "result.json",
        read_json(runs[1] / "result.json") | {"test/accuracy": 0.5, "validation/loss": math.inf},
    )
    found = run_comparison.compare(runs)
    assert found.options == ["evaluation.metric", "seed"] and found.chosen == "accuracy"
    assert found.lines() == [
        (
            "run  evaluation.metric    seed  test/accuracy *  test/loss  validation/accuracy * "
            " validation/loss"
        ),
        "one  auto                 3     0.9625           0.1235     0.97                   NaN",
        (
            "two  validation/accuracy  7     0.5              0.1235     0.97                  "
            " Infinity"
        ),
    ]
    code, out, err = tiny.jaxsft("report", *map(str, runs), f"output={tmp_path / 'both.html'}")
    assert code == 0, err
    text = (tmp_path / "both.html").read_text("utf-8")
    assert (
        out.splitlines()[1].startswith("one")
        and text.count("<h3>") == 3
        and "Validation: accuracy" in text
        and "http:" not in text
    )
    assert tiny.jaxsft("report", "output=x")[0] == tiny.jaxsft("report")[0] == 1
    assert "not a run directory" in tiny.jaxsft("report", str(runs[0]), str(tmp_path))[2]
