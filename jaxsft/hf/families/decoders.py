"""The common part of decoders after Llama: keys of config.json, names of weights, heads."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxsft.config.model import ACTIVATIONS as activations
from jaxsft.config.model import ModelConfig, RopeScaling
from jaxsft.hf.families.family import Head, Keys, WeightEntry, both, norm, span_head, tag_head
from jaxsft.hf.families.key_types import LENGTH, PART, RATIO, SCALE, SWITCH, numbers, shown
from jaxsft.hf.families.keys import nearest
from jaxsft.hf.families.transforms import LINEAR

ACTIVATIONS = {name: name for name in activations if name != "gelu_tanh"}  # by name of theirs
ACTIVATIONS |= dict.fromkeys(
    ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate", "gelu_python_tanh"), "gelu_tanh"
)
ACTIVATIONS |= {"swish": "silu", "gelu_python": "gelu"}
HF_ACTIVATIONS = {name: {"gelu_tanh": "gelu_pytorch_tanh"}.get(name, name) for name in activations}


# --- config.json
# --------------------------------------------------------------------------------------------------
def sizes(keys: Keys) -> dict[str, Any]:
    """Reads sizes and vocabulary under the names that all of these families use."""
    embed, heads, dim = (
        keys.need("hidden_size"),
        keys.need("num_attention_heads"),
        keys.get("head_dim"),
    )
    if dim is None and embed % heads:
        keys.refuse("num_attention_heads", f"does not divide hidden_size={embed}")
    shared = keys.get("num_key_value_heads")
    shared = heads if shared is None else shared
    if heads % shared:
        given = (
            "num_key_value_heads" if "num_key_value_heads" in keys.values else "num_attention_heads"
        )
        keys.refuse(
            given, f"num_attention_heads={heads} is no multiple of num_key_value_heads={shared}"
        )
    return {
        "layers": keys.need("num_hidden_layers"),
        "embed": embed,
        "heads": heads,
        "kv_heads": shared,
        "head_dim": embed // heads if dim is None else dim,
        "mlp": keys.need("intermediate_size"),
        "context": keys.get("max_position_embeddings"),
        "vocab_rows": keys.need("vocab_size"),
        "norm": "rms",
        "causal": True,
        "positions": "rope",
        "gated": True,
        "tied": keys.get("tie_word_embeddings"),
    }


def write_sizes(m: ModelConfig, epsilon: str = "rms_norm_eps") -> dict[str, Any]:
    """Returns the keys that `sizes` reads, rope, activation, and the epsilon under its name."""
    return {
        **write_rope(m),
        "hidden_size": m.embed,
        "num_attention_heads": m.heads,
        "num_key_value_heads": m.kv_heads,
        "head_dim": m.head_dim,
        "num_hidden_layers": m.layers,
        "intermediate_size": m.mlp,
        "max_position_embeddings": m.context,
        epsilon: m.norm_epsilon,
        "hidden_act": HF_ACTIVATIONS[m.activation],
        "tie_word_embeddings": m.tied,
    }


def write_rope(m: ModelConfig, base: str = "rope_theta") -> dict[str, Any]:
    """Returns `rope_theta`, under the family's name for it, and `rope_scaling` if any."""
    found = rope_words(m)
    return {base: found.pop("rope_theta")} | _old_words(found)


def _old_words(words: dict[str, Any]) -> dict[str, Any]:
    """Returns the `rope_scaling` of older config files.

    With longrope its first context too: one there wins, and where none is written the class of
    Phi-3 has one.
    """
    if words["rope_type"] == "default":
        return {}
    out = {"rope_scaling": words}
    return out | (
        {"original_max_position_embeddings": words["original_max_position_embeddings"]}
        if words["rope_type"] == "longrope"
        else {}
    )


def rope_words(m: ModelConfig) -> dict[str, Any]:
    """Returns the rope parameters as transformers names them: base and scaling.

    Factors of longrope are one list here, for texts of every length.
    """
    m = without_ntk(m)
    s, kind = m.rope_scaling, m.rope_scaling.kind
    if kind == "longrope":
        named = {
            "short_factor": list(s.factors),
            "long_factor": list(s.factors),
            "factor": s.factor,
            "attention_factor": s.attention,
        }
        named["original_max_position_embeddings"] = s.original
    else:
        named = {theirs: getattr(s, ours) for theirs, ours in SCALINGS[kind].items()}
    out = {"rope_type": "default" if kind == "none" else kind, "rope_theta": m.rope_base}
    return out | {key: value for key, value in named.items() if value is not None}


def without_ntk(m: ModelConfig) -> ModelConfig:
    """Replaces NTK scaling by the base that it amounts to (bloc97, 2023), as others write it."""
    if m.rope_scaling.kind != "ntk":
        return m
    dims = int(m.head_dim * m.rope_fraction)
    return dataclasses.replace(
        m,
        rope_base=m.rope_base * m.rope_scaling.factor ** (dims / (dims - 2)),
        rope_scaling=RopeScaling(),
    )


def with_rope(values: Mapping[str, Any], m: ModelConfig) -> dict[str, Any]:
    """Returns a config.json with the scaling and the context of a model.

    They stand in the words and the places that the file has for them.
    """
    # the second, of longrope alone, would win over that of the scaling
    replaced = ("rope_scaling", "original_max_position_embeddings")
    out = {key: value for key, value in values.items() if key not in replaced} | {
        "max_position_embeddings": m.context
    }
    words, old = rope_words(m), values.get("rope_parameters") or {}
    if "full_attention" in old or m.rope_local_base is not None:
        local = old.get("sliding_attention") or {
            "rope_type": "default",
            "rope_theta": m.rope_local_base or 10000.0,
        }
        return {**out, "rope_parameters": {"full_attention": words, "sliding_attention": local}}
    if old:
        others = ("partial_rotary_factor", "llama_4_scaling_beta")
        kept = {key: old[key] for key in others if key in old}
        beside = {key: value for key, value in _old_words(words).items() if key != "rope_scaling"}
        return {**out, "rope_parameters": {**kept, **words}, **beside}
    name = "rotary_emb_base" if out.get("model_type") == "gpt_neox" else "rope_theta"
    if (base := words.pop("rope_theta")) != out.get(name):
        out[name] = base
    return {**out, **_old_words(words)}


def write_windows(m: ModelConfig) -> dict[str, Any]:
    """Returns `layer_types`, and the window where a layer has one."""
    local = range(m.layers) if m.window_layers is None else m.window_layers
    kinds = [
        "sliding_attention" if m.window and i in local else "full_attention"
        for i in range(m.layers)
    ]
    return {"layer_types": kinds} | ({"sliding_window": m.window} if m.window else {})


def rope(
    keys: Keys,
    context: int,
    kind_of_layer: str | None = None,
    *,
    base: tuple[str, float] = ("rope_theta", 10000.0),
    part: tuple[str, float] | None = None,
    beside: bool = True,
) -> dict[str, Any]:
    """Returns `rope_base`, `rope_fraction` and `rope_scaling` of a config.

    They are read from `rope_theta` and `rope_scaling`, or from `rope_parameters` (transformers
    5).

    Args:
      kind_of_layer: whose rotation it is, in a family where those of full_attention and of
        sliding_attention differ.
      base, part: the family's own names and defaults of the base and of the part of a head that is
        rotated; part None: whole heads are.
      beside: whether `rope_scaling` is of these layers too.

    Raises ConfigError for a scaling that is not known here, and for what the family does not read.
    """
    found, old = (
        keys.get("rope_parameters") or {},
        ((keys.get("rope_scaling") or {}) if beside else {}),
    )
    if kind_of_layer:
        found = _of_kind(keys, found, old, kind_of_layer)
    if found and old and found != old:
        keys.refuse(
            "rope_scaling", f"differs from rope_parameters={shown(found)}; expected one of them"
        )
    found, where = dict(found or old), "rope_parameters" if found else "rope_scaling"
    theta, fraction = found.pop("rope_theta", None), found.pop("partial_rotary_factor", None)
    for key, value, kind in (
        ("rope_theta", theta, RATIO),
        ("partial_rotary_factor", fraction, PART),
    ):
        if value is not None and not kind.fits(value):
            keys.refuse(where, f"{key}={shown(value)}: expected {kind.said}")
    written = keys.get(base[0], base[1])
    theta = written if theta is None else theta
    if part is None:
        if fraction not in (None, 1) or keys.get("partial_rotary_factor") not in (None, 1):
            keys.refuse(
                where if fraction else "partial_rotary_factor",
                "expected none, for this family rotates whole heads",
            )
        part = ("partial_rotary_factor", 1.0)
    written = keys.get(part[0], part[1])
    fraction = fraction if fraction is not None else part[1] if written is None else written
    return {
        "rope_base": float(theta),
        "rope_fraction": float(fraction),
        **_scaling(keys, found, where, context, theta, kind_of_layer is None),
    }


def _of_kind(keys: Keys, found: dict[str, Any], old: dict[str, Any], kind: str) -> dict[str, Any]:
    """Returns the parameters of layers of this kind.

    Raises ConfigError for what is not told apart by kinds.
    """
    if flat := sorted(map(str, set(found) - {"full_attention", "sliding_attention"})):
        keys.refuse(
            "rope_parameters",
            f"{flat[0]} is not read there; expected those of full_attention and of"
            " sliding_attention",
        )
    if found.get(kind) is not None and not isinstance(found[kind], dict):
        keys.refuse("rope_parameters", f"{kind}={shown(found[kind])}: expected an object")
    found = found.get(kind) or {}
    if old and "rope_type" not in old:
        keys.refuse(
            "rope_scaling", "has no rope_type, and type is not read where kinds of layers differ"
        )
    if (found or old).get("truncate", True) is not True:
        keys.refuse(
            "rope_parameters" if found else "rope_scaling",
            "truncate=False is not read where kinds of layers differ",
        )
    return found


_ORIGINAL = {"original_max_position_embeddings": "original"}
SCALINGS: dict[str, dict[str, str]] = {  # what each kind reads, by name of theirs
    "none": {},
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        **_ORIGINAL,
        "low_freq_factor": "low",
        "high_freq_factor": "high",
    },
    "yarn": {
        "factor": "factor",
        **_ORIGINAL,
        "beta_fast": "fast",
        "beta_slow": "slow",
        "truncate": "truncate",
        "attention_factor": "attention",
    },
    "longrope": {
        "factor": "factor",
        **_ORIGINAL,
        "attention_factor": "attention",
        "short_factor": "short",
        "long_factor": "long",
    },
}
_MSCALES = ("mscale", "mscale_all_dim")  # read by yarn besides


def _scaling(
    keys: Keys, given: dict[str, Any], where: str, context: int, theta: float, flat: bool
) -> dict[str, Any]:
    """Returns `rope_scaling`, and the `context` that it is exact for if not the model's.

    Args:
      where: the key that `given` is of.
      flat: whether all layers have it: then a first context beside it wins over that of the
        scaling.
    """
    given = {key: value for key, value in given.items() if value is not None}
    if given and not {"rope_type", "type"} & given.keys():
        name = next(iter(given))
        keys.refuse(where, f"has no rope_type, so that {shown(name)} would change nothing")
    kind = given.pop("rope_type", None) or given.get("type", "default")
    given.pop("type", None)
    kind = {"default": "none", "su": "longrope"}.get(kind, kind) if isinstance(kind, str) else kind
    if not isinstance(kind, str) or kind not in SCALINGS:
        # `dynamic` is refused too: it depends on the longest text of a batch, so that a text's
        # numbers would depend on its neighbours.
        known = ", ".join(k for k in SCALINGS if k != "none")
        keys.refuse(
            where, f"the scaling {shown(kind)} is not known here; expected one of default, {known}"
        )
    out = _checked(keys, given, where, kind)
    first = keys.get("original_max_position_embeddings") if flat else None
    if "original" in SCALINGS[kind].values():
        out |= (
            {"original": first} if first is not None else {"original": out.get("original", context)}
        )
    if kind == "longrope":
        out.setdefault("factor", context / out["original"])
    if missing := [
        theirs
        for theirs, ours in SCALINGS[kind].items()
        if ours in ("factor", "original", "short", "long") and ours not in out
    ]:
        keys.refuse(where, f"has no {missing[0]}, which the scaling {kind!r} needs")
    standard = RopeScaling()
    if kind == "llama3" and not out.get("low", standard.low) < out.get("high", standard.high):
        keys.refuse(where, "expected a low_freq_factor below high_freq_factor")
    if kind == "yarn" and (
        out.get("fast", standard.fast) < out.get("slow", standard.slow) or theta <= 1
    ):
        keys.refuse(where, "yarn needs a beta_fast of at least beta_slow, and a rope_theta above 1")
    if kind == "longrope" and out["original"] < 2:
        keys.refuse(where, "longrope needs an original_max_position_embeddings of at least 2")
    if kind != "longrope":
        return {"rope_scaling": RopeScaling(kind, **out)}
    # transformers takes the short factors for a batch that fits into the original context, else the
    # long ones. Here it is one or the other.
    context = min(context, max(keys.context or 0, out["original"]))
    factors = {False: out.pop("short"), True: out.pop("long")}[context > out["original"]]
    return {"rope_scaling": RopeScaling(kind, factors=factors, **out), "context": context}


def _checked(keys: Keys, given: dict[str, Any], where: str, kind: str) -> dict[str, Any]:
    """Returns the values of a scaling by our names; what this kind does not read is skipped.

    Raises ConfigError for an impossible one, and for a name that is one slip away from one that
    is read.
    """
    out: dict[str, Any] = {}
    for key, value in given.items():
        if (ours := SCALINGS[kind].get(key)) is None:
            every = frozenset().union(*SCALINGS.values())
            if key not in every and (meant := nearest(key, every)):
                keys.refuse(
                    where,
                    f"{key} is read by nothing; {meant} is what is read: write that, or take"
                    " it out",
                )
            continue
        expected = {"original": LENGTH, "truncate": SWITCH, "factor": RATIO}.get(ours, SCALE)
        if ours in ("short", "long"):
            if (value := numbers(value)) is None:
                keys.refuse(where, f"{key}={shown(given[key])}: expected a list of numbers above 0")
        elif not expected.fits(value):
            keys.refuse(where, f"{key}={shown(value)}: expected {expected.said}")
        out[ours] = value
    if kind == "yarn" and "attention" not in out and all(given.get(key) for key in _MSCALES):
        if not all(SCALE.fits(given[key]) for key in _MSCALES):
            keys.refuse(where, f"mscale and mscale_all_dim: expected {SCALE.said}")
        high, low = (
            0.1 * given[key] * math.log(max(out.get("factor", 1.0), 1.0)) + 1.0 for key in _MSCALES
        )
        out["attention"] = high / low
    return out


def pattern(keys: Keys, layers: int, default: int = 6) -> list[str]:
    """Returns the kinds of layers: of so many as `sliding_window_pattern` says, the last is full.

    Raises ConfigError where that is 0 or a word, which no class reads.
    """
    every = keys.get("sliding_window_pattern", default)
    if not isinstance(every, int) or every < 1:
        keys.refuse(
            "sliding_window_pattern", "expected a number of at least 1, or layer_types beside it"
        )
    return ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(layers)]


def windows(
    keys: Keys, layers: int, window: int | None, layer_types: Sequence[str] | None
) -> dict[str, Any]:
    """Returns `window` and `window_layers` from the kinds of the layers.

    Raises ConfigError for a kind that is not known here.
    """
    if layer_types is None:
        return {"window": window, "window_layers": None}
    if len(layer_types) != layers:
        keys.refuse("layer_types", f"expected {layers} of them, as num_hidden_layers says")
    if other := [
        kind for kind in layer_types if kind not in ("full_attention", "sliding_attention")
    ]:
        keys.refuse(
            "layer_types",
            f"{shown(other[0])} is not known here; expected full_attention or sliding_attention",
        )
    local = [i for i, kind in enumerate(layer_types) if kind == "sliding_attention"]
    if not local:
        return {"window": None, "window_layers": None}
    if window is None:
        keys.refuse("layer_types", "has sliding_attention, but there is no sliding_window")
    return {"window": window, "window_layers": None if len(local) == layers else local}


# --- weights
# --------------------------------------------------------------------------------------------------
def attention(theirs: str = "layers.*.self_attn") -> tuple[WeightEntry, ...]:
    names = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj"}
    return tuple(
        e
        for ours, name in names.items()
        for e in both(f"layers/*/attention/{ours}", f"{theirs}.{name}")
    )


def gated_mlp(theirs: str = "layers.*.mlp") -> tuple[WeightEntry, ...]:
    return tuple(
        e
        for name in ("gate", "up", "down")
        for e in both(f"layers/*/mlp/{name}", f"{theirs}.{name}_proj")
    )


EMBEDDING = WeightEntry("embed/tokens/w", "embed_tokens.weight")
NORMS = (
    *norm("layers/*/attention_norm", "layers.*.input_layernorm"),
    *norm("layers/*/mlp_norm", "layers.*.post_attention_layernorm"),
    *norm("norm", "norm"),
)
SANDWICH = (
    *norm("layers/*/attention_norm", "layers.*.input_layernorm"),
    *norm("layers/*/attention_post_norm", "layers.*.post_attention_layernorm"),
    *norm("layers/*/mlp_norm", "layers.*.pre_feedforward_layernorm"),
    *norm("layers/*/mlp_post_norm", "layers.*.post_feedforward_layernorm"),
    *norm("norm", "norm"),
)
SKIP = (r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq", r"rotary_emb\.inv_freq")

SCORE: tuple[Any, ...] = (
    (WeightEntry("head/out/w", "score.weight", LINEAR),),
    {"pool": "last", "head": "linear", "bias": False},
)
GENERIC: Mapping[str, Head] = {
    "lm": Head("ForCausalLM", (WeightEntry("head/w", "lm_head.weight", LINEAR),)),
    "text": Head("ForSequenceClassification", *SCORE),
}
TAGGED: Mapping[str, Head] = {**GENERIC, "tag": tag_head("score")}
# its class for spans has a name of its own for the body
HEADS: Mapping[str, Head] = {**TAGGED, "span": span_head("transformer.")}
