"""A recurrent model has the options that it reads, and no others; what an older run wrote opens."""

import pytest
import yaml

from jaxsft.config import compose, overrides
from jaxsft.config.model import MODELS, ModelConfig, of_kind, wide
from jaxsft.config.option import declarations
from jaxsft.errors import ConfigError

KINDS = pytest.mark.parametrize("kind", ["lstm", "gru"])
GIVEN = ("task=classify", "data.train=rows.csv")


def composed(*given):
    return overrides.composed([*GIVEN, *given])


@KINDS
def test_a_field_that_it_does_not_read_does_not_exist(kind):
    model = composed(f"model={kind}").model
    own = declarations(type(model))
    assert type(model) is MODELS[kind] and model.embed == 256 and model.kind == kind
    assert not {"heads", "positions", "rope_scaling", "experts", "attention"} & {*own}
    assert not any("model.kind=" in one.accepts.read_if for one in own.values())
    assert {"embed", "dropout", "remat", "vectors", "pretrained", "train_rows"} <= {*own}


@KINDS
def test_the_config_of_an_older_run_opens(kind, tmp_path):
    """It names every option of a transformer, at its default."""
    config = composed(f"model={kind}", "model.layers=3")
    values = compose.to_dict(config)
    values["model"] = compose.to_dict(wide(config.model))
    assert values["model"]["heads"] == ModelConfig().heads
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert compose.read(path) == config
    values["model"]["heads"] = 8
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"heads=8: is read with model\.kind=transformer only"):
        compose.read(path)


@KINDS
def test_a_choice_on_the_command_line_alone(kind):
    assert type(composed(f"model.kind={kind}").model) is MODELS[kind]
    with pytest.raises(ConfigError, match=r"positions=none: is read with model\.kind=transformer"):
        composed(f"model.kind={kind}", "model.positions=none")


def test_a_model_made_by_hand():
    assert of_kind(ModelConfig(embed=8)) == ModelConfig(embed=8)
    found = of_kind(ModelConfig(kind="gru", embed=8))
    assert type(found) is MODELS["gru"] and of_kind(found) is found
    assert wide(found) == ModelConfig(kind="gru", embed=8)
