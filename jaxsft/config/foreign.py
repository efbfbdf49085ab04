"""What options of other trainers are called here: hints for a name that does not exist, and the
page for those who come from there.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from jaxsft.config import option, schema


@dataclass(frozen=True)
class Foreign:
    """Names of TRL and transformers, Axolotl, LLaMA-Factory and others for one thing; `ours` is ""
    where there is no such option.
    """

    names: str  # words
    ours: str
    note: str = ""


LENGTH = (
    Foreign("num_train_epochs num_epochs epochs max_epochs n_epochs", "train.duration=3epochs"),
    Foreign(
        "max_steps num_steps total_steps max_train_steps train_steps iters",
        "train.duration=500steps",
    ),
    Foreign(
        "per_device_train_batch_size micro_batch_size train_batch_size global_batch_size",
        "train.batch_size=16",
        "rows of a whole step: over all devices and micro-batches",
    ),
    Foreign(
        "gradient_accumulation_steps gradient_accumulation grad_accum_steps",
        "train.accumulate=4",
        "cuts train.batch_size into so many",
    ),
    Foreign("per_device_eval_batch_size eval_batch_size", "evaluation.batch_size=32"),
    Foreign("early_stopping early_stopping_patience", "evaluation.patience=3"),
)
RATES = (
    Foreign("lr peak_lr base_lr max_lr", "optim.learning_rate=2e-5"),
    Foreign(
        "lr_scheduler lr_scheduler_type scheduler",
        "schedule=cosine",
        "constant, linear, cosine, inverse_sqrt, wsd",
    ),
    Foreign("warmup_ratio", "schedule.warmup=5%"),
    Foreign("warmup_steps num_warmup_steps lr_warmup_steps", "schedule.warmup=100steps"),
    Foreign(
        "optimizer optimizer_type",
        "optim=adamw",
        "sgd, adam, adamw, adagrad, adafactor, lion, lamb, muon",
    ),
    Foreign(
        "max_grad_norm gradient_clipping grad_clip gradient_clip_val clip_grad",
        "optim.clip_norm=1.0",
    ),
    Foreign("adam_beta1 beta1", "optim.b1=0.9"),
    Foreign("adam_beta2 beta2", "optim.b2=0.95"),
    Foreign("adam_epsilon", "optim.eps=1e-8"),
    Foreign("wd", "optim.weight_decay=0.01"),
    Foreign("neftune_noise_alpha", "train.neftune=5"),
    Foreign("loraplus_lr_ratio", "adapter.lr_ratio=16", "with adapter=lora"),
)
MEMORY = (
    Foreign(
        "bf16 dtype torch_dtype mixed_precision amp",
        "precision=bf16",
        "precision=auto is bf16 where the device multiplies it; precision=fp32 is the other",
    ),
    Foreign("fp16 tf32", "precision=bf16", "there is no fp16"),
    Foreign(
        "gradient_checkpointing activation_checkpointing use_gradient_checkpointing",
        "model.remat=true",
    ),
    Foreign(
        "flash_attention flash_attn attn_implementation use_flash_attention_2 sdp_attention"
        " xformers_attention",
        "model.attention=blocked",
    ),
    Foreign(
        "use_liger_kernel liger_kernel enable_liger_kernel",
        "loss.chunk=auto",
        "logits are made in chunks without it",
    ),
    Foreign(
        "deepspeed zero_stage fsdp_config",
        "mesh.fsdp=auto",
        "weights, gradients and optimizer state over all devices",
    ),
    Foreign("tensor_parallel_size tensor_parallel tp_size", "mesh.tensor=2"),
    Foreign(
        "context_parallel_size context_parallel_degree sequence_parallel_degree cp_size",
        "mesh.context=2",
        "the tokens of a row over devices",
    ),
    Foreign(
        "num_gpus n_gpu devices nproc_per_node gpus",
        "mesh.data=auto",
        "all devices of the machine are used; CUDA_VISIBLE_DEVICES chooses",
    ),
    Foreign(
        "load_in_4bit load_in_8bit quantization_bit bits qlora",
        "",
        "there is no base in 8 or 4 bits; adapter=lora keeps it in 16 or 32",
    ),
    Foreign(
        "torch_compile compile",
        "",
        "every step is compiled; compilation_cache= says where programs are kept",
    ),
)
DATA = (
    Foreign(
        "dataset dataset_name datasets train_file train_data data_path dataset_path training_data",
        "data.train=train.jsonl",
    ),
    Foreign(
        "eval_dataset validation_file val_file eval_file validation_data eval_data",
        "data.validation=held.jsonl",
    ),
    Foreign("test_file test_data test_datasets", "data.test=test.jsonl"),
    Foreign(
        "val_set_size val_size test_size validation_split",
        "data.fractions=[0.9,0.05,0.05]",
        "of the one file data.path=",
    ),
    Foreign("dataset_text_field text_column text_field", "data.columns.text=body"),
    Foreign("label_column label_column_name", "data.columns.label=class"),
    Foreign(
        "max_seq_length max_seq_len sequence_len seq_len cutoff_len model_max_length block_size",
        "data.max_length=1024",
        "a longer row is an error; data.too_long= cuts or drops it",
    ),
    Foreign(
        "sample_packing neat_packing",
        "data.packing=true",
        "the default; texts of one row do not see each other",
    ),
    Foreign(
        "group_by_length dataloader_num_workers preprocessing_num_workers dataset_num_proc",
        "",
        "rows are packed once and kept in a cache",
    ),
    Foreign("max_samples max_train_samples", "data.limit=1000"),
    Foreign(
        "streaming",
        "",
        "all rows are read and checked before training; a file of one's own cutting bounds them",
    ),
    Foreign(
        "chat_template template_name",
        "task.template=chatml",
        "of task=chat: auto is the tokenizer's own; or a name, or a file",
    ),
    Foreign(
        "mask_history train_on_last_turn roles_to_train",
        "task.train_turns=last",
        "of task=chat; all is the other",
    ),
    Foreign(
        "train_on_inputs train_on_prompt completion_only_loss assistant_only_loss"
        " train_on_responses_only",
        "",
        "only what the assistant says is trained",
    ),
)
MODEL = (
    Foreign(
        "model_name model_name_or_path base_model pretrained_model_name_or_path",
        "model.pretrained=FOLDER",
    ),
    Foreign("lora_r lora_rank r", "adapter.rank=16", "with adapter=lora"),
    Foreign("lora_alpha", "adapter.alpha=32", "with adapter=lora"),
    Foreign("lora_dropout", "adapter.dropout=0.05", "with adapter=lora"),
    Foreign(
        "lora_target_modules lora_target target_modules",
        "adapter.target=['.*/attention/(q|v)']",
        "with adapter=lora",
    ),
    Foreign(
        "modules_to_save lora_modules_to_save additional_target",
        "adapter.train=['head/.*']",
        "with adapter=lora",
    ),
    Foreign(
        "use_peft finetuning_type use_lora lora",
        "adapter=lora",
        "dora, ia3, prefix, prompt, bitfit too",
    ),
    Foreign("use_dora peft_use_dora", "adapter=dora"),
    Foreign("use_rslora peft_use_rslora", "adapter.scaling=sqrt", "with adapter=lora"),
    Foreign(
        "lora_model_dir adapter_name_or_path", "adapter.start_from=FOLDER", "with adapter=lora"
    ),
    Foreign(
        "unfrozen_parameters freeze_layers freeze_trainable_layers", "train.freeze=['embed/.*']"
    ),
    Foreign(
        "tokenizer_name tokenizer_config tokenizer_name_or_path",
        "tokenizer.path=FOLDER",
        "with tokenizer=pretrained; a pretrained model brings its own",
    ),
    Foreign(
        "special_tokens additional_special_tokens add_tokens new_special_tokens",
        "tokenizer.added=['<tool>']",
    ),
    Foreign("trust_remote_code", "", "code from a model's folder is never run"),
)
OUTPUT = (
    Foreign("output_dir out_dir save_dir output_path log_dir logging_dir", "run_dir=runs/mine"),
    Foreign(
        "overwrite_output_dir", "", "a run directory is never overwritten: choose another run_dir="
    ),
    Foreign(
        "resume_from_checkpoint resume auto_resume_from_checkpoints",
        "run_dir=runs/mine",
        "the same command again goes on where the run stopped",
    ),
    Foreign("logging_steps log_interval log_steps", "train.log_every=10steps"),
    Foreign(
        "eval_steps eval_strategy evaluation_strategy evals_per_epoch eval_interval",
        "evaluation.every=100steps",
    ),
    Foreign("save_steps save_strategy saves_per_epoch save_interval", "checkpoint.every=100steps"),
    Foreign("save_total_limit", "", "the newest checkpoints and the best one are kept"),
    Foreign(
        "load_best_model_at_end", "", "the best weights of the validation split are the result"
    ),
    Foreign("metric_for_best_model", "evaluation.metric=validation/loss"),
    Foreign(
        "report_to logger wandb use_wandb tracker", "trackers.use=[wandb]", "mlflow and trackio too"
    ),
    Foreign("wandb_project project_name", "trackers.project=mine"),
    Foreign("run_name wandb_name wandb_run_id experiment_name", "trackers.name=mine"),
    Foreign(
        "push_to_hub hub_model_id",
        "",
        "jaxsft export writes a folder with a model card, which you upload",
    ),
    Foreign("random_seed", "seed=1"),
    Foreign("data_seed", "seeds.data=1"),
    Foreign(
        "use_cpu no_cuda device",
        "",
        "the variable JAX_PLATFORMS=cpu chooses; jaxsft env lists what is there",
    ),
    Foreign("predict_with_generate do_predict", "evaluation.generate=always"),
    Foreign("do_sample", "generate.temperature=0.7"),
    Foreign("generation_max_length", "generate.max_new_tokens=128"),
    Foreign("generation_num_beams", "generate.num_beams=4"),
    Foreign(
        "rl dpo kto orpo grpo rl_beta pref_beta reward_model ref_model",
        "",
        "jaxsft is for supervised fine-tuning: there is no training on preferences",
    ),
)
DECLARED = tuple(  # what the option itself says
    Foreign(declaration.accepts.elsewhere[0], f"{key}={declaration.accepts.elsewhere[1]}")
    for key, declaration in option.names(schema.Config)
    if declaration.accepts.elsewhere
)
TABLE = {
    "Length and batches": LENGTH,
    "Rates and regularisation": (*RATES, *DECLARED),
    "Precision, memory, devices": MEMORY,
    "Data": DATA,
    "Model and adapters": MODEL,
    "Output and evaluation": OUTPUT,
}


@functools.cache
def _by_name() -> dict[str, Foreign]:
    return {
        name: entry
        for entries in TABLE.values()
        for entry in entries
        for name in entry.names.split()
    }


def hint(key: str) -> str:
    """Returns what to say of an option by a name of another trainer; "" where nobody calls it so.

    Only the last part of the name counts: `train.epochs`, `lora_r`.

    >>> hint("train.epochs")
    'did you mean train.duration=3epochs?'
    """
    entry = _by_name().get(key.rsplit(".", 1)[-1].lower())
    if entry is None:
        return ""
    if not entry.ours:
        return entry.note
    return f"did you mean {entry.ours}?" + (f" ({entry.note})" if entry.note else "")
