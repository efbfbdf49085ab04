"""The options of these stages can be composed from YAML, and each is told in its own comment."""

import dataclasses
import inspect
import typing

import pytest
from omegaconf import OmegaConf

from jaxsft.config.option import docs
from jaxsft.prepare import stages

NAMES = ("missing", "scale", "smooth", "outliers", "label_noise", "balance")


@pytest.mark.parametrize("name", NAMES)
def test_options_are_types_of_structured_configs(name):
    cls = stages.get(name)
    hints = typing.get_type_hints(cls)
    own = [f for f in dataclasses.fields(cls) if f.name != "context"]
    kept = [
        (f.name, hints[f.name], f if f.default is dataclasses.MISSING else f.default) for f in own
    ]
    fresh = [
        (
            n,
            t,
            (
                dataclasses.field(default_factory=d.default_factory)
                if isinstance(d, dataclasses.Field)
                else d
            ),
        )
        for n, t, d in kept
    ]
    config = OmegaConf.structured(dataclasses.make_dataclass(name, fresh))
    given = OmegaConf.merge(config, OmegaConf.create(OmegaConf.to_yaml(config)))
    assert cls(**OmegaConf.to_container(given)) == cls()


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_documented_and_the_stage_has_a_page(name):
    cls = stages.get(name)
    undocumented = {f.name for f in dataclasses.fields(cls)} - set(docs(cls)) - {"context"}
    assert not undocumented, f"{name} does not say what these do: {sorted(undocumented)}"
    assert len(inspect.getdoc(cls)) > 300
