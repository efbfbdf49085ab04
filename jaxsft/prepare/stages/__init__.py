"""The stages by name.

A module is imported only when its stage is used: several need libraries that not every user has.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

from jaxsft import plugins
from jaxsft.config import compose
from jaxsft.errors import ConfigError
from jaxsft.prepare.stage import Context, Stage

_OWN = {
    "collect": "collect.Collect",
    "clean": "clean.Clean",
    "pii": "pii.Pii",
    "words": "word_lists.Words",
    "missing": "missing.Missing",
    "scale": "scale.Scale",
    "smooth": "smooth.Smooth",
    "outliers": "outliers.Outliers",
    "dedup": "dedup.Dedup",
    "language": "language.Language",
    "heuristics": "heuristics.Heuristics",
    "polarity": "polarity.Polarity",
    "quality_score": "quality_score.QualityScore",
    "label_noise": "label_noise.LabelNoise",
    "split": "split_rows.SplitRows",
    "balance": "balance.Balance",
    "augment": "augment.Augment",
    "translate": "translate.Translate",
    "denoise": "denoise.Denoise",
    "annotate": "first_annotation.Annotate",
}
# of ours the module and the class, of a plug-in the class
STAGES = plugins.Registry("stages", _OWN)


def get(name: str) -> type[Stage]:
    """Returns the class of a stage. Raises ConfigError where there is none of the name."""
    if name not in STAGES:
        raise ConfigError(f"stages: {name!r} is unknown; there are {', '.join(STAGES)}")
    found = STAGES.take(name)
    if isinstance(found, type):
        return found
    module, cls = found.split(".")
    return getattr(importlib.import_module(f"jaxsft.prepare.stages.{module}"), cls)


def build(name: str, given: Mapping[str, Any], context: Context) -> Stage:
    """Builds a stage with its options, typed and checked. Raises ConfigError."""
    cls = get(name)
    stage = compose.filled(cls, given, f"stages.{name}", skip=("context",))
    stage = dataclasses.replace(stage, context=context)
    stage.check()
    return stage


def options(stage: Stage) -> dict[str, Any]:
    """Returns the options of a stage as plain JSON."""
    return {key: value for key, value in compose.to_dict(stage).items() if key != "context"}
