"""The keys of config.json that the classes of transformers read, by family.

Made by `python -m tools.config_keys write`.
"""

from __future__ import annotations

VERSION = "5.24.0"  # of transformers
SHARED = """
architectures=null attn_implementation chunk_size_feed_forward=0 dtype=null gradient_checkpointing
id2label=null is_causal label2id=null model_type num_labels output_attentions
output_hidden_states=false per_layer_config problem_type=null quantization_config return_dict=true
torch_dtype transformers_version=null
"""
ROTARY_DECODERS = """
attention_chunk_size attention_dropout=0.0 is_encoder_decoder=false kv_sharing_modes
partial_rotary_factor rope_parameters=null rope_scaling rope_theta sep_token_id use_cache=true
"""  # which say so by `+`
_OWN = {
    "llama": """+
attention_bias=false bos_token_id=1 eos_token_id=2 head_dim=null hidden_act="silu"
hidden_size=4096 initializer_range=0.02 intermediate_size=11008 layer_types
max_position_embeddings=2048 mlp_bias=false num_attention_heads=32 num_hidden_layers=32
num_key_value_heads=null original_max_position_embeddings pad_token_id=null pretraining_tp=1
rms_norm_eps=1e-06 sliding_window tie_word_embeddings=false vocab_size=32000
""",
    "mistral": """+
bos_token_id=1 eos_token_id=2 head_dim=null hidden_act="silu" hidden_size=4096
initializer_range=0.02 intermediate_size=14336 layer_types max_position_embeddings=131072
num_attention_heads=32 num_hidden_layers=32 num_key_value_heads=8 original_max_position_embeddings
pad_token_id=null rms_norm_eps=1e-06 sliding_window=4096 tie_word_embeddings=false
vocab_size=32000
""",
    "ministral": """+
bos_token_id=1 eos_token_id=2 head_dim=null hidden_act="silu" hidden_size=4096
initializer_range=0.02 intermediate_size=14336 layer_types=null max_position_embeddings=131072
num_attention_heads=32 num_hidden_layers=32 num_key_value_heads=8 original_max_position_embeddings
pad_token_id=null rms_norm_eps=1e-06 sliding_window=4096 tie_word_embeddings=false
vocab_size=32000
""",
    "ministral3": """+
bos_token_id=1 eos_token_id=2 head_dim=128 hidden_act="silu" hidden_size=4096
initializer_range=0.02 intermediate_size=14336 layer_types max_position_embeddings=262144
num_attention_heads=32 num_hidden_layers=34 num_key_value_heads=8 original_max_position_embeddings
pad_token_id=11 rms_norm_eps=1e-05 sliding_window=null tie_word_embeddings=false vocab_size=131072
""",
    "qwen2": """+
bos_token_id=null eos_token_id=null head_dim hidden_act="silu" hidden_size=4096
initializer_range=0.02 intermediate_size=22016 layer_types=null max_position_embeddings=32768
max_window_layers=28 num_attention_heads=32 num_hidden_layers=32 num_key_value_heads=32
original_max_position_embeddings pad_token_id=null rms_norm_eps=1e-06 sliding_window=4096
tie_word_embeddings=false use_sliding_window=false vocab_size=151936
""",
    "qwen3": """+
attention_bias=false bos_token_id=null eos_token_id=null head_dim=128 hidden_act="silu"
hidden_size=4096 initializer_range=0.02 intermediate_size=22016 layer_types=null
max_position_embeddings=32768 max_window_layers=28 num_attention_heads=32 num_hidden_layers=32
num_key_value_heads=32 original_max_position_embeddings pad_token_id=null rms_norm_eps=1e-06
sliding_window=4096 tie_word_embeddings=false use_sliding_window=false vocab_size=151936
""",
    "phi3": """+
bos_token_id=1 embd_pdrop=0.0 eos_token_id=32000 head_dim hidden_act="silu" hidden_size=3072
initializer_range=0.02 intermediate_size=8192 layer_types max_position_embeddings=4096
num_attention_heads=32 num_hidden_layers=32 num_key_value_heads=null
original_max_position_embeddings=4096 pad_token_id=32000 resid_pdrop=0.0 rms_norm_eps=1e-05
sliding_window=null tie_word_embeddings=false vocab_size=32064
""",
    "olmo2": """+
attention_bias=false bos_token_id=null eos_token_id=50279 head_dim hidden_act="silu"
hidden_size=4096 initializer_range=0.02 intermediate_size=11008 layer_types
max_position_embeddings=2048 num_attention_heads=32 num_hidden_layers=32 num_key_value_heads=null
original_max_position_embeddings pad_token_id=1 rms_norm_eps=1e-05 sliding_window
tie_word_embeddings=false vocab_size=50304
""",
    "olmo3": """+
attention_bias=false bos_token_id=null eos_token_id=50279 head_dim hidden_act="silu"
hidden_size=4096 initializer_range=0.02 intermediate_size=11008 layer_types=null
max_position_embeddings=2048 num_attention_heads=32 num_hidden_layers=32 num_key_value_heads=null
original_max_position_embeddings pad_token_id=1 rms_norm_eps=1e-05 sliding_window=4096
tie_word_embeddings=false vocab_size=50304
""",
    "smollm3": """+
attention_bias=false bos_token_id=128000 eos_token_id=128001 head_dim hidden_act="silu"
hidden_size=2048 initializer_range=0.02 intermediate_size=11008 layer_types=null
max_position_embeddings=32768 mlp_bias=false no_rope_layer_interval=4 no_rope_layers=null
num_attention_heads=16 num_hidden_layers=36 num_key_value_heads=4 original_max_position_embeddings
pad_token_id=128004 rms_norm_eps=1e-06 sliding_window=null tie_word_embeddings=true
use_sliding_window=false vocab_size=128256
""",
    "granite": """+
attention_bias=false attention_multiplier=1.0 bos_token_id=1 embedding_multiplier=1.0
eos_token_id=2 head_dim hidden_act="silu" hidden_size=4096 initializer_range=0.02
intermediate_size=11008 layer_types logits_scaling=1.0 max_position_embeddings=2048 mlp_bias=false
num_attention_heads=32 num_hidden_layers=32 num_key_value_heads=null
original_max_position_embeddings pad_token_id=null residual_multiplier=1.0 rms_norm_eps=1e-06
sliding_window tie_word_embeddings=false vocab_size=32000
""",
    "glm": """+
attention_bias=true bos_token_id=null eos_token_id=null head_dim=128 hidden_act="silu"
hidden_size=4096 initializer_range=0.02 intermediate_size=13696 layer_types
max_position_embeddings=131072 num_attention_heads=32 num_hidden_layers=40 num_key_value_heads=2
original_max_position_embeddings pad_token_id=151329 rms_norm_eps=1.5625e-07 sliding_window
tie_word_embeddings=false vocab_size=151552
""",
    "glm4": """+
attention_bias=true bos_token_id=null eos_token_id=null head_dim=128 hidden_act="silu"
hidden_size=4096 initializer_range=0.02 intermediate_size=13696 layer_types
max_position_embeddings=131072 num_attention_heads=32 num_hidden_layers=40 num_key_value_heads=2
original_max_position_embeddings pad_token_id=151329 rms_norm_eps=1.5625e-07 sliding_window
tie_word_embeddings=false vocab_size=151552
""",
    "cohere": """+
attention_bias=false bos_token_id=5 eos_token_id=255001 head_dim hidden_act="silu"
hidden_size=8192 initializer_range=0.02 intermediate_size=22528 layer_norm_eps=1e-05 layer_types
logit_scale=0.0625 max_position_embeddings=8192 num_attention_heads=64 num_hidden_layers=40
num_key_value_heads=null original_max_position_embeddings pad_token_id=0 sliding_window
tie_word_embeddings=true use_qk_norm=false vocab_size=256000
""",
    "cohere2": """+
attention_bias=false bos_token_id=5 eos_token_id=255001 head_dim hidden_act="silu"
hidden_size=8192 initializer_range=0.02 intermediate_size=22528 layer_norm_eps=1e-05
layer_types=null logit_scale=0.0625 max_position_embeddings=8192 num_attention_heads=64
num_hidden_layers=40 num_key_value_heads=null original_max_position_embeddings pad_token_id=0
sliding_window=4096 sliding_window_pattern tie_word_embeddings=true vocab_size=256000
""",
    "exaone4": """+
bos_token_id=0 eos_token_id=2 head_dim hidden_act="silu" hidden_size=4096 initializer_range=0.02
intermediate_size=16384 layer_types=null max_position_embeddings=2048 num_attention_heads=32
num_hidden_layers=32 num_key_value_heads=32 original_max_position_embeddings pad_token_id=null
rms_norm_eps=1e-05 sliding_window=4096 sliding_window_pattern=4 tie_word_embeddings=false
vocab_size=102400
""",
    "hunyuan_v1_dense": """+
attention_bias=false bos_token_id=1 eod_token_id=3 eos_token_id=2 head_dim=null hidden_act="silu"
hidden_size=4096 initializer_range=0.02 intermediate_size=11008 layer_types
max_position_embeddings=2048 num_attention_heads=32 num_hidden_layers=32 num_key_value_heads=null
original_max_position_embeddings pad_token_id=0 pretraining_tp=1 rms_norm_eps=1e-05 sliding_window
tie_word_embeddings=false vocab_size=290943
""",
    "starcoder2": """+
bos_token_id=50256 embedding_dropout=0.0 eos_token_id=50256 head_dim
hidden_act="gelu_pytorch_tanh" hidden_size=3072 initializer_range=0.018042 intermediate_size=12288
layer_types max_position_embeddings=4096 norm_epsilon=1e-05 num_attention_heads=24
num_hidden_layers=30 num_key_value_heads=2 original_max_position_embeddings pad_token_id=null
residual_dropout=0.0 sliding_window=null tie_word_embeddings=true use_bias=true vocab_size=49152
""",
    "phi": """+
bos_token_id=1 embd_pdrop=0.0 eos_token_id=2 head_dim hidden_act="gelu_new" hidden_size=2048
initializer_range=0.02 intermediate_size=8192 layer_norm_eps=1e-05 layer_types
max_position_embeddings=2048 num_attention_heads=32 num_hidden_layers=24 num_key_value_heads=null
original_max_position_embeddings pad_token_id=null qk_layernorm=false resid_pdrop=0.0
sliding_window tie_word_embeddings=false vocab_size=51200
""",
    "gemma": """+
attention_bias=false bos_token_id=2 eos_token_id=1 head_dim=256 hidden_act="gelu_pytorch_tanh"
hidden_size=3072 initializer_range=0.02 intermediate_size=24576 layer_types
max_position_embeddings=8192 num_attention_heads=16 num_hidden_layers=28 num_key_value_heads=16
original_max_position_embeddings pad_token_id=0 rms_norm_eps=1e-06 sliding_window
tie_word_embeddings=true use_bidirectional_attention=null vocab_size=256000
""",
    "gemma2": """+
attention_bias=false attn_logit_softcapping=50.0 bos_token_id=2 eos_token_id=1
final_logit_softcapping=30.0 head_dim=256 hidden_activation="gelu_pytorch_tanh" hidden_size=2304
initializer_range=0.02 intermediate_size=9216 layer_types=null max_position_embeddings=8192
num_attention_heads=8 num_hidden_layers=26 num_key_value_heads=4 original_max_position_embeddings
pad_token_id=0 query_pre_attn_scalar=256 rms_norm_eps=1e-06 sliding_window=4096
tie_word_embeddings=true use_bidirectional_attention=null vocab_size=256000
""",
    "gemma3_text": """+
attention_bias=false attn_logit_softcapping=null bos_token_id=2 eos_token_id=1
final_logit_softcapping=null head_dim=256 hidden_activation="gelu_pytorch_tanh" hidden_size=2304
initializer_range=0.02 intermediate_size=9216 layer_types=null max_position_embeddings=131072
num_attention_heads=8 num_hidden_layers=26 num_key_value_heads=4 original_max_position_embeddings
pad_token_id=0 query_pre_attn_scalar=256 rms_norm_eps=1e-06 rope_local_base_freq
sliding_window=4096 sliding_window_pattern tie_word_embeddings=true
use_bidirectional_attention=false vocab_size=262208
""",
    "mixtral": """+
bos_token_id=1 eos_token_id=2 head_dim=null hidden_act="silu" hidden_size=4096
initializer_range=0.02 intermediate_size=14336 layer_types max_position_embeddings=131072
num_attention_heads=32 num_experts num_experts_per_tok=2 num_hidden_layers=32
num_key_value_heads=8 num_local_experts=8 original_max_position_embeddings
output_router_logits=false pad_token_id=null rms_norm_eps=1e-05 router_aux_loss_coef=0.001
router_jitter_noise=0.0 sliding_window=null tie_word_embeddings=false vocab_size=32000
""",
    "qwen3_moe": """+
attention_bias=false bos_token_id=null decoder_sparse_step=1 eos_token_id=null head_dim
hidden_act="silu" hidden_size=2048 initializer_range=0.02 intermediate_size=6144 layer_types
max_position_embeddings=32768 mlp_only_layers=null moe_intermediate_size=768 norm_topk_prob=false
num_attention_heads=32 num_experts=128 num_experts_per_tok=8 num_hidden_layers=24
num_key_value_heads=4 num_local_experts original_max_position_embeddings
output_router_logits=false pad_token_id=null rms_norm_eps=1e-06 router_aux_loss_coef=0.001
sliding_window=4096 tie_word_embeddings=false use_sliding_window=false vocab_size=151936
""",
    "qwen2_moe": """+
bos_token_id=null decoder_sparse_step=1 eos_token_id=null head_dim hidden_act="silu"
hidden_size=2048 initializer_range=0.02 intermediate_size=5632 layer_types=null
max_position_embeddings=32768 max_window_layers=28 mlp_only_layers=null moe_intermediate_size=1408
norm_topk_prob=false num_attention_heads=16 num_experts=60 num_experts_per_tok=4
num_hidden_layers=24 num_key_value_heads=16 original_max_position_embeddings
output_router_logits=false pad_token_id=null qkv_bias=true rms_norm_eps=1e-06
router_aux_loss_coef=0.001 shared_expert_intermediate_size=5632 sliding_window=4096
tie_word_embeddings=false use_sliding_window=false vocab_size=151936
""",
    "olmoe": """+
attention_bias=false bos_token_id=null clip_qkv=null eos_token_id=50279 head_dim hidden_act="silu"
hidden_size=2048 initializer_range=0.02 intermediate_size=2048 layer_types
max_position_embeddings=4096 norm_topk_prob=false num_attention_heads=16 num_experts=64
num_experts_per_tok=8 num_hidden_layers=16 num_key_value_heads=null num_local_experts
original_max_position_embeddings output_router_logits=false pad_token_id=1 rms_norm_eps=1e-05
router_aux_loss_coef=0.01 sliding_window tie_word_embeddings=false vocab_size=50304
""",
    "gpt2": """
activation_function="gelu_new" add_cross_attention=false attention_chunk_size attn_pdrop=0.1
bos_token_id=50256 classifier_dropout embd_pdrop=0.1 eos_token_id=50256 hidden_dropout hidden_size
initializer_range=0.02 is_encoder_decoder=false kv_sharing_modes layer_norm_epsilon=1e-05
layer_types max_position_embeddings n_embd=768 n_head=12 n_inner=null n_layer=12 n_positions=1024
num_attention_heads num_hidden_layers pad_token_id=null reorder_and_upcast_attn=false
resid_pdrop=0.1 scale_attn_by_inverse_layer_idx=false scale_attn_weights=true sep_token_id
sliding_window summary_activation=null summary_first_dropout=0.1 summary_last_dropout
summary_proj_to_labels=true summary_type="cls_index" summary_use_proj=true
tie_word_embeddings=true use_cache=true vocab_size=50257
""",
    "gpt_neox": """+
attention_bias=true bos_token_id=0 classifier_dropout=0.1 eos_token_id=2 head_dim
hidden_act="gelu" hidden_dropout=0.0 hidden_size=6144 initializer_range=0.02
intermediate_size=24576 is_decoder=false layer_norm_eps=1e-05 layer_types
max_position_embeddings=2048 num_attention_heads=64 num_hidden_layers=44
original_max_position_embeddings pad_token_id=null rotary_emb_base rotary_pct sliding_window
tie_word_embeddings=false use_parallel_residual=true vocab_size=50432
""",
    "bert": """
add_cross_attention=false attention_chunk_size attention_probs_dropout_prob=0.1 bos_token_id=null
classifier_dropout=null embedding_size eos_token_id=null hidden_act="gelu" hidden_dropout_prob=0.1
hidden_size=768 initializer_range=0.02 intermediate_size=3072 is_decoder=false
is_encoder_decoder=false kv_sharing_modes layer_norm_eps=1e-12 layer_types
max_position_embeddings=512 num_attention_heads=12 num_hidden_layers=12 pad_token_id=0
sep_token_id sliding_window tie_word_embeddings=true type_vocab_size=2 use_cache=true
vocab_size=30522
""",
    "roberta": """
add_cross_attention=false attention_chunk_size attention_probs_dropout_prob=0.1 bos_token_id=0
classifier_dropout=null embedding_size eos_token_id=2 hidden_act="gelu" hidden_dropout_prob=0.1
hidden_size=768 initializer_range=0.02 intermediate_size=3072 is_decoder=false
is_encoder_decoder=false kv_sharing_modes layer_norm_eps=1e-12 layer_types
max_position_embeddings=512 num_attention_heads=12 num_hidden_layers=12 pad_token_id=1
sep_token_id sliding_window tie_word_embeddings=true type_vocab_size=2 use_cache=true
vocab_size=50265
""",
    "xlm-roberta": """
add_cross_attention=false attention_chunk_size attention_probs_dropout_prob=0.1 bos_token_id=0
classifier_dropout=null embedding_size eos_token_id=2 hidden_act="gelu" hidden_dropout_prob=0.1
hidden_size=768 initializer_range=0.02 intermediate_size=3072 is_decoder=false
is_encoder_decoder=false kv_sharing_modes layer_norm_eps=1e-12 layer_types
max_position_embeddings=512 num_attention_heads=12 num_hidden_layers=12 pad_token_id=1
sep_token_id sliding_window tie_word_embeddings=true type_vocab_size=2 use_cache=true
vocab_size=30522
""",
    "camembert": """
add_cross_attention=false attention_chunk_size attention_probs_dropout_prob=0.1 bos_token_id=0
classifier_dropout=null embedding_size eos_token_id=2 hidden_act="gelu" hidden_dropout_prob=0.1
hidden_size=768 initializer_range=0.02 intermediate_size=3072 is_decoder=false
is_encoder_decoder=false kv_sharing_modes layer_norm_eps=1e-12 layer_types
max_position_embeddings=512 num_attention_heads=12 num_hidden_layers=12 pad_token_id=1
sep_token_id sliding_window tie_word_embeddings=true type_vocab_size=2 use_cache=true
vocab_size=30522
""",
    "distilbert": """
activation="gelu" attention_dropout=0.1 bos_token_id=null dim=768 dropout=0.1 eos_token_id=null
hidden_dim=3072 hidden_size initializer_range=0.02 is_encoder_decoder=false
max_position_embeddings=512 n_heads=12 n_layers=6 num_attention_heads num_hidden_layers
pad_token_id=0 qa_dropout=0.1 sep_token_id seq_classif_dropout=0.2 sinusoidal_pos_embds=false
tie_word_embeddings=true vocab_size=30522
""",
    "t5": """
attention_chunk_size bos_token_id classifier_dropout=0.0 d_ff=2048 d_kv=64 d_model=512
decoder_start_token_id dense_act_fn dropout_rate=0.1 eos_token_id=1 feed_forward_proj="relu"
head_dim hidden_size initializer_factor=1.0 initializer_range is_decoder=false
is_encoder_decoder=true is_gated_act kv_sharing_modes layer_norm_epsilon=1e-06 layer_types
num_attention_heads num_decoder_layers=null num_heads=8 num_hidden_layers num_layers=6
pad_token_id=0 relative_attention_max_distance=128 relative_attention_num_buckets=32
scale_decoder_outputs sep_token_id sliding_window tie_word_embeddings use_cache=true
vocab_size=32128
""",
    "mt5": """
attention_chunk_size bos_token_id=null classifier_dropout=0.0 d_ff=1024 d_kv=64 d_model=512
decoder_start_token_id=0 dense_act_fn dropout_rate=0.1 eos_token_id=1
feed_forward_proj="gated-gelu" head_dim hidden_size initializer_factor=1.0 initializer_range
is_decoder=false is_encoder_decoder=true is_gated_act kv_sharing_modes layer_norm_epsilon=1e-06
layer_types num_attention_heads num_decoder_layers=null num_heads=6 num_hidden_layers num_layers=8
pad_token_id=0 relative_attention_max_distance=128 relative_attention_num_buckets=32 sep_token_id
sliding_window tie_word_embeddings=true use_cache=true vocab_size=250112
""",
    "umt5": """
attention_chunk_size bos_token_id classifier_dropout=0.0 d_ff=1024 d_kv=64 d_model=512
decoder_start_token_id=0 dense_act_fn dropout_rate=0.1 eos_token_id=1
feed_forward_proj="gated-gelu" head_dim hidden_size initializer_factor=1.0 initializer_range
is_decoder=false is_encoder_decoder=true is_gated_act kv_sharing_modes layer_norm_epsilon=1e-06
layer_types num_attention_heads num_decoder_layers=null num_heads=6 num_hidden_layers num_layers=8
pad_token_id=0 relative_attention_max_distance=128 relative_attention_num_buckets=32
scale_decoder_outputs sep_token_id sliding_window tie_word_embeddings use_cache=true
vocab_size=250112
""",
    "bart": """
activation_dropout=0.0 activation_function="gelu" attention_chunk_size attention_dropout=0.0
bos_token_id=0 classifier_dropout=0.0 d_model=1024 decoder_attention_heads=16 decoder_ffn_dim=4096
decoder_layerdrop=0.0 decoder_layers=12 decoder_start_token_id=2 dropout=0.1
encoder_attention_heads=16 encoder_ffn_dim=4096 encoder_layerdrop=0.0 encoder_layers=12
eos_token_id=2 forced_eos_token_id=2 hidden_size init_std=0.02 initializer_range is_decoder=false
is_encoder_decoder=true kv_sharing_modes layer_types max_position_embeddings=1024
num_attention_heads num_hidden_layers pad_token_id=1 scale_embedding=false sep_token_id
sliding_window tie_word_embeddings=true use_cache=true vocab_size=50265
""",
    "mbart": """
activation_dropout=0.0 activation_function="gelu" attention_chunk_size attention_dropout=0.0
bos_token_id=0 classifier_dropout=0.0 d_model=1024 decoder_attention_heads=16 decoder_ffn_dim=4096
decoder_layerdrop=0.0 decoder_layers=12 decoder_start_token_id=null dropout=0.1
encoder_attention_heads=16 encoder_ffn_dim=4096 encoder_layerdrop=0.0 encoder_layers=12
eos_token_id=2 forced_eos_token_id=2 hidden_size init_std=0.02 initializer_range is_decoder=false
is_encoder_decoder=true kv_sharing_modes layer_types max_position_embeddings=1024
num_attention_heads num_hidden_layers pad_token_id=1 scale_embedding=false sep_token_id
sliding_window tie_word_embeddings=true use_cache=true vocab_size=50265
""",
    "m2m_100": """
activation_dropout=0.0 activation_function="relu" attention_chunk_size attention_dropout=0.1
bos_token_id=0 d_model=1024 decoder_attention_heads=16 decoder_ffn_dim=4096 decoder_layerdrop=0.05
decoder_layers=12 decoder_start_token_id=2 dropout=0.1 encoder_attention_heads=16
encoder_ffn_dim=4096 encoder_layerdrop=0.05 encoder_layers=12 eos_token_id=2 hidden_size
init_std=0.02 initializer_range is_encoder_decoder=true kv_sharing_modes layer_types
max_position_embeddings=1024 num_attention_heads num_hidden_layers pad_token_id=1
scale_embedding=true sep_token_id sliding_window tie_word_embeddings=true use_cache=true
vocab_size=128112
""",
    "pegasus": """
activation_dropout=0.0 activation_function="gelu" attention_chunk_size attention_dropout=0.0
bos_token_id d_model=1024 decoder_attention_heads=16 decoder_ffn_dim=4096 decoder_layerdrop=0.0
decoder_layers=12 decoder_start_token_id=0 dropout=0.1 encoder_attention_heads=16
encoder_ffn_dim=4096 encoder_layerdrop=0.0 encoder_layers=12 eos_token_id=1 forced_eos_token_id=1
hidden_size init_std=0.02 initializer_range is_decoder=false is_encoder_decoder=true
kv_sharing_modes layer_types max_position_embeddings=1024 num_attention_heads num_hidden_layers
pad_token_id=0 scale_embedding=false sep_token_id sliding_window tie_word_embeddings=true
use_cache=true vocab_size=50265
""",
    "electra": """
add_cross_attention=false attention_chunk_size attention_probs_dropout_prob=0.1 bos_token_id=null
classifier_dropout=null embedding_size=128 eos_token_id=null hidden_act="gelu"
hidden_dropout_prob=0.1 hidden_size=256 initializer_range=0.02 intermediate_size=1024
is_decoder=false is_encoder_decoder=false kv_sharing_modes layer_norm_eps=1e-12 layer_types
max_position_embeddings=512 num_attention_heads=4 num_hidden_layers=12 pad_token_id=0 sep_token_id
sliding_window summary_activation="gelu" summary_first_dropout summary_last_dropout=0.1
summary_proj_to_labels summary_type="first" summary_use_proj=true tie_word_embeddings=true
type_vocab_size=2 use_cache=true vocab_size=30522
""",
    "deberta-v2": """
attention_head_size attention_probs_dropout_prob=0.1 bos_token_id=null cls_dropout conv_act
conv_groups conv_kernel_size embedding_size eos_token_id=null hidden_act="gelu"
hidden_dropout_prob=0.1 hidden_size=1536 initializer_range=0.02 intermediate_size=6144
is_encoder_decoder=false layer_norm_eps=1e-07 legacy=true max_position_embeddings=512
max_relative_positions=-1 norm_rel_ebd num_attention_heads=24 num_hidden_layers=24 pad_token_id=0
pooler_dropout=0.0 pooler_hidden_act="gelu" pooler_hidden_size pos_att_type=null
position_biased_input=true position_buckets relative_attention=false sep_token_id share_att_key
tie_word_embeddings=true type_vocab_size=0 vocab_size=128100
""",
    "modernbert": """
attention_bias=false attention_dropout=0.0 bos_token_id=50281 classifier_activation="gelu"
classifier_bias=false classifier_dropout=0.0 classifier_pooling="cls" cls_token_id=50281
decoder_bias=true deterministic_flash_attn=false embedding_dropout=0.0 eos_token_id=50282
global_attn_every_n_layers global_rope_theta head_dim hidden_activation="gelu" hidden_size=768
initializer_cutoff_factor=2.0 initializer_range=0.02 intermediate_size=1152
is_encoder_decoder=false layer_types=null local_attention=128 local_rope_theta
max_position_embeddings=8192 mlp_bias=false mlp_dropout=0.0 norm_bias=false norm_eps=1e-05
num_attention_heads=12 num_hidden_layers=22 original_max_position_embeddings pad_token_id=50283
partial_rotary_factor rope_parameters=null rope_scaling rope_theta sep_token_id=50282
sliding_window sparse_pred_ignore_index=-100 sparse_prediction=false tie_word_embeddings=true
vocab_size=50368
""",
    "eurobert": """
attention_bias=false attention_dropout=0.0 bos_token_id=128000 classifier_pooling="late"
eos_token_id=128001 head_dim=null hidden_act="silu" hidden_size=768 initializer_range=0.02
intermediate_size=3072 is_encoder_decoder=false mask_token_id=128002 max_position_embeddings=8192
mlp_bias=false num_attention_heads=12 num_hidden_layers=12 num_key_value_heads=null
original_max_position_embeddings pad_token_id=128001 partial_rotary_factor pretraining_tp=1
rms_norm_eps=1e-05 rope_parameters=null rope_scaling rope_theta sep_token_id
tie_word_embeddings=false use_cache=true vocab_size=128256
""",
    "nomic_bert": """
attention_probs_dropout_prob=0.0 bos_token_id=null classifier_dropout=null eos_token_id=null
head_dim=null hidden_act="silu" hidden_dropout_prob=0.0 hidden_size=768 initializer_range=0.02
intermediate_size=3072 is_encoder_decoder=false layer_norm_eps=1e-12 max_position_embeddings=2048
num_attention_heads=12 num_hidden_layers=12 original_max_position_embeddings pad_token_id=0
partial_rotary_factor rope_parameters=null rope_scaling rope_theta sep_token_id
tie_word_embeddings type_vocab_size=2 vocab_size=30528
""",
    "mpnet": """
attention_probs_dropout_prob=0.1 bos_token_id=0 embedding_size eos_token_id=2 hidden_act="gelu"
hidden_dropout_prob=0.1 hidden_size=768 initializer_range=0.02 intermediate_size=3072
is_encoder_decoder=false layer_norm_eps=1e-12 max_position_embeddings=512 num_attention_heads=12
num_hidden_layers=12 pad_token_id=1 relative_attention_num_buckets=32 sep_token_id
tie_word_embeddings=true vocab_size=30527
""",
}
READS: dict[str, frozenset[str]] = {  # key or key=default
    name: frozenset(f"{SHARED} {words}".replace("+", ROTARY_DECODERS).split())
    for name, words in _OWN.items()
}
ALIASES: dict[str, dict[str, str]] = {  # other names of keys
    "mixtral": {
        "num_experts": "num_local_experts",
    },
    "qwen3_moe": {
        "num_experts": "num_local_experts",
    },
    "olmoe": {
        "num_local_experts": "num_experts",
    },
    "gpt2": {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
    "distilbert": {
        "hidden_size": "dim",
        "num_attention_heads": "n_heads",
        "num_hidden_layers": "n_layers",
    },
    "t5": {
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
    },
    "mt5": {
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
    },
    "umt5": {
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
    },
    "bart": {
        "num_attention_heads": "encoder_attention_heads",
        "hidden_size": "d_model",
        "num_hidden_layers": "encoder_layers",
    },
    "mbart": {
        "num_attention_heads": "encoder_attention_heads",
        "hidden_size": "d_model",
        "num_hidden_layers": "encoder_layers",
    },
    "m2m_100": {
        "num_attention_heads": "encoder_attention_heads",
        "hidden_size": "d_model",
        "num_hidden_layers": "encoder_layers",
    },
    "pegasus": {
        "num_attention_heads": "encoder_attention_heads",
        "hidden_size": "d_model",
        "num_hidden_layers": "encoder_layers",
    },
}
