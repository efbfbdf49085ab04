"""The trained head in a folder of PEFT (`modules_to_save`): taken where it says the same."""

import dataclasses

import numpy as np
import pytest

import jaxsft
from jaxsft import rundir
from jaxsft.errors import ConfigError
from jaxsft.hf import peft_write
from jaxsft.sharding.weights import flatten
from jaxsft.training import components, export, runs, setup
from tests.training import exporting
from tests.training.exporting import LAST, TEXT

LORA = ["adapter=lora", "adapter.target=['layers/.*/attention/q']"]


def started(tmp_path, name, task, *given):
    """The weights that a run from the folder of PEFT begins with."""
    run = [
        f"task={task}",
        f"data.train={tmp_path / f'{task}.jsonl'}",
        f"model.pretrained={tmp_path / 'in'}",
        f"run_dir={tmp_path / 'again'}",
        *exporting.FAST,
        *exporting.OPTIONS.get(task, ()),
    ]
    config = jaxsft.compose(*run, *LORA, f"adapter.start_from={tmp_path / 'peft'}", *given)
    return flatten(runs.starting_params(components.prepare(setup.resolve(config))[0]))


@pytest.mark.parametrize(
    "name, task, given",
    [
        ("llama", "classify", LAST),
        ("bert", "classify", TEXT["bert"]),
        ("roberta", "multilabel", TEXT["roberta"]),
        ("llama", "regress", [*LAST, "task.standardize=false"]),
        ("bert", "tag", []),
    ],
)
def test_a_head_is_read_as_it_was_written(name, task, given, tmp_path):
    model = exporting.made(tmp_path, name, task, *LORA, *given)
    exporting.export(model, tmp_path / "peft", adapter="peft")
    found, before = started(tmp_path, name, task, *given), flatten(model.run.params)
    own = [path for path in before if path.startswith(("head/", "adapters/"))]
    assert any(path.startswith("head/out") for path in own)
    for path in own:
        np.testing.assert_array_equal(found[path], before[path], err_msg=path)


def test_a_head_of_other_labels_is_an_error_or_asked_to_start_anew(tmp_path):
    model = exporting.made(tmp_path, "llama", "classify", *LORA, *LAST)
    exporting.export(model, tmp_path / "peft", adapter="peft")
    file = tmp_path / "peft" / peft_write.LABELS
    labels = rundir.read_json(file)
    names = list(labels["id2label"].values())
    file.unlink()
    with pytest.raises(
        ConfigError, match=r"peft: its trained head cannot be taken: its labels are"
    ):
        started(tmp_path, "llama", "classify", *LAST)
    turned = {str(i): name for i, name in enumerate(reversed(names))}
    rundir.write_json(file, labels | {"id2label": turned})
    found, before = started(tmp_path, "llama", "classify", *LAST), flatten(model.run.params)
    np.testing.assert_array_equal(found["head/out/w"], before["head/out/w"][:, ::-1])
    fresh = started(tmp_path, "llama", "classify", *LAST, "train.init_fresh=['head/.*']")
    assert not np.array_equal(fresh["head/out/w"], found["head/out/w"])
    with pytest.raises(
        ConfigError, match=r"its trained head cannot be taken: LlamaFor.*task\.pool"
    ):
        started(tmp_path, "llama", "classify", "task.pool=mean", "task.bias=false")


def test_an_adapter_of_a_base_that_others_do_not_have_is_an_error(tmp_path):
    """PEFT opens the folder that `model.pretrained` names."""
    fresh = "train.init_fresh=['layers/1/mlp/.*']"
    model = exporting.made(tmp_path, "llama", "lm", *LORA, fresh)
    with pytest.raises(ConfigError, match=r"layers/0/mlp/\w+/w started anew .* other values"):
        exporting.export(model, tmp_path / "peft", adapter="peft")
    parts = model.run.parts
    other = dataclasses.replace(
        parts.config, model=dataclasses.replace(parts.config.model, keep_layers=(1,))
    )
    run = dataclasses.replace(model.run, parts=dataclasses.replace(parts, config=other))
    with pytest.raises(ConfigError, match=r"model\.keep_layers made another model of"):
        export._check_base(run, {})
