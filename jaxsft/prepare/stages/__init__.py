"""The stages by name. A module is imported only when its stage is used: several need libraries that not every user has."""

from __future__ import annotations

import importlib

from jaxsft.errors import ConfigError
from jaxsft.prepare.stage import Stage

STAGES = {
    "collect": "collect.Collect",
    "clean": "clean.Clean",
    "pii": "pii.Pii",
    "words": "words.Words",
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
    "split": "split.SplitRows",
    "balance": "balance.Balance",
    "augment": "augment.Augment",
    "translate": "translate.Translate",
    "denoise": "denoise.Denoise",
    "annotate": "annotate.Annotate",
}


def get(name: str) -> type[Stage]:
    """The class of a stage. Raises ConfigError where there is none of the name."""
    if name not in STAGES:
        raise ConfigError(f"stages: {name!r} is unknown; there are {', '.join(STAGES)}")
    module, cls = STAGES[name].split(".")
    return getattr(importlib.import_module(f"jaxsft.prepare.stages.{module}"), cls)
