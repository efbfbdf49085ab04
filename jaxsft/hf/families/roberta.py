"""RoBERTa (arXiv:1907.11692), XLM-RoBERTa (arXiv:1911.02116) and CamemBERT (arXiv:1911.03894)."""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import bert
from jaxsft.hf.families.family import RENAMED_NORMS, Family, Keys


def read(keys: Keys) -> dict[str, Any]:
    """Reads RoBERTa.

    Its positions begin after the id of padding, and its table of them has rows for those before
    it.
    """
    out, offset = bert.read(keys), _padding(keys) + 1
    if out["context"] <= offset:
        keys.refuse("max_position_embeddings", f"has no row behind the {offset} of padding")
    return {**out, "position_offset": offset, "context": out["context"] - offset}


def _padding(keys: Keys) -> int:
    if (found := keys.get("pad_token_id")) is None or found < 0:
        keys.refuse(
            "pad_token_id",
            "expected a whole number from 0 to vocab_size: positions begin behind it",
        )
    return found


def write(m: ModelConfig) -> dict[str, Any]:
    """Returns the config of RoBERTa, whose positions begin after the id of padding.

    That must be the tokenizer's: 0 where there are no rows to spare.
    """
    return {
        **bert.write(m),
        "pad_token_id": m.position_offset - 1,
        "max_position_embeddings": m.context + m.position_offset,
    }


_LM_HEAD = bert.masked_head(
    *(f"lm_head.{name}" for name in ("dense", "layer_norm", "bias", "decoder.weight"))
)
_ROBERTA: dict[str, Any] = {"table": bert.BODY, "prefix": "roberta.", "read": read, "write": write}
_ROBERTA |= {"heads": bert.heads("classifier.dense", "classifier.out_proj", "tanh", _LM_HEAD)}
_ROBERTA |= {
    "skip": (r"embeddings\.position_ids", r"pooler\..*", r"lm_head\..*"),
    "renamed": RENAMED_NORMS,
}
ROBERTA = Family(model_type="roberta", architecture="Roberta", **_ROBERTA)
XLM_ROBERTA = Family(model_type="xlm-roberta", architecture="XLMRoberta", **_ROBERTA)
CAMEMBERT = Family(model_type="camembert", architecture="Camembert", **_ROBERTA)
