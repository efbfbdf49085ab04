"""Presets of a config folder are read within the bounds of every YAML file before Hydra reads
them, also those that other presets name.
"""

import pytest

from jaxsft.commands import hydra_app
from jaxsft.config import schema, validate
from jaxsft.errors import ConfigError

BOMB = "a0: &a0 {k: v}\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    "entry", ["other", "override /model: bad", "/model: bad", "optional /model@x: [good, bad]"]
)
@pytest.mark.parametrize("flag", ["--config-dir={}", "hydra.searchpath=[file://{}]"])
def test_what_a_preset_names_is_bounded(tmp_path, entry, flag):
    for file, text in {
        "experiment/mine.yaml": f"defaults:\n  - {entry}\n",
        "experiment/other.yaml": "defaults:\n  - /model: ${size}\n  - mine\n",
        "model/bad.yaml": BOMB,
        "model/good.yaml": "layers: 1\n",
    }.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=r"bad.yaml"):
        hydra_app._check_presets([flag.format(tmp_path), "experiment=mine"])
    hydra_app._check_presets([flag.format(tmp_path), "model=good"])


def test_no_text_of_a_config_holds_nul():
    with pytest.raises(ConfigError, match=r"output='a\\x00b': expected a text without"):
        validate.each(schema.QualityConfig(output="a\0b"))
