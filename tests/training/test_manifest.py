"""The record of a run, and what a run that goes on must have in common with it."""

import dataclasses

import pytest

from jaxsft.config import compose, overrides
from jaxsft.errors import ConfigError
from jaxsft.training import manifest


def test_a_run_that_goes_on_keeps_what_auto_came_to(tmp_path):
    """Whatever the other machine would choose; what was asked for is compared as it stands."""
    asked = overrides.composed(["task=lm", "data.train=a", "precision=auto"])
    fp32, bf16 = (dataclasses.replace(asked, precision=name) for name in ("fp32", "bf16"))
    assert manifest.kept(tmp_path, asked, bf16) == bf16
    (tmp_path / "config.yaml").write_text(compose.to_yaml(fp32))
    kept = manifest.kept(tmp_path, asked, bf16)
    assert kept.precision == "fp32" and dict(kept.origins)["precision"] == "as the run began"
    manifest.check_config(tmp_path, kept)
    with pytest.raises(ConfigError, match="holds a run with precision=fp32"):
        manifest.check_config(tmp_path, manifest.kept(tmp_path, bf16, bf16))
