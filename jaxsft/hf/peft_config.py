"""Checks adapter_config.json of the library PEFT.

Every key of it is used, without effect on what a trained adapter computes, or an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxsft.config.adapters import AdapterConfig, LowRank, Prefix, Prompt
from jaxsft.errors import ConfigError

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
    _check_types(config, values)
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


TYPES: Mapping[str, tuple[type, ...]] = {
    "peft_type": (str,),
    **dict.fromkeys(("r", "num_virtual_tokens", "num_transformer_submodules"), (int,)),
    "lora_alpha": (int, float),
    **dict.fromkeys(("use_rslora", "use_dora", "prefix_projection"), (bool,)),
    "bias": (str,),
}


def _check_types(config: Path, values: Mapping[str, Any]) -> None:
    """Raises ConfigError where what is computed with is of another type."""
    names = values.get("modules_to_save") or []
    if not isinstance(names, list) or not all(isinstance(x, str) and x for x in names):
        raise ConfigError(
            f"{config}: modules_to_save={names!r:.40}: expected a list of names of modules"
        )
    for key, types in TYPES.items():
        value = values.get(key)
        if value is not None and (
            not isinstance(value, types) or (isinstance(value, bool) and bool not in types)
        ):
            said = {str: "a word", bool: "true or false", int: "a number"}[types[0]]
            raise ConfigError(f"{config}: {key}={value!r:.40}: expected {said}")


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
    loose = re.sub(r"\\.|\[[^\]]*\]", "x", key)
    if len(re.findall(r"[*+]|\{\d*,\d*\}", loose)) > MOST or re.search(r"\)\s*[*+{]", loose):
        raise ConfigError(
            f"adapter_config.json: {key!r:.60}: a regular expression with over {MOST} repetitions,"
            " or one of a group, is not read"
        )
    try:
        return re.match(rf"(.*\.)?({key})$", module) is not None
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(
            f"adapter_config.json: {key!r:.60}: is no regular expression ({error})"
        ) from None
