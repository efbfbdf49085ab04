"""A folder in the layout of Hugging Face, opened as a run that was never trained: with a chat template it answers, else it continues a text."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxsft import rundir
from jaxsft.config.schema import ChatTask, Config, LMTask, MeshConfig, ModelConfig, PretrainedTokenizer, Seeds
from jaxsft.data.templates import Template
from jaxsft.data.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.training import runs, setup

LONGEST = 120  # tokens of an answer, where no training says it


def open_folder(folder: Path, change: Callable[[Config], Config]) -> runs.Run:
    """Parts and weights.

    Args:
      change: what a command's overrides make of the config.

    Raises:
      ConfigError: a model of another kind, or a tokenizer or template that cannot be read.
      CheckpointError: the weights are not those of its config.json.
    """
    tokenizer = setup.tokenizer_at(str(folder))
    task = LMTask() if tokenizer.chat_template is None else ChatTask()
    weights, texts = ModelConfig(pretrained=str(folder)), PretrainedTokenizer(path=str(folder))
    config = Config(task=task, model=weights, tokenizer=texts, mesh=MeshConfig(data=1))
    config = setup.like_pretrained(config)
    if not config.model.causal or config.model.decoder_layers:
        kind = "is an encoder-decoder model" if config.model.decoder_layers else "reads texts in both directions"
        raise ConfigError(f"{folder}: {kind}, which answers nothing before it is trained here; start from it by model.pretrained=")
    config = change(config)
    config = dataclasses.replace(config, seeds=Seeds(init=config.seed, data=config.seed, dropout=config.seed))
    parts = setup.make_parts(config, tokenizer, state(folder, tokenizer))
    return runs.Run(folder, parts, runs.starting_params(parts), {}, 0)


def state(folder: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """What a task would have learnt in training: the template, and every token that ends an answer."""
    stop = [*_declared(folder / "generation_config.json"), *([] if tokenizer.eos_id is None else [tokenizer.eos_id])]
    if tokenizer.chat_template is None:
        return {"stop_ids": sorted(set(stop))}
    template = Template.of(tokenizer, require_stop=False)
    kept = {"name": template.name, "source": template.source, "variables": template.variables, "sha256": template.digest}
    return {"template": kept, "stop_ids": sorted({*stop, *template.stop_ids}), "longest_answer": LONGEST}


def _declared(file: Path) -> Sequence[int]:
    """The stop tokens of generation_config.json."""
    found = rundir.read_json(file).get("eos_token_id") if file.is_file() else None
    return [] if found is None else found if isinstance(found, list) else [found]
