"""Checks adapter_config.json of the library PEFT.

Every key of it is used, without effect on what a trained adapter computes, or an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsft.config.adapters import AdapterConfig, LowRank, Prefix, Prompt
from jaxsft.errors import ConfigError
from jaxsft.hf import peft_saved
from jaxsft.hf.families.key_types import (
    OBJECT,
    SCALE,
    SHARE,
    SWITCH,
    WORD,
    ValueType,
    shown,
    whole,
)

# The fields of PEFT 0.21's config classes for the kinds that are known here. Those of `_USED` are
# compared with the options of the run.
_USED = (
    "peft_type r lora_alpha rank_pattern alpha_pattern use_rslora use_dora init_lora_weights bias"
    " num_virtual_tokens prefix_projection"
)
_USED += " num_transformer_submodules modules_to_save"
# Names, what only training reads, and what the names and the shapes of the tensors say again.
_INERT = """
task_type auto_mapping peft_version base_model_name_or_path revision inference_mode runtime_config
target_modules exclude_modules layers_to_transform
layers_pattern fan_in_fan_out lora_dropout loftq_config eva_config corda_config lora_ga_config
qalora_group_size megatron_core ensure_weight_tying
feedforward_modules init_ia3_weights token_dim num_attention_heads num_layers encoder_hidden_size
init_weights
prompt_tuning_init prompt_tuning_init_text tokenizer_name_or_path tokenizer_kwargs
"""
# Further weights, or another computation. Of a key that is not known here nobody can say that it is
# neither; off, it asks for nothing.
_REFUSED = """
layer_replication alora_invocation_tokens use_qalora megatron_config
trainable_token_indices target_parameters lora_bias
velora_config monteclora_config use_bdlora arrow_config kasa_config
"""
READ = frozenset(f"{_USED} {_INERT}".split())
REFUSED = frozenset(_REFUSED.split())
# values of init_lora_weights that leave the base as it is
PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal", "mica")
# parts of a key that may have any length: what a match costs grows with the length of a name to
# this power
MOST = 3


def check(config: Path, values: Mapping[str, Any], options: AdapterConfig) -> None:
    """Raises ConfigError: the options of the run are others, or the folder has what is not read
    here.
    """
    check_types(config, values)
    names = {
        "LORA": "dora" if values.get("use_dora") else "lora",
        "IA3": "ia3",
        "PREFIX_TUNING": "prefix",
        "PROMPT_TUNING": "prompt",
    }
    if (kind := values.get("peft_type")) not in names:
        raise ConfigError(
            f"{config}: peft_type={kind!r:.40}: is not read; expected one of {', '.join(names)}"
        )
    there, here = {"adapter": names[kind]}, {"adapter": options.name}
    if isinstance(options, LowRank):
        most = max([values.get("r") or 0, *(values.get("rank_pattern") or {}).values()])
        # smaller ones are filled up by zeros
        rank = most if options.rank == most else values.get("r")
        there |= {"adapter.rank": rank, "adapter.alpha": values.get("lora_alpha")}
        there["adapter.scaling"] = "sqrt" if values.get("use_rslora") else "rank"
        here |= {
            "adapter.rank": options.rank,
            "adapter.alpha": options.alpha,
            "adapter.scaling": options.scaling,
        }
    if isinstance(options, Prefix | Prompt):
        there["adapter.tokens"], here["adapter.tokens"] = (
            values.get("num_virtual_tokens"),
            options.tokens,
        )
        if values.get("prefix_projection"):
            raise ConfigError(
                f"{config}: prefix_projection=true: is not read; a prefix is trained without a"
                " projection here"
            )
    for key, value in there.items():
        if value != here[key]:
            raise ConfigError(
                f"{config}: says {key}={value}, this run has {key}={here[key]}; set {key}={value}"
            )
    if isinstance(options, LowRank):
        _check_start(config, values.get("init_lora_weights"), getattr(options, "init", "zero"))
    for key, value in values.items():
        if key in READ or value is None or value is False or value in ([], {}):
            continue
        why = (
            "is not read; expected none"
            if key in REFUSED
            else "nothing here reads it, so the numbers could differ"
        )
        raise ConfigError(f"{config}: {key}={value!r:.60}: {why}")
    if values.get("bias", "none") not in ("none", None):
        raise ConfigError(f"{config}: bias={values['bias']:.40}: is not read; expected none")


WORDS = ValueType((list,), "a list of names of modules")
NAMES = ValueType((str, list), "a word or a list of words")
PATTERN = ValueType((dict,), "numbers above 0 by the names of modules")
NUMBERS = ValueType((int, list), "a whole number from 0 on, or a list of such", 0, 2**20)
ANY = ValueType((bool, str, dict), "true, false, a word or an object")
_TYPES: tuple[tuple[ValueType, str], ...] = (
    (whole(1, 2**16), "r num_virtual_tokens token_dim num_attention_heads num_layers"),
    (whole(1, 2**22), "encoder_hidden_size qalora_group_size"),
    (whole(1, 2), "num_transformer_submodules"),
    (SCALE, "lora_alpha"),
    (SHARE, "lora_dropout"),
    (
        SWITCH,
        """use_rslora use_dora prefix_projection inference_mode fan_in_fan_out init_ia3_weights
        ensure_weight_tying""",
    ),
    (
        WORD,
        """peft_type bias task_type peft_version base_model_name_or_path revision megatron_core
        prompt_tuning_init prompt_tuning_init_text tokenizer_name_or_path""",
    ),
    (WORDS, "modules_to_save"),
    (NAMES, "target_modules exclude_modules layers_pattern feedforward_modules"),
    (NUMBERS, "layers_to_transform"),
    (
        OBJECT,
        """auto_mapping runtime_config loftq_config eva_config
        corda_config lora_ga_config tokenizer_kwargs""",
    ),
    (PATTERN, "rank_pattern alpha_pattern"),
    (ANY, "init_weights"),
)
TYPES: Mapping[str, ValueType] = {key: kind for kind, keys in _TYPES for key in keys.split()}
ITEMS: Mapping[str, ValueType] = {  # of each item of a list, or each value of an object
    **dict.fromkeys(("modules_to_save", "target_modules", "exclude_modules"), WORD),
    **dict.fromkeys(("layers_pattern", "feedforward_modules"), WORD),
    "layers_to_transform": whole(0, 2**20),
    **dict.fromkeys(("rank_pattern", "alpha_pattern"), SCALE),
}
# what PEFT adds for a head by itself, under whichever of these names the class has it
OF_HEADS = ("classifier", "score", "qa_outputs")
_LAYER = re.compile(r".*\.[^.]*\.(\d+)\.")  # as PEFT finds the number of a module's layer


def check_types(config: Path, values: Mapping[str, Any]) -> None:
    """Raises ConfigError for a value of another type, or beyond the bounds, of any key."""
    for key, kind in TYPES.items():
        if (value := values.get(key)) is None:
            continue
        items = value.values() if isinstance(value, dict) else value
        every = items if key in ITEMS and isinstance(value, dict | list) else ()
        if not kind.fits(value) or not all(ITEMS[key].fits(x) and x != "" for x in every):
            raise ConfigError(f"{config}: {key}={shown(value)}: expected {kind.said}")


def check_targets(config: Path, values: Mapping[str, Any], found: Iterable[str]) -> None:
    """Raises ConfigError for a module with an adapter that PEFT would not give one: it would leave
    out the tensors, without an error.
    """
    for module in found:
        if not _is_target(values, module):
            raise ConfigError(
                f"{config}: target_modules={shown(values.get('target_modules'))}: leaves out"
                f" {module}, which has an adapter in the file; PEFT would not read it"
            )


def _is_target(values: Mapping[str, Any], module: str) -> bool:
    """Returns whether PEFT gives a module of the base an adapter."""
    targets, layers = values.get("target_modules"), values.get("layers_to_transform")
    if targets is None:  # as PEFT has it for the class
        return True
    if _names(values.get("exclude_modules") or [], module, "exclude_modules"):
        return False
    if isinstance(targets, str):
        return targets == "all-linear" or _names(targets, module, "target_modules")
    if layers is not None and layers != []:
        at = _LAYER.match(module)
        if at is None or int(at[1]) not in (layers if isinstance(layers, list) else [layers]):
            return False
    return _names(targets, module, "target_modules")


def _names(given: str | Sequence[str], module: str, key: str) -> bool:
    """Returns whether a list names a module by the end of its name, or a word matches all of it."""
    if isinstance(given, str):
        return _compiled(given, f"({given})", key).fullmatch(module) is not None
    return any(module == name or module.endswith(f".{name}") for name in given)


def check_saved(config: Path, values: Mapping[str, Any], tensors: Iterable[str]) -> None:
    """Raises ConfigError where `modules_to_save` names what is not in the file.

    Args:
      tensors: the names of those that are no adapters.
    """
    names = values.get("modules_to_save") or []
    there = list(tensors)
    lacking = [name for name in names if not any(peft_saved.under(one, [name]) for one in there)]
    bad = [name for name in lacking if name not in OF_HEADS] or lacking * (lacking == names)
    if bad:
        raise ConfigError(
            f"{config}: modules_to_save={shown(names)}: the file has no weight of {bad[0]:.60};"
            f" expected names of modules that were saved whole ({len(there)} tensors are)"
        )


def _check_start(config: Path, start: Any, ours: str) -> None:
    """Checks how the adapter was initialised.

    Where it started from a part of the base, PEFT has taken that part out of the base. Raises
    ConfigError.
    """
    if start == "pissa":
        if ours != "pissa":
            raise ConfigError(
                f"{config}: init_lora_weights=pissa: its base is not that of the model, but what is"
                " left of it; set adapter.init=pissa"
            )
        return
    if not any(start is one or (isinstance(one, str) and start == one) for one in PLAIN_STARTS):
        raise ConfigError(
            f"{config}: init_lora_weights={start!r:.40}: its base is not that of the model, and"
            " cannot be made again here; merge the adapter in PEFT (merge_and_unload) and start"
            " from the merged weights, or save it there with"
            " path_initial_model_for_weight_conversion"
        )
    if ours != "zero":
        raise ConfigError(
            f"adapter.init={ours}: {config.parent} holds trained weights; set adapter.init=zero"
        )


def check_start(config: Path, values: Mapping[str, Any], module: str, plain: bool) -> None:
    """Raises ConfigError where the start of a module (`plain`: a linear layer that is one layer
    here too) cannot be made again.
    """
    if values.get("init_lora_weights") == "pissa" and not plain:
        raise ConfigError(
            f"{config}: init_lora_weights=pissa: {module} is several layers here, or an embedding,"
            " and has other singular values there"
        )


def matches(key: str, module: str) -> bool:
    """Returns whether a key of `rank_pattern` or `alpha_pattern` matches a module's name.

    The regular expression must match the name, or the end of it from a dot on. Raises
    ConfigError for an invalid one, or one whose matching could take long.
    """
    return (
        _compiled(key, rf"(.*\.)?({key})", "rank_pattern or alpha_pattern").fullmatch(module)
        is not None
    )


def _compiled(written: str, pattern: str, key: str) -> re.Pattern[str]:
    """Compiles a regular expression that holds what is written in a key.

    Raises ConfigError for an invalid one, or one whose matching could take long.
    """
    loose = re.sub(r"\\.|\[[^\]]*\]", "x", written)
    if len(re.findall(r"[*+]|\{\d*,\d*\}", loose)) > MOST or re.search(r"\)\s*[*+{]", loose):
        raise ConfigError(
            f"adapter_config.json: {key}: {written!r:.60}: a regular expression with over {MOST}"
            " repetitions, or one of a group, is not read"
        )
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(
            f"adapter_config.json: {key}: {written!r:.60}: is no regular expression ({error})"
        ) from None
