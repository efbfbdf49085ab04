"""Defaults of a run that starts from `model.pretrained`: those of fine-tuning, not those of a small
model from scratch.

An option that anybody asked for, on the command line or in an experiment, is never changed
(`Config.unasked`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jaxsft.config.environment import StartingModel
from jaxsft.config.option import walk
from jaxsft.config.schema import FROZEN, Config

# Peak rates of Adam and AdamW. Whole models: BERT, appendix A.3 (arXiv:1810.04805: 2e-5 to 5e-5),
# and Llama 2, section 3.1 (arXiv:2307.09288: 2e-5). Adapters: QLoRA, table 9 (arXiv:2305.14314:
# 1e-4 to 2e-4), T-Few, section 3.3 (arXiv:2205.05638: 3e-3), BitFit (arXiv:2106.10199: 1e-4 to
# 1e-3). Those of prefix and prompt are usual ones, and were not studied here.
RATES = {"decoder": 2e-5, "encoder": 5e-5, "encoder-decoder": 5e-5}
ADAPTER_RATES = {
    "lora": 2e-4,
    "dora": 2e-4,
    "ia3": 3e-3,
    "bitfit": 5e-4,
    "prefix": 1e-2,
    "prompt": 3e-2,
}
# From this width on those rates hold. A narrower model takes a larger one, by the square of how
# much narrower it is: 2e-4 for MiniLM (384), 4.5e-4 for a small ELECTRA (256; its authors took
# 3e-4, arXiv:2003.10555), and never more than what a model from scratch takes.
WIDTH, LARGEST = 768, 1e-3
ROWS = 8  # of a step of an encoder: each row holds several short texts
DROPOUTS = (
    "hidden_dropout_prob",
    "hidden_dropout",
    "resid_pdrop",
    "resid_dropout",
    "dropout_rate",
    "dropout",
)


def regularised(values: Mapping[str, Any] | Config) -> dict[str, float]:
    """Returns the options that regularise, by name, from a config of a run or a config.json.

    What a config.json does not say is off.
    """
    if isinstance(values, Config):
        return {key: value for key, d, value in walk(values) if d.accepts.regularises}
    return {"model.dropout": dropout_of(values)}


def dropout_of(values: Mapping[str, Any]) -> float:
    """Returns the dropout of hidden states that a Hugging Face config.json names; 0 for none."""
    found = next((values[key] for key in DROPOUTS if values.get(key) is not None), 0.0)
    number = isinstance(found, int | float) and not isinstance(found, bool)
    return float(found) if number and 0 <= found < 1 else 0.0


def apply(config: Config, source: StartingModel) -> Config:
    """Returns the config with the defaults of fine-tuning where nobody asked for others.

    `Config.origins` says of each changed option where its value comes from.
    """
    unasked = dict(config.unasked)
    values = {key: value for key, value in _defaults(config, source).items() if key in unasked}
    for key, (value, _) in values.items():
        group, name = key.split(".")
        changed = dataclasses.replace(getattr(config, group), **{name: value})
        config = dataclasses.replace(config, **{group: changed})
    return dataclasses.replace(
        config, origins=(*config.origins, *((k, why) for k, (_, why) in values.items()))
    )


def _defaults(config: Config, source: StartingModel) -> dict[str, tuple[Any, str]]:
    """Returns (value, where it comes from) by option."""
    cached = config.train.backbone == "cached"
    out: dict[str, tuple[Any, str]] = {
        key: (source.regularised.get(key, 0.0), "as the source") for key in regularised(config)
    }
    if cached:
        out["model.dropout"] = (0.0, "a cached backbone")
    if not cached and FROZEN not in config.train.freeze:
        out["train.duration"] = ("3epochs", "a pretrained model")
        rows, cuts = min(config.train.batch_size, ROWS), config.train.accumulate
        if source.kind == "encoder" and rows % cuts == 0:
            out["train.batch_size"] = (rows, "a pretrained model")
        if config.optim.name in ("adam", "adamw"):
            out["optim.learning_rate"] = _rate(config, source)
    return out


def _rate(config: Config, source: StartingModel) -> tuple[float, str]:
    adapter = config.adapter.name
    rate = RATES[source.kind] if adapter == "none" else ADAPTER_RATES[adapter]
    what = f"a pretrained {source.kind}" if adapter == "none" else f"adapter={adapter}"
    if source.embed >= WIDTH or adapter not in ("none", "lora", "dora"):
        return rate, what
    scaled = min(rate * (WIDTH / source.embed) ** 2, LARGEST)
    digits = 1 - math.floor(math.log10(scaled))  # two significant ones
    return round(scaled, digits), f"{what} of width {source.embed}; {rate:g} from {WIDTH} on"
