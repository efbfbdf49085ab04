"""Compares what jaxsft and transformers compute from the same config.json: from those that makers
publish, and from those with one key changed.

    python -m tools.config_fuzz published [only=NAME]                  every file of
      tests/hf/families/published.json, shrunk
    python -m tools.config_fuzz keys [only=FAMILY] [numbers=true]      one file of each family, key
      by key
    python -m tools.config_fuzz nonsense [only=FAMILY]             values of another type, sign or
      size in every key that its class reads; needs neither transformers nor torch

Of that one file every key is changed, taken out and set to null, and keys are added that its class
reads, or that those of others do. With numbers=false, what would be another model here is not
computed: minutes instead of an hour.

Needs transformers and torch. Weights are drawn from a seed by transformers; a folder of both is
what jaxsft reads. What must hold: equal outputs; or an error of jaxsft that names a key which the
class reads, or one that is a slip of the pen away from such a key. Where transformers itself fails,
jaxsft may do as it likes, but for a traceback; where jaxsft computes all the same, that is listed.
"""

from __future__ import annotations

import collections
import copy
import json
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsft.errors import ConfigError, JaxsftError
from jaxsft.hf import families
from jaxsft.hf.families.key_types import SCHEMA
from jaxsft.hf.families.keys import names_read, nearest
from jaxsft.hf.families.reads import ALIASES, READS

PUBLISHED = Path(__file__).parents[1] / "tests" / "hf" / "families" / "published.json"
VOCABULARY, LENGTH, TOLERANCE = 61, 23, 1e-5
SMALL = {  # sizes by key; what is not smaller already becomes this
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim"), 32),
    **dict.fromkeys(
        (
            "intermediate_size",
            "d_ff",
            "n_inner",
            "hidden_dim",
            "encoder_ffn_dim",
            "decoder_ffn_dim",
        ),
        40,
    ),
    **dict.fromkeys(
        (
            "num_attention_heads",
            "num_heads",
            "n_head",
            "n_heads",
            "encoder_attention_heads",
            "decoder_attention_heads",
        ),
        4,
    ),
    **dict.fromkeys(("head_dim", "d_kv", "embedding_size"), 8),
    **dict.fromkeys(("num_local_experts", "num_experts", "position_buckets"), 6),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 64),
    **dict.fromkeys(
        (
            "num_layers",
            "num_decoder_layers",
            "n_layer",
            "n_layers",
            "encoder_layers",
            "decoder_layers",
        ),
        2,
    ),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 12),
    **dict.fromkeys(("sliding_window", "local_attention"), 6),
    **dict.fromkeys(("original_max_position_embeddings", "relative_attention_max_distance"), 16),
    "num_hidden_layers": 3,
    "max_window_layers": 1,
    "num_experts_per_tok": 2,
    "relative_attention_num_buckets": 8,
    "vocab_size": VOCABULARY,
}


def shrink(values: dict[str, Any]) -> dict[str, Any]:
    """A config with small sizes, and everything else as it is written: which keys there are, and
    how sizes hang together.
    """
    out = copy.deepcopy(values)
    for key, size in SMALL.items():
        if (key, values["model_type"]) == ("relative_attention_num_buckets", "mpnet"):
            continue  # a constant of its class
        if isinstance(out.get(key), int) and not isinstance(out[key], bool):
            out[key] = min(out[key], size)
    if "encoder_layers" in out and "num_hidden_layers" in out:
        out["num_hidden_layers"] = out["encoder_layers"]
    if values["model_type"] == "gemma3_text":
        out["num_hidden_layers"] = 7
    if isinstance(kv := values.get("num_key_value_heads"), int):
        out["num_key_value_heads"] = (
            1 if kv == 1 else 4 if kv == values["num_attention_heads"] else 2
        )
    if values.get("embedding_size") == values.get("hidden_size"):
        out |= {"embedding_size": out["hidden_size"]} if "embedding_size" in out else {}
    if values["model_type"] in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        out["max_position_embeddings"] += 2
    for key in [key for key in out if key.endswith("_token_id")]:
        if isinstance(out[key], int):
            out[key] %= VOCABULARY
        elif isinstance(out[key], list):
            out[key] = [i % VOCABULARY for i in out[key]]
    if isinstance(out.get("layer_types"), list):
        out["layer_types"] = out["layer_types"][: out["num_hidden_layers"]]
    if isinstance(out.get("no_rope_layers"), list):
        out["no_rope_layers"] = out["no_rope_layers"][: out["num_hidden_layers"]]
    if out.get("partial_rotary_factor") == 0.4:  # of heads of 80
        out["head_dim"], out["hidden_size"] = 10, 40
    for key in ("rope_scaling", "rope_parameters"):
        _shrink_rope(out, key)
    return out


def _shrink_rope(values: dict[str, Any], key: str) -> None:
    scaling = values.get(key)
    if not isinstance(scaling, dict):
        return
    if "original_max_position_embeddings" in scaling:
        scaling["original_max_position_embeddings"] = 16
    dims = values.get(
        "head_dim", values["hidden_size"] // values["num_attention_heads"]
    ) * values.get("partial_rotary_factor", 1.0)
    for name in ("long_factor", "short_factor"):
        if name in scaling:
            scaling[name] = scaling[name][: int(dims) // 2]


# --- the two sides
# --------------------------------------------------------------------------------------------------
IDS = np.random.default_rng(7).integers(3, VOCABULARY, (2, LENGTH))


def theirs(values: dict[str, Any], folder: Path | None = None) -> np.ndarray:
    """What transformers computes; its weights are saved into `folder`, beside the config as it is
    given.
    """
    import torch
    import transformers

    cls = type(transformers.AutoConfig.for_model(values["model_type"]))
    config = cls.from_dict(copy.deepcopy(values))
    config._attn_implementation = "eager"
    causal, pairs = (
        families.FAMILIES[values["model_type"]].heads.get("lm"),
        config.is_encoder_decoder,
    )
    auto = (
        transformers.AutoModelForSeq2SeqLM
        if pairs
        else transformers.AutoModelForCausalLM
        if causal
        else transformers.AutoModel
    )
    model = auto.from_config(config, dtype=torch.float32).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
        ids = torch.from_numpy(IDS)
        out = model(input_ids=ids, **({"decoder_input_ids": ids.flip(1)} if pairs else {}))
    if folder is not None:
        model.save_pretrained(folder)
        (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return (out.logits if pairs or causal else out.last_hidden_state).numpy()


def ours(folder: Path) -> np.ndarray:
    """What jaxsft computes with the weights of a folder."""
    from jaxsft.models.attention import TokenInfo
    from tests.hf.families import hf, test_pairs

    where = TokenInfo(
        jnp.ones(IDS.shape, jnp.int32),
        jnp.broadcast_to(jnp.arange(LENGTH, dtype=jnp.int32), IDS.shape),
    )
    ids, family = (
        jnp.asarray(IDS),
        families.FAMILIES[json.loads((folder / "config.json").read_text())["model_type"]],
    )
    if family.encoder is not None:
        _, model, params = test_pairs.load(folder)
        run = lambda p, i: model.logits(p, model.hidden(p, i[:, ::-1], where, source=(i, where)))
    elif "lm" in family.heads:
        model, params = hf.load(folder, "lm", context=LENGTH)
        run = lambda p, i: model.logits(p, model.hidden(p, i, where))
    else:
        model, params = hf.load(folder, context=LENGTH)
        run = lambda p, i: model.hidden(p, i, where)
    return np.asarray(run(params, ids))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return (
        float(np.abs(a - b).max() / max(1.0, np.abs(b).max()))
        if a.shape == b.shape and np.isfinite(a).all()
        else float("inf")
    )


def compared(values: dict[str, Any]) -> float:
    """How far apart the two are with the same weights, relative to the largest number."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = theirs(values, Path(folder))
        return difference(ours(Path(folder)), wanted)


# --- changes
# --------------------------------------------------------------------------------------------------
# not changed here
LEFT = ("model_type", "architectures", "vocab_size", "transformers_version", "auto_map")
OF_ANY = (None, False, True, 0, 1, 2, 0.5, "x", [], {})


def changes(values: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(key, what was done, the changed config)."""
    family = values["model_type"]
    for key, value in values.items():
        if key in LEFT:
            continue
        yield key, "dropped", {k: v for k, v in values.items() if k != key}
        for other in _others(value):
            yield key, f"= {other!r}", values | {key: other}
        yield (
            key + key[-1],
            "misspelt",
            {(key + key[-1] if k == key else k): v for k, v in values.items()},
        )
    for key in sorted(names_read(family) - set(values) - set(LEFT)):
        for other in OF_ANY:
            yield key, f"added = {other!r}", values | {key: other}
    others = sorted(frozenset().union(*map(names_read, READS)) - names_read(family) - set(values))
    for key in (*others, "use_mrope", "mlm_probability", "a", "my.key", "_private"):
        yield key, "added, of others", values | {key: 3 if len(key) % 2 else True}


def _others(value: Any) -> tuple[Any, ...]:
    """Other values of one kind and of others."""
    if isinstance(value, bool):
        return (not value, None, int(value), "true")
    if isinstance(value, int):
        return (None, value + 1, max(value // 2, 1), 0, -1, float(value), str(value), True)
    if isinstance(value, float):
        return (None, value * 2, 0.0, -1.0, 1, float("inf"), float("nan"), str(value), False)
    if isinstance(value, str):
        return (None, "", "relu", "gelu_new", "silu", 3, ["gelu"])
    if isinstance(value, list):
        return (None, [], value[::-1], "x", {})
    if isinstance(value, dict):
        return (
            None,
            {},
            [],
            "x",
            {"rope_type": "linear", "factor": 2.0},
            {"type": "yarn", "factor": 2.0, "rope_theta": 100.0},
            {"type": 3},
        )
    return (False, True, 0, 1, 5, 0.5, "x", [], {})


class Result(collections.Counter):
    """Counts of outcomes, and the failures in words."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[str] = []


def one_change(
    base: tuple[dict[str, Any], Any, np.ndarray], key: str, changed: dict[str, Any], numbers: bool
) -> tuple[str, str]:
    """(outcome, what is wrong or "")."""
    family = changed["model_type"]
    try:
        model, refusal = families.of(changed, "config.json").model(changed), None
    except ConfigError as error:
        model, refusal = None, str(error)
    except Exception:
        return "traceback", traceback.format_exc(limit=-2)
    try:
        wanted = theirs(changed)
    except Exception:
        return ("both refuse", "") if refusal else ("transformers fails", "")
    if not np.isfinite(wanted).all():
        return ("both refuse", "") if refusal else ("transformers gives no number", "")
    if refusal is not None:
        read = key in names_read(family) or key in ALIASES.get(family, {})
        # a needed key is missing where it is misspelt, however short it is
        slip = nearest(key, names_read(family)) is not None or key[:-1] in names_read(family)
        return ("refused", "") if read or slip else ("refused without reason", refusal)
    if model == base[1]:
        far = difference(wanted, base[2])
        return ("same", "") if far <= TOLERANCE else ("ignored", f"its class reads it: {far:.1e}")
    if not numbers:
        return "another model", ""
    try:
        with jax.disable_jit():  # nearly every case would be compiled for itself
            far = compared(changed)
    except JaxsftError as error:
        return "refused with weights", f"{error}"
    return ("equal", "") if far <= TOLERANCE else ("differs", f"{far:.1e}")


def keys(only: str, numbers: bool) -> Result:
    """Changes one config of each family, key by key."""
    out, published = Result(), json.loads(PUBLISHED.read_text(encoding="utf-8"))
    firsts = {
        values["model_type"]: (name, shrink(values)) for name, values in reversed(published.items())
    }
    for family, (name, values) in firsts.items():
        if only not in ("all", family):
            continue
        base, counts = (
            (
                values,
                families.of(values, name).model(values),
                theirs(values),
            ),
            collections.Counter(),
        )
        for key, what, changed in changes(values):
            outcome, wrong = one_change(base, key, changed, numbers)
            counts[outcome] += 1
            if wrong or outcome.startswith("transformers"):
                out.failures += [f"{family}: {key} {what}: {outcome}: {wrong}"] if wrong else []
                print(f"{family}: {key} {what}: {outcome} {wrong.strip()[:400]}", flush=True)
        print(f"{family} ({name}): {dict(counts)}", flush=True)
        out.update(counts)
    return out


# --- values that cannot be meant
# --------------------------------------------------------------------------------------------------
NONSENSE = ("x", "", "1", -5, -0.5, 2**40, 1e40, float("nan"), float("inf"))
NONSENSE += (True, ["x"], [-1], [[]], {"x": 1}, {"0": -5}, [True])


def can_be_meant(key: str, value: Any) -> bool:
    """Returns whether a value of `NONSENSE` is none for this key: a word where words are read, a
    truth where truths are, an id that torch counts from the end.
    """
    kind = SCHEMA.get(key)
    if key in NEVER_READ or kind is None:
        return True
    if isinstance(value, str):
        return str in kind.types
    if isinstance(value, bool):
        return bool in kind.types
    if isinstance(value, dict):
        return dict in kind.types and key in ("label2id", "id2label")
    return kind.fits(value) and (not isinstance(value, list) or (key, value) == NAMES)


NAMES = ("architectures", ["x"])  # a class of one's own
NEVER_READ = ("per_layer_config", "quantization_config")  # another error, or null


def nonsense(only: str, numbers: bool = False) -> Result:
    """Puts values that cannot be meant into every key of one config of each family.

    Counts those that are refused, and lists what is accepted and no value of the key; `numbers` is
    not read.
    """
    out, files = Result(), json.loads(PUBLISHED.read_text(encoding="utf-8"))
    firsts = {values["model_type"]: (name, values) for name, values in reversed(files.items())}
    for family, (name, values) in firsts.items():
        if only not in ("all", family):
            continue
        for key in sorted(names_read(family) - {"model_type"}):
            for value in NONSENSE:
                changed = copy.deepcopy(values) | {key: value}
                try:
                    families.of(changed, name).model(changed, name)
                except JaxsftError as error:
                    outcome = "refused" if key in str(error) else "refused without its name"
                except Exception:
                    outcome = traceback.format_exc(limit=-2)
                else:
                    outcome = "a value" if can_be_meant(key, value) else "accepted"
                out[outcome if len(outcome) < 40 else "traceback"] += 1
                if outcome not in ("refused", "a value"):
                    out.failures.append(f"{family}: {key}={value!r}: {outcome}")
    return out


def published(only: str, numbers: bool) -> Result:
    """Compares every published config; `numbers` is not read."""
    out = Result()
    for name, values in json.loads(PUBLISHED.read_text(encoding="utf-8")).items():
        if only not in ("all", name):
            continue
        try:
            far = compared(shrink(values))
        except Exception:
            far = float("inf")
            print(traceback.format_exc(limit=-2))
        out[far <= TOLERANCE] += 1
        out.failures += [] if far <= TOLERANCE else [f"{name}: {far:.1e}"]
        print(f"{far:.1e} {name}", flush=True)
    return out


def main(arguments: Sequence[str]) -> int:
    jax.config.update("jax_platforms", "cpu")
    if arguments[0] != "nonsense":
        import transformers

        transformers.logging.set_verbosity(100)
        transformers.logging.disable_progress_bar()
    given = dict(argument.split("=", 1) for argument in arguments[1:])
    found = {"published": published, "keys": keys, "nonsense": nonsense}[arguments[0]](
        given.get("only", "all"), given.get("numbers", "true") == "true"
    )
    print(f"{dict(found)}; {len(found.failures)} failures")
    print("\n".join(found.failures))
    return 1 if found.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
