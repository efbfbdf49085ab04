"""The stages by name.

A module is imported only when its stage is used: several need libraries that not every user has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxsft import plugins
from jaxsft.config import compose
from jaxsft.errors import ConfigError
from jaxsft.prepare.stage import Context, Stage

_OWN = {
    "collect": "jaxsft.prepare.stages.collect:Collect",
    "clean": "jaxsft.prepare.stages.clean:Clean",
    "pii": "jaxsft.prepare.stages.pii:Pii",
    "words": "jaxsft.prepare.stages.word_lists:Words",
    "missing": "jaxsft.prepare.stages.missing:Missing",
    "scale": "jaxsft.prepare.stages.scale:Scale",
    "smooth": "jaxsft.prepare.stages.smooth:Smooth",
    "outliers": "jaxsft.prepare.stages.outliers:Outliers",
    "dedup": "jaxsft.prepare.stages.dedup:Dedup",
    "language": "jaxsft.prepare.stages.language:Language",
    "heuristics": "jaxsft.prepare.stages.heuristics:Heuristics",
    "polarity": "jaxsft.prepare.stages.polarity:Polarity",
    "quality_score": "jaxsft.prepare.stages.quality_score:QualityScore",
    "label_noise": "jaxsft.prepare.stages.label_noise:LabelNoise",
    "split": "jaxsft.prepare.stages.split_rows:SplitRows",
    "balance": "jaxsft.prepare.stages.balance:Balance",
    "augment": "jaxsft.prepare.stages.augment:Augment",
    "translate": "jaxsft.prepare.stages.translate:Translate",
    "denoise": "jaxsft.prepare.stages.denoise:Denoise",
    "annotate": "jaxsft.prepare.stages.first_annotation:Annotate",
}
STAGES = plugins.Registry("stages", _OWN)


def get(name: str) -> type[Stage]:
    """Returns the class of a stage. Raises ConfigError where there is none of the name."""
    if name not in STAGES:
        raise ConfigError(f"stages: {name!r} is unknown; there are {', '.join(STAGES)}")
    return STAGES.take(name)


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
