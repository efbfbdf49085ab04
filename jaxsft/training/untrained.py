"""A folder in the layout of Hugging Face, opened as a run that was never trained: with a chat template it answers, an encoder-decoder model writes
what becomes of a text, and others continue it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxsft import rundir
from jaxsft.config.schema import ChatTask, Config, LMTask, MeshConfig, ModelConfig, PretrainedTokenizer, Seeds, Seq2SeqTask
from jaxsft.data.templates import Template
from jaxsft.data.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.models import pretrained
from jaxsft.tasks.seq2seq import Seq2SeqTask as Seq2Seq
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
    source = pretrained.open_source(folder)
    task = LMTask() if tokenizer.chat_template is None else ChatTask()
    if two := bool(source.model().decoder_layers):
        task = Seq2SeqTask(scores=["exact_match"])
    weights, texts = ModelConfig(pretrained=str(folder)), PretrainedTokenizer(path=str(folder))
    config = Config(task=task, model=weights, tokenizer=texts, mesh=MeshConfig(data=1))
    config = setup.like_pretrained(config)
    if not config.model.causal and not two:
        raise ConfigError(f"{folder}: reads texts in both directions and writes nothing; start from it by model.pretrained=")
    config = change(config)
    config = dataclasses.replace(config, seeds=Seeds(init=config.seed, data=config.seed, dropout=config.seed))
    parts = setup.make_parts(config, tokenizer, state_of_pairs(config, folder, tokenizer) if two else state(folder, tokenizer))
    return runs.Run(folder, parts, runs.starting_params(parts), {}, 0)


def state(folder: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """What a task would have learnt in training: the template, and every token that ends an answer."""
    stop = [*_declared(folder / "generation_config.json"), *([] if tokenizer.eos_id is None else [tokenizer.eos_id])]
    if tokenizer.chat_template is None:
        return {"stop_ids": sorted(set(stop))}
    template = Template.of(tokenizer, require_stop=False)
    kept = {"name": template.name, "source": template.source, "variables": template.variables, "sha256": template.digest}
    return {"template": kept, "stop_ids": sorted({*stop, *template.stop_ids}), "longest_answer": LONGEST}


def state_of_pairs(config: Config, folder: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """As `state`, of an encoder-decoder model: it reads a text as it is. Raises ConfigError where nothing says what its decoder starts from."""
    found = Seq2Seq.fit(config, tokenizer, [], [])
    return found | {"stop_ids": sorted({*found["stop_ids"], *_declared(folder / "generation_config.json")}), "longest_answer": LONGEST}


def _declared(file: Path) -> Sequence[int]:
    """The stop tokens of generation_config.json."""
    found = rundir.read_json(file).get("eos_token_id") if file.is_file() else None
    return [] if found is None else found if isinstance(found, list) else [found]
