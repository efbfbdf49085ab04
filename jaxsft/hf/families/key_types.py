"""The type and bounds of each key of config.json.

There is one place for all families, for a key means the same in each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

SHOWN = 80  # characters of a value in a message


class ValueType(NamedTuple):
    """Values of one kind.

    Attributes:
      types: of Python; a whole number counts as a float.
      least, most: bounds of a number, with themselves; `above`: one that it must exceed.
      said: what is expected, in words.
    """

    types: tuple[type, ...]
    said: str
    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf

    def fits(self, value: Any) -> bool:
        if not isinstance(value, self.types) or (
            isinstance(value, bool) and bool not in self.types
        ):
            return False
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return True
        return self.least <= value <= self.most and value > self.above and value == value


def whole(least: int, most: int) -> ValueType:
    return ValueType((int,), f"a whole number from {least} to {most}", least, most)


def number(said: str, least: float = -1e30, above: float = -math.inf) -> ValueType:
    return ValueType((int, float), said, least, 1e30, above)


WIDTH, COUNT, LENGTH = whole(1, 2**22), whole(1, 2**12), whole(1, 2**31 - 1)
ID, SWITCH, WORD = (
    whole(0, 2**31 - 1),
    ValueType((bool,), "true or false"),
    ValueType((str,), "a word"),
)
SCALE, RATIO = number("a number above 0", above=0), number("a number of at least 1", least=1)
EPSILON = ValueType((int, float), "a number above 0 and at most 1", -1.0, 1.0, 0.0)
SHARE = ValueType((int, float), "a number from 0 to 1", 0.0, 1.0)
PADDING = whole(-1, 2**31 - 1)
IDS = ValueType((int, list), f"{ID.said}, a list of such", 0, 2**31 - 1)
PART, OBJECT, LIST = EPSILON, ValueType((dict,), "an object"), ValueType((list,), "a list")

_KEYS: tuple[tuple[ValueType, str], ...] = (
    (
        WIDTH,
        """hidden_size d_model dim n_embd intermediate_size d_ff hidden_dim n_inner encoder_ffn_dim
        decoder_ffn_dim moe_intermediate_size shared_expert_intermediate_size
        pooler_hidden_size head_dim d_kv embedding_size attention_head_size num_local_experts
        num_experts num_experts_per_tok position_buckets relative_attention_num_buckets""",
    ),
    (
        COUNT,
        """num_hidden_layers num_layers num_decoder_layers n_layer n_layers encoder_layers
        decoder_layers num_attention_heads
        num_key_value_heads num_heads n_head n_heads encoder_attention_heads decoder_attention_heads
        global_attn_every_n_layers
        no_rope_layer_interval decoder_sparse_step""",
    ),
    (
        LENGTH,
        """vocab_size max_position_embeddings n_positions original_max_position_embeddings
        sliding_window local_attention
        relative_attention_max_distance""",
    ),
    (ID, "type_vocab_size max_window_layers conv_kernel_size"),
    (
        # 0 is what a class writes where no layer has a window
        ValueType((int, str), "a whole number from 0 to 4096, or a word", 0, COUNT.most),
        "sliding_window_pattern",
    ),
    (
        ID,
        "bos_token_id sep_token_id cls_token_id eod_token_id mask_token_id decoder_start_token_id",
    ),
    # -1 is the last row to torch, and stands in files for none
    (PADDING, "pad_token_id"),
    (IDS, "eos_token_id forced_eos_token_id"),
    (whole(-1, 2**31 - 1), "max_relative_positions"),
    (
        SWITCH,
        """tie_word_embeddings attention_bias mlp_bias norm_bias use_sliding_window norm_topk_prob
        is_encoder_decoder is_decoder
        add_cross_attention scale_attn_weights scale_attn_by_inverse_layer_idx use_parallel_residual
        relative_attention share_att_key
        position_biased_input is_gated_act scale_decoder_outputs scale_embedding
        use_bidirectional_attention classifier_bias decoder_bias use_cache output_attentions
        output_hidden_states return_dict gradient_checkpointing reorder_and_upcast_attn
        deterministic_flash_attn sparse_prediction legacy summary_use_proj summary_proj_to_labels
        output_router_logits sinusoidal_pos_embds use_bias qk_layernorm use_qk_norm qkv_bias""",
    ),
    (
        WORD,
        """torch_dtype dtype transformers_version attn_implementation summary_type
        summary_activation hidden_act hidden_activation activation activation_function
        feed_forward_proj dense_act_fn norm_rel_ebd pooler_hidden_act
        classifier_activation classifier_pooling problem_type""",
    ),
    (EPSILON, "rms_norm_eps layer_norm_eps layer_norm_epsilon norm_eps norm_epsilon"),
    (
        SCALE,
        """query_pre_attn_scalar attn_logit_softcapping final_logit_softcapping clip_qkv
        embedding_multiplier attention_multiplier residual_multiplier logits_scaling logit_scale""",
    ),
    (RATIO, "rope_theta rotary_emb_base rope_local_base_freq global_rope_theta local_rope_theta"),
    (PART, "partial_rotary_factor rotary_pct"),
    (OBJECT, "rope_parameters rope_scaling"),
    (LIST, "layer_types mlp_only_layers no_rope_layers"),
    (ValueType((list,), "a list of words"), "architectures"),
    (OBJECT, "id2label label2id"),
    (whole(0, 2**20), "num_labels"),
    (ValueType((str, list), "a word or a list"), "pos_att_type"),
    (
        number("a number of at least 0", least=0),
        """router_jitter_noise router_aux_loss_coef initializer_range initializer_factor
        initializer_cutoff_factor init_std""",
    ),
    (
        SHARE,
        """attention_dropout attention_probs_dropout_prob attn_pdrop embd_pdrop resid_pdrop
        hidden_dropout hidden_dropout_prob embedding_dropout mlp_dropout dropout dropout_rate
        activation_dropout classifier_dropout cls_dropout seq_classif_dropout qa_dropout
        pooler_dropout encoder_layerdrop decoder_layerdrop summary_first_dropout
        summary_last_dropout classif_dropout residual_dropout""",
    ),
    (whole(0, 2**31 - 1), "chunk_size_feed_forward"),
    (whole(-(2**31), 2**31 - 1), "sparse_pred_ignore_index"),
    (COUNT, "pretraining_tp"),
)
SCHEMA: dict[str, ValueType] = {key: kind for kind, keys in _KEYS for key in keys.split()}
# Where null has a meaning of its own in the classes: none, or what follows from another key.
_NULLABLE = """
num_key_value_heads head_dim n_inner sliding_window layer_types rope_parameters rope_scaling
original_max_position_embeddings pad_token_id
eos_token_id forced_eos_token_id bos_token_id decoder_start_token_id attn_logit_softcapping
final_logit_softcapping
num_decoder_layers mlp_only_layers pos_att_type architectures
use_bidirectional_attention partial_rotary_factor clip_qkv id2label num_labels problem_type
no_rope_layers sliding_window_pattern eod_token_id
"""
NULLABLE = frozenset(_NULLABLE.split())
# Read of heads, by whoever takes one (`trained_heads.py`), and not by a family.
OF_HEADS = (
    "architectures",
    "id2label",
    "num_labels",
    "problem_type",
    "decoder_start_token_id",
    "pooler_hidden_act",
    "classifier_activation",
)
OF_HEADS += ("classifier_pooling", "classifier_bias", "decoder_bias")


def shown(value: Any) -> str:
    """Returns the text of a value for a message, cut where it is long."""
    try:
        text = repr(value)
    # nested too deep, or an integer of too many digits to print
    except (RecursionError, ValueError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def wrong(key: str, value: Any) -> str | None:
    """Returns what was expected of the value of a key; None where it fits.

    Every key that a family reads is in SCHEMA.
    """
    if value is None and key in NULLABLE:
        return None
    kind = SCHEMA[key]
    fits = kind.fits(value) and all(
        ITEMS[key].fits(item)
        for item in (value if isinstance(value, list) and key in ITEMS else ())
    )
    return None if fits else f"expected {kind.said}" + (" or null" if key in NULLABLE else "")


# of each item of a list
ITEMS = {"architectures": WORD, "eos_token_id": ID, "forced_eos_token_id": ID}
ITEMS |= {"no_rope_layers": whole(0, 1)}


def ids_of(key: str, value: Any) -> list[int]:
    """Returns the ids of tokens that a key holds; empty for another key."""
    if not key.endswith("_token_id") or value is None:
        return []
    return value if isinstance(value, list) else [value]


def numbers(value: Any, least: float = 0.0) -> Sequence[float] | None:
    """Returns a list of finite numbers above `least`; None for anything else."""
    fits = isinstance(value, list) and value and all(number("", above=least).fits(x) for x in value)
    return [float(x) for x in value] if fits else None
