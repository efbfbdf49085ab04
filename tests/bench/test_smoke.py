"""Every benchmark runs, with tiny sizes: none of them is called by anything else."""

import importlib.util
import json
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from jaxsft import cli
from jaxsft.commands import hydra_app
from jaxsft.data.records import MultiLabel, Regression
from tests.tiny import FAST, data, write_lines
from tools.bench import cumulative, decode, impute, startup, sweep, train_step
from tools.bench import data as data_bench


@pytest.fixture
def files(tmp_path):
    return data(tmp_path)


def chat(files):
    return ["task=chat", f"data.train={files / 'chat.jsonl'}", "model=small", *FAST]


def test_every_bench_is_run_here_or_has_a_test_of_its_own():
    here, workers = Path(__file__), {"jax_loop", "torch_loop"}  # of train_step
    benches = {path.stem for path in (here.parents[2] / "tools" / "bench").glob("*.py")} - workers
    tested = {path.stem.removeprefix("test_") for path in here.parent.glob("test_*.py")}
    tested |= {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert not benches - tested


def test_cumulative(files, monkeypatch, capsys):
    monkeypatch.setattr(cumulative, "STEPS", 1)
    monkeypatch.setattr(cumulative, "ROUNDS", 1)
    assert hydra_app.run(chat(files), cumulative.bench) == 0
    out = capsys.readouterr().out
    assert "| padded |" in out and "| + remat |" in out


@pytest.mark.slow
def test_bounds(capsys, monkeypatch):
    pytest.importorskip("sklearn")
    from tools.bench import bounds

    seconds, before, after = bounds.measured("a mean", 3000, 4, 120)
    assert seconds > 0 and after >= before > 0
    monkeypatch.setattr(bounds, "measured", lambda *_: [seconds, before, after])
    bounds.main(["rows=3000", "classes=4", "replicates=120", "by_hand=2"])
    assert capsys.readouterr().out.count("x |") == len(bounds.CASES)


@pytest.mark.slow
def test_sweep(capsys, monkeypatch):
    """What its processes would do is done in this one; those that it times do nothing."""

    def start(arguments, caches):
        code = sweep.main(arguments[1:]) if arguments[0] != "-m" else cli.main(arguments[2:])
        assert not code
        return subprocess.Popen([sys.executable, "-c", ""])

    monkeypatch.setattr(sweep, "start", start)
    assert sweep.compare("tiny", "", trials=4, steps=2, measured=2) > 0
    assert "4 processes, 2 at a time (2 were run)" in capsys.readouterr().out


@pytest.mark.slow
def test_data(capsys):
    data_bench.main(rows=60, rounds=1)
    assert "encode" in capsys.readouterr().out


def test_decode(monkeypatch, capsys):
    from jaxsft.config.model import ModelConfig

    tiny = ModelConfig(layers=1, embed=16, heads=2, kv_heads=2, head_dim=8, mlp=32)
    monkeypatch.setattr(decode, "ModelConfig", lambda: tiny)
    monkeypatch.setattr(decode, "ROUNDS", 1)
    decode.main(2, 8, 4)
    assert "no cache" in capsys.readouterr().out


def test_dedup(monkeypatch, capsys):
    pytest.importorskip("datasketch")
    from tools.bench import dedup

    monkeypatch.setattr(sys, "argv", ["dedup", "--rows", "40", "--rounds", "1"])
    dedup.main()
    assert "ratio of medians" in capsys.readouterr().out


def test_impute(tmp_path, monkeypatch, capsys):
    rows = [{"V": i % 7, "A": (3 * i) % 11, "D": i % 7 + (3 * i) % 11} for i in range(40)]
    path = write_lines(tmp_path / "numbers.jsonl", rows)
    some = {name: impute.IMPUTERS[name] for name in ("mean", "knn, 5")}
    monkeypatch.setattr(impute, "IMPUTERS", some)
    monkeypatch.setattr(sys, "argv", ["impute", str(path), "--seeds", "1"])
    impute.main()
    assert "| knn, 5 |" in capsys.readouterr().out


def test_metrics(monkeypatch, capsys):
    for name in ("sklearn", "scipy", "seqeval"):
        pytest.importorskip(name)
    from tools.bench import metrics

    sections = [x for name in metrics.SECTIONS for x in ("--section", name)]
    sizes = ["--rows", "4000", "--labels", "5", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["metrics", *sections, *sizes])
    metrics.main()
    out = capsys.readouterr().out
    assert "| chunk_scores |" in out and "| auroc_binned |" in out and "| kendall |" in out


@pytest.mark.slow
def test_startup(files, tmp_path):
    options = ["task=lm", f"data.train={files / 'book.txt'}", "model=small", *FAST]
    assert startup.first_step(options, tmp_path / "caches", tmp_path / "run") > 0


@pytest.mark.slow
@pytest.mark.parametrize("task", ["chat", "classify"])
def test_train_step(files, task, monkeypatch, capsys):
    """Ours, and where PyTorch is installed its loop too, which begins with the same loss."""
    for name, value in (("BATCHES", 1), ("ROUNDS", 1), ("STEPS", 1), ("PROMPTS", 2), ("NEW", 2)):
        monkeypatch.setattr(train_step, name, value)
    variants = ["jaxsft packed fp32"]
    if all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
        variants += ["torch packed fp32 eager"]
    monkeypatch.setenv("BENCH_VARIANTS", ",".join(variants))
    options = {
        "chat": chat(files),
        "classify": [
            *("task=classify", f"data.train={files / 'labels.jsonl'}", "task.head=linear"),
            *("task.pool=mean", "model=small", *FAST),
        ],
    }[task]
    assert (
        hydra_app.run([*options, "model.dropout=0", "loss.label_smoothing=0"], train_step.bench)
        == 0
    )
    out = capsys.readouterr().out
    assert "train: median of 1 rounds" in out
    trained = out.partition("train: ")[2].partition("evaluate: ")[0]
    losses = re.findall(r"  (\d+\.\d{4})  ", trained)  # of the first batch, before any step
    assert len(losses) == len(variants) and len(set(losses)) == 1


@pytest.mark.slow
def test_generate(capsys):
    pytest.importorskip("transformers")
    from tools.bench import generate

    generate.main(model="tiny", batches="2", prompt=8, new=8, repeats=1)
    assert "x transformers" in capsys.readouterr().out


@pytest.mark.slow
def test_texts(files, tmp_path, capsys):
    pytest.importorskip("sklearn")
    from jaxsft import api
    from tools.bench import texts

    run = tmp_path / "run"
    given = [f"data.{split}={files / 'labels.jsonl'}" for split in ("train", "validation", "test")]
    api.train("task=classify", "model=small", *given, *FAST, f"run_dir={run}")
    texts.main(run)
    assert "accuracy" in capsys.readouterr().out and json.loads((run / "result.json").read_text())
    texts_of = lambda made: types.SimpleNamespace(records=[made(i) for i in range(12)])
    of = lambda made: dict.fromkeys(("train", "validation", "test"), texts_of(made))
    numbers = lambda i: Regression(f"word{i % 3} and", None, (float(i % 3), 1.0 + i % 3))
    assert texts.regress(of(numbers), {})["mse"] < 0.5
    sets = lambda i: MultiLabel(f"word{i % 3} and", None, ("a",) if i % 3 else ("b",))
    state = {"labels": ["a", "b"], "thresholds": []}
    assert texts.multilabel(of(sets), state) == {"f1_micro": 1.0, "f1_macro": 1.0}
