"""The config that runs follows from what was asked and from plain facts."""

import dataclasses

import pytest

from jaxsft.config import overrides
from jaxsft.config.environment import Device, Facts, StartingModel
from jaxsft.config.resolve import BF16_CPU, FP32_CPU, resolve
from jaxsft.errors import ConfigError

CPU = Device()


def resolved(*given, device=CPU, **facts):
    asked = overrides.composed(["task=classify", "data.train=a", "data.validation=b", *given])
    return resolve(asked, Facts(device, **facts))


@pytest.mark.parametrize(
    "device, given, precision, why",
    [
        (Device("cpu", bf16=True), (), "bf16", BF16_CPU),
        (Device("cpu"), (), "fp32", FP32_CPU),
        (Device("gpu"), (), "bf16", "a GPU"),
        (Device("tpu"), (), "bf16", "a TPU"),
        (Device("cpu"), ("precision=bf16",), "bf16", None),
        (Device("gpu"), ("precision=fp32",), "fp32", None),
    ],
)
def test_precision_is_what_the_device_is_fast_in(device, given, precision, why):
    config = resolved(*given, device=device)
    assert config.precision == precision and dict(config.origins).get("precision") == why


def test_nothing_is_auto_any_more():
    config = resolved("seed=3", device=Device("gpu", 4))
    assert config.mesh.data == 4 and config.evaluation.metric == "validation/accuracy"
    assert config.evaluation.batch_size == config.train.batch_size
    assert dataclasses.astuple(config.seeds) == (3, 3, 3)


def test_a_resolved_config_stays():
    config = resolved("adapter=lora_plus", "seeds.data=7", device=Device("gpu", 2))
    assert config.optim.lr_groups[0].factor == 16 and config.seeds.data == 7
    assert resolve(config, Facts(Device("cpu", 1))) == config


def test_devices_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match="3 does not divide the 8 devices"):
        resolved("mesh.tensor=3", device=Device("gpu", 8))
    # in one process only as many as share the rows; in several all of them
    assert resolved("train.batch_size=6", device=Device("gpu", 4)).mesh.data == 2
    with pytest.raises(ConfigError, match=r"train\.batch_size=6: not divisible"):
        resolved("train.batch_size=6", device=Device("gpu", 4, processes=2))


def test_a_pretrained_source_gives_its_defaults():
    bert = StartingModel("encoder", 768, {"model.dropout": 0.2})
    config = resolved("model.pretrained=folder", pretrained=bert)
    assert config.optim.learning_rate == 5e-5 and config.model.dropout == 0.2
    asked = resolved("model.pretrained=folder", "optim.learning_rate=1e-3", pretrained=bert)
    assert asked.optim.learning_rate == 1e-3
    scratch = resolved("model.pretrained=folder", "model.init=scratch", pretrained=bert)
    assert scratch.optim.learning_rate == 1e-3 and scratch.model.dropout == 0.3


def test_a_cached_backbone_is_frozen():
    given = ("train.backbone=cached", "model.dropout=0", "train.freeze=[head/a]")
    assert resolved(*given).train.freeze == ("head/a", "(?!head/).*")
