"""`--cfg job` prints the config that runs, without JAX."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
import yaml

import jaxsft
from jaxsft import cli
from jaxsft.config import compose
from jaxsft.training import setup
from tests.training.test_pretrained import folder

OPEN = ("mesh", "precision")  # what only the devices decide


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("model") / "source", num_hidden_layers=3)


def shown(capsys, *given: str) -> tuple[str, dict]:
    code = cli.main(["train", "--cfg", "job", *given])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out, yaml.safe_load(out)


@pytest.mark.parametrize(
    "given",
    [
        ("task=lm",),
        ("task=lm", "adapter=lora", "adapter.lr_ratio=4"),
        ("task=classify",),
        ("task=lm", "optim.learning_rate=0.5", "seed=3"),
        ("task=lm", "debug=fast"),
    ],
    ids=" ".join,
)
def test_it_is_the_config_that_runs(capsys, source, given):
    given = (*given, f"model.pretrained={source}", "data.train=x", "data.validation=y")
    text, found = shown(capsys, *given)
    wanted = json.loads(json.dumps(compose.to_dict(setup.resolve(jaxsft.compose(*given)))))
    assert [name for name in wanted if found[name] != wanted[name] and name not in OPEN] == []
    assert found["mesh"]["data"] == found["precision"] == "auto"
    assert "# decided by the devices: mesh.data, precision" in text


def test_a_value_that_nobody_gave_says_where_it_comes_from(capsys, source):
    text, found = shown(capsys, "task=lm", f"model.pretrained={source}")
    assert found["train"]["duration"] == "3epochs" and found["model"]["layers"] == 3
    assert "# train.duration=3epochs: a pretrained model\n" in text
    assert "# optim.learning_rate=0.001: a pretrained decoder of width 24" in text
    text, found = shown(capsys, "task=lm", "optim.learning_rate=0.25", f"model.pretrained={source}")
    assert found["optim"]["learning_rate"] == 0.25 and "# optim" not in text


def test_a_part_of_it_and_presets_of_a_folder(capsys, source, tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\noptim:\n  b1: 0.5\n")
    given = ("--package", "optim", "--resolve", "--config-dir", str(tmp_path), "experiment=mine")
    _, found = shown(capsys, "task=lm", *given)
    assert found["name"] == "adamw" and found["b1"] == 0.5


@pytest.mark.parametrize(
    "flags, message",
    [
        (["-m", "--cfg", "job"], "--multirun and --cfg: expected one of them"),
        (["--cfg"], "--cfg: expected a value behind it"),
        (["--cfg", "nope"], "--cfg nope: expected one of job, hydra, all"),
        (["--info=nope"], "--info nope: expected one of all, config"),
        (["--resolve"], "--resolve: is read with --cfg job only"),
        (["--experimental-rerun", "x"], "--experimental-rerun: unknown flag"),
        (["--cfg", "job", "-p", "optim.b1"], "--package optim.b1: expected a part"),
        (["--cfg", "job", "-cd", "nowhere"], "--config-dir nowhere: there is no such folder"),
        (["--cfg", "job", "model.pretrained=nowhere"], "nowhere: not a run directory"),
        (["--cfg", "job", "model.mlp=3000000000"], "model.mlp=3000000000: expected a number below"),
        (["--cfg", "job", "adapter=lora", "adapter.rank=99999999999"], "adapter.rank=99999999999:"),
        (["--cfg", "job", "~optim"], "optim: found nothing, expected its options"),
        (["--cfg", "job", "train.duration=1e400epochs"], "train.duration=1e400epochs: expected"),
        (["--cfg", "job", "data.path=x", "data.fractions=[1,1,-1]"], "data.fractions=[1.0, 1.0,"),
        (["--cfg", "job", "task.pool=first", "model.causal=true"], "task.pool=first: the first"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(capsys, flags, message):
    assert cli.main(["train", "task=classify", *flags]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"jaxsft: {message}") and err.count("\n") == 1


def test_a_name_of_the_hub_needs_a_network(capsys, monkeypatch, tmp_path):
    pytest.importorskip("huggingface_hub")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    given = ["train", "--cfg", "job", "task=lm", "model.pretrained=hub:owner/name@v1.0"]
    assert cli.main(given) == 1
    err = capsys.readouterr().err
    assert err.startswith("jaxsft: hub:owner/name@v1.0: ") and err.count("\n") == 1


def test_it_needs_no_jax_and_little_time(source):
    code = (
        "import sys; from jaxsft import cli; cli.main(sys.argv[1:]);"
        " print('jax' in sys.modules, file=sys.stderr)"
    )
    given = ["train", "--cfg", "job", "task=lm", f"model.pretrained={source}"]
    before = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "False\n"
    assert time.perf_counter() - before < 30  # a second, where nothing else runs


@pytest.mark.parametrize("command", ["predict", "generate"])
def test_an_input_is_not_written_over(command, capsys, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a"}\n')
    given = [f"input={file}", f"output={tmp_path}/../{tmp_path.name}/rows.jsonl"]
    assert cli.main([command, "run=nowhere", *given]) == 1
    assert "is read and written" in capsys.readouterr().err
    assert file.read_text() == '{"text": "a"}\n'
