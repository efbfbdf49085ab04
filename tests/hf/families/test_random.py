"""Models of random shapes and options, written by transformers itself, against transformers
(jaxsft[torch]).
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsft.models.attention import TokenInfo
from tests.hf.families import hf

pytestmark = pytest.mark.slow
transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")


def ropes(rng) -> dict:
    kind = rng.choice(["default", "linear", "llama3", "yarn"])
    out = {"rope_type": str(kind), "rope_theta": float(rng.choice([100.0, 1e4, 5e5]))}
    if kind != "default":
        out["factor"] = float(rng.choice([2.0, 4.0]))
    if kind in ("llama3", "yarn"):
        out["original_max_position_embeddings"] = 16
    if kind == "llama3":
        out |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    if kind == "yarn":
        out |= {"beta_fast": 8.0, "beta_slow": 1.0}
    return {"rope_parameters": out}


def decoder(rng, **options) -> dict:
    kv = int(rng.choice([1, 2, 3]))
    dim = 2 * int(rng.integers(2, 7))
    heads = kv * int(rng.choice([1, 2, 7]))
    sizes = {
        "hidden_size": heads * int(rng.integers(3, 9)),
        "intermediate_size": int(rng.integers(9, 50)),
        "num_hidden_layers": int(rng.integers(1, 5)),
    }
    heads = {"num_attention_heads": heads, "num_key_value_heads": kv, "head_dim": dim}
    tied = {
        "tie_word_embeddings": bool(rng.integers(2)),
        "rms_norm_eps": float(rng.choice([1e-5, 1e-3])),
    }
    return {"vocab_size": 61, "max_position_embeddings": 64, **sizes, **heads, **tied, **options}


def encoder(rng, **options) -> dict:
    heads = int(rng.integers(1, 5))
    sizes = {
        "hidden_size": heads * int(rng.integers(3, 9)),
        "intermediate_size": int(rng.integers(9, 50)),
        "num_hidden_layers": int(rng.integers(1, 5)),
    }
    how = {
        "hidden_act": str(rng.choice(["gelu", "relu", "gelu_new"])),
        "layer_norm_eps": float(rng.choice([1e-12, 1e-5])),
    }
    return {
        "vocab_size": 61,
        "max_position_embeddings": 64,
        "num_attention_heads": heads,
        **sizes,
        **how,
        **options,
    }


def neox(rng) -> dict:
    drop = ("num_key_value_heads", "head_dim", "rms_norm_eps", "hidden_size", "num_attention_heads")
    given = {key: value for key, value in decoder(rng).items() if key not in drop}
    part = {
        "rope_type": "default",
        "rope_theta": 1e4,
        "partial_rotary_factor": float(rng.choice([0.25, 0.5, 1.0])),
    }
    options = {
        "use_parallel_residual": bool(rng.integers(2)),
        "attention_bias": bool(rng.integers(2)),
        "rope_parameters": part,
    }
    return {
        **given,
        **options,
        "hidden_size": 32,
        "num_attention_heads": int(rng.choice([1, 2, 4])),
    }


def gpt2(rng) -> dict:
    heads = int(rng.integers(1, 5))
    sizes = {
        "n_embd": heads * int(rng.integers(3, 9)),
        "n_head": heads,
        "n_layer": int(rng.integers(1, 5)),
        "n_positions": 64,
    }
    inner = {
        "n_inner": None if rng.integers(2) else int(rng.integers(9, 50)),
        "tie_word_embeddings": bool(rng.integers(2)),
    }
    return {
        "vocab_size": 61,
        **sizes,
        **inner,
        "activation_function": str(rng.choice(["gelu_new", "relu", "gelu"])),
    }


def llama(rng) -> dict:
    return decoder(
        rng, attention_bias=bool(rng.integers(2)), mlp_bias=bool(rng.integers(2)), **ropes(rng)
    )


def window(rng) -> int | None:
    return None if rng.integers(3) == 0 else int(rng.integers(1, 12))


def qwen2(rng) -> dict:
    given = decoder(
        rng,
        use_sliding_window=bool(rng.integers(2)),
        sliding_window=4,
        max_window_layers=int(rng.integers(0, 3)),
        **ropes(rng),
    )
    given.pop("head_dim")
    return given | {"hidden_size": given["num_attention_heads"] * 2 * int(rng.integers(2, 7))}


def phi3(rng) -> dict:
    part = {
        "rope_type": "default",
        "rope_theta": 1e4,
        "partial_rotary_factor": float(rng.choice([0.5, 1.0])),
    }
    given = decoder(rng, sliding_window=window(rng), rope_parameters=part, pad_token_id=0)
    given.pop("head_dim")
    return given | {"hidden_size": given["num_attention_heads"] * 4 * int(rng.integers(1, 5))}


def gemma(rng, **options) -> dict:
    caps = {
        "attn_logit_softcapping": float(rng.choice([2.0, 50.0])),
        "final_logit_softcapping": float(rng.choice([3.0, 30.0])),
    }
    return decoder(
        rng,
        query_pre_attn_scalar=int(rng.integers(4, 20)),
        sliding_window=int(rng.integers(1, 12)),
        **caps,
        **options,
    )


def gemma3(rng) -> dict:
    local = {"rope_type": "default", "rope_theta": 100.0}
    return gemma(
        rng,
        rope_parameters={
            "full_attention": ropes(rng)["rope_parameters"],
            "sliding_attention": local,
        },
    ) | {
        "num_hidden_layers": int(rng.integers(1, 9)),
        "attn_logit_softcapping": None,
    }


def olmo2(rng) -> dict:
    given = decoder(rng, attention_bias=bool(rng.integers(2)), **ropes(rng))
    given.pop("head_dim")
    return given | {"hidden_size": given["num_attention_heads"] * 2 * int(rng.integers(2, 7))}


FAMILIES = {
    "Llama": llama,
    "Mistral": lambda rng: decoder(rng, sliding_window=window(rng), **ropes(rng)),
    "Qwen2": qwen2,
    "Qwen3": lambda rng: decoder(rng, attention_bias=bool(rng.integers(2)), **ropes(rng)),
    "Phi3": phi3,
    "Olmo2": olmo2,
    "Gemma2": gemma,
    "Gemma3": gemma3,
    "GPT2": gpt2,
    "GPTNeoX": neox,
    "Bert": lambda rng: encoder(rng, type_vocab_size=int(rng.integers(1, 4))),
    "Roberta": lambda rng: encoder(rng, type_vocab_size=1, pad_token_id=int(rng.integers(0, 3))),
}
ENCODERS = ("Bert", "Roberta")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", FAMILIES)
def test_random_models_agree(name, seed, tmp_path, record_property):  # guards G9
    rng = np.random.default_rng([seed, *name.encode()])
    torch.manual_seed(seed)
    config = getattr(transformers, {"Gemma3": "Gemma3TextConfig"}.get(name, f"{name}Config"))(
        **FAMILIES[name](rng), attn_implementation="eager"
    )
    cls = (
        f"{name}Model"
        if name in ENCODERS
        else {"GPT2": "GPT2LMHeadModel"}.get(name, f"{name}ForCausalLM")
    )
    theirs = getattr(transformers, cls)(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0, 0.3)
        theirs.save_pretrained(tmp_path)
        ids = torch.from_numpy(rng.integers(3, 61, (2, 37)))
        out = theirs(input_ids=ids)
        wanted = (out.last_hidden_state if name in ENCODERS else out.logits).numpy()
    model, params = hf.load(tmp_path, None if name in ENCODERS else "lm")
    where = TokenInfo(
        jnp.ones((2, 37), jnp.int32), jnp.tile(jnp.arange(37, dtype=jnp.int32), (2, 1))
    )
    hidden = model.hidden(params, jnp.asarray(ids.numpy()), where)
    found = np.asarray(hidden if name in ENCODERS else model.logits(params, hidden))
    difference = float(np.abs(found - wanted).max() / max(1.0, np.abs(wanted).max()))
    record_property("difference", difference)
    print(f"PARITY {name} {seed} {difference:.2e} (largest value {np.abs(wanted).max():.1f})")
    assert difference <= 1e-5
