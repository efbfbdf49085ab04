"""The tasks of lm-evaluation-harness (Gao et al., 2021, doi:10.5281/zenodo.5371628) on a run.

What its library asks of a model are log-probabilities of texts and answers. The log-probabilities
are those of `jaxsft eval`, from its compiled pass; a text that is longer than the context is scored
in windows, each token once, as the library cuts them.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from jaxsft import extras
from jaxsft.config.schema import Columns
from jaxsft.data import encode, flat_examples, long_texts
from jaxsft.data.encode import Encoded
from jaxsft.data.encoded_split import Split
from jaxsft.data.given_rows import prompt_row
from jaxsft.errors import ConfigError, DataError, first_line
from jaxsft.evaluation import bounds

ASKED = "eval.harness"
SAMPLING = ("top_p", "top_k", "min_p")  # they say nothing of an answer that is not drawn
Ids = Sequence[int]


def _library(module: str) -> ModuleType:
    return extras.need(f"lm_eval.{module}", ASKED, extra="harness")


class HarnessModel:
    """A model as the library asks for it: the functions of `lm_eval.api.model.LM`.

    Attributes:
      cut: how many prompts were longer than the context, and lost their beginning.
    """

    def __init__(self, model: Any):
        """Takes a `jaxsft.inference.Model`. Raises ConfigError where it continues no text."""
        super().__init__()
        task = model.task
        if not task.spec.can_generate or task.start_ids:
            raise ConfigError(
                f"{ASKED}: task={task.name} of this model continues no text; expected a decoder of"
                " task=lm, chat or seq2seq"
            )
        self.model, self.task, self.tokenizer, self.cut = model, task, model.tokenizer, 0
        self.longest = model.config.model.context
        self._rendered: dict[str, list[int]] = {}

    # --- texts as ids
    # ----------------------------------------------------------------------------------------------
    @property
    def begin(self) -> list[int]:
        """Returns what stands before a text: bos where the tokenizer has one."""
        return [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]

    @property
    def prefix(self) -> int:
        """Returns what the first token of a text is predicted from: bos, else eos."""
        found = [*self.begin, self.tokenizer.eos_id]
        if found[0] is None:
            raise ConfigError(f"{ASKED}: the tokenizer has neither a bos_token nor an eos_token")
        return found[0]

    @property
    def tokenizer_name(self) -> str:
        return self.tokenizer.digest

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Returns what tells templates apart."""
        return json.dumps(self.task.template.stored) if self.task.spec.conversations else ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Returns a conversation as text, up to where the assistant writes.

        Its ids are kept, so that nothing in a message is ever read as a special token.
        """
        if not add_generation_prompt:
            raise ConfigError(
                f"{ASKED}: a task with gen_prefix begins the answer itself, which the template of"
                " a run does not do"
            )
        row = prompt_row(chat_history, 1, self.task)
        ids = self.task.prompt(self.task.unlabelled(row, Columns()), row.where)
        text = self.tokenizer.decode(ids, skip_special=False)
        self._rendered[text] = list(ids)
        return text

    def ids_of(self, context: str) -> list[int]:
        """Returns the ids of a prompt."""
        if context in self._rendered:
            return self._rendered[context]
        return [*self.begin, *self.tokenizer.encode(context)] or [self.prefix]

    def pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Returns the ids of a prompt and those of what follows, which are cut as those of one
        text; spaces between them belong to what follows.
        """
        if context in self._rendered:
            return self._rendered[context], self.tokenizer.encode(continuation)
        bare = context.rstrip()
        count = len(self.tokenizer.encode(bare))
        whole = self.tokenizer.encode(context + continuation)
        return self.ids_of(bare), whole[count:]

    def fitted(self, before: Ids, room: int) -> Ids:
        """Returns the end of a prompt that has room in the context, and counts what is cut."""
        self.cut += len(before) > room
        return before[-room:]

    # --- what the library asks
    # ----------------------------------------------------------------------------------------------
    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Returns log p of each continuation, and whether greedy decoding would write it."""
        pairs = []
        for context, continuation in (request.args for request in requests):
            before, ids = self.pair(context, continuation)
            if len(ids) > self.longest:
                raise DataError(
                    f"{ASKED}: a continuation has {len(ids)} tokens, more than"
                    f" model.context={self.longest}: {continuation[:60]!r}"
                )
            pairs.append((self.fitted(before, self.longest + 1 - len(ids)), ids))
        return self.scores(pairs)

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Returns log p of each text; one that is longer than the context is scored in windows."""
        windows = [list(self.windows(request.args[0])) for request in requests]
        scores = iter(self.scores(list(itertools.chain(*windows))))
        return [sum(next(scores)[0] for _ in parts) for parts in windows]

    def windows(self, text: str) -> Iterator[tuple[Ids, Ids]]:
        """Returns pairs (what stands before, what is scored): each token of a text once."""
        utils, ids = _library("utils"), self.tokenizer.encode(text)
        for pair in utils.get_rolling_token_windows(ids, self.prefix, self.longest, 1):
            yield utils.make_disjoint_window(pair)

    def scores(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[tuple[float, bool]]:
        """Returns log p of the second ids of each pair behind the first ones, and whether each of
        them is the most probable token.
        """
        out = [(0.0, True)] * len(pairs)
        # texts of about one length share rows, and programs
        sizes = [(len(a) + len(b)).bit_length() if len(b) else 0 for a, b in pairs]
        for size in sorted(set(sizes) - {0}):
            rows = [i for i, own in enumerate(sizes) if own == size]
            columns = self.model.columns(self._split([pairs[i] for i in rows]))
            hits = columns["correct"] == columns["count"]
            for i, nll, hit in zip(rows, columns["nll"], hits, strict=True):
                out[i] = (-float(nll), bool(hit))
        return out

    def _split(self, pairs: Sequence[tuple[Ids, Ids]]) -> Split:
        made = [
            Encoded(
                np.array([*a, *b], np.int32),
                np.repeat(np.array([0, 1], np.float32), [len(a), len(b)]),
            )
            for a, b in pairs
        ]
        where = [f"{ASKED}:{i}" for i in range(1, len(made) + 1)]
        data = dataclasses.replace(self.model.config.data, max_length="auto", too_long="error")
        limits = long_texts.limits(made, self.longest, data)
        built, ledger, _ = encode.build(made, where, limits, max_dropped=0, split=ASKED)
        arrays = flat_examples.flat(built)
        return Split(ASKED, arrays, where, where, {}, ledger.as_dict(), limits.row)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Returns the answer to each prompt, up to the first of its stop strings."""
        out = [""] * len(requests)
        asked = [json.dumps(request.args[1], sort_keys=True) for request in requests]
        for options in sorted(set(asked)):
            rows = [i for i, own in enumerate(asked) if own == options]
            given = self._options(json.loads(options))
            room = self.longest - given["max_new_tokens"]
            if room < 1:
                raise ConfigError(
                    f"{ASKED}: a task asks for {given['max_new_tokens']} tokens, which"
                    f" model.context={self.longest} has no room for"
                )
            prompts = [self.fitted(self.ids_of(requests[i].args[0]), room) for i in rows]
            for i, answer in zip(rows, self.model.answers_to(prompts, **given), strict=True):
                out[i] = answer
        return out

    def _options(self, given: dict[str, Any]) -> dict[str, Any]:
        """Returns options of `generate` for those of a task of the library."""
        normalized = _library("models.utils").normalize_gen_kwargs
        limit = self.model.answer_limit
        options = normalized(given, default_max_gen_toks=min(limit, self.longest // 2))
        drawn = options.pop("do_sample")
        options = {name: x for name, x in options.items() if drawn or name not in SAMPLING}
        names = {"max_gen_toks": "max_new_tokens", "until": "stop"}
        return {names.get(name, name): x for name, x in options.items()}


def as_library_model(model: Any) -> Any:
    """Returns a `jaxsft.inference.Model` as an `lm_eval.api.model.LM`."""
    base = _library("api.model").LM
    return type("JaxsftModel", (HarnessModel, base), {})(model)


def scored(
    model: Any,
    tasks: Sequence[str],
    *,
    folder: str | None = None,
    fewshot: int | None = None,
    limit: int | None = None,
) -> tuple[dict[str, Any], dict[str, dict[str, Any]], dict[str, Any]]:
    """Returns the numbers of tasks of the library, by TASK/NUMBER, their bounds, and what the
    library returns. A chat is asked through its template.

    Args:
      folder: of further tasks, in YAML.
      fewshot: examples in a prompt; None: as the task says.
      limit: rows of a task that are read; None: all.

    Raises ConfigError for a task that is not known, or whose data cannot be read.
    """
    manager = _library("tasks").TaskManager(include_path=folder)
    for name in tasks:
        if not manager.match_tasks([name]):
            raise ConfigError(
                f"{ASKED}=[{name}]: the library has no such task; eval.harness_path=FOLDER has"
                " tasks of your own"
            )
    lm = as_library_model(model)
    try:
        found = _library("evaluator").simple_evaluate(
            lm,
            tasks=list(tasks),
            num_fewshot=fewshot,
            limit=limit,
            task_manager=manager,
            apply_chat_template=model.task.spec.conversations,
            log_samples=False,
            bootstrap_iters=model.config.evaluation.replicates,
        )
    except OSError as error:
        raise ConfigError(f"{ASKED}: the data cannot be read ({first_line(error)})") from error
    rows = {name: n["effective"] for name, n in found["n-samples"].items()}
    level, numbers, intervals = model.config.evaluation.level, {}, {}
    for task, values in found["results"].items():
        for key, value in values.items():
            name, _, kept = key.partition(",")
            if not kept or name.endswith("_stderr"):
                continue
            number = f"{task}/{name}" + ("" if kept == "none" else f",{kept}")
            numbers[number] = value
            error = values.get(f"{name}_stderr,{kept}")
            intervals[number] = _interval(value, error, rows.get(task), level)
    return numbers, intervals, {**found, "cut_prompts": lm.cut}


def _interval(value: Any, error: Any, rows: int | None, level: float) -> dict[str, Any]:
    """Returns a number with bounds from the standard error that the library gives."""
    entry = {"value": value, "low": None, "high": None, "n": rows, "clusters": None, "level": level}
    if not isinstance(error, float):
        return entry | {"method": "none", "reason": "the library gives no standard error"}
    half = bounds.z_of(level) * error
    return entry | {"low": value - half, "high": value + half, "se": error, "method": "normal"}


def write(folder: Path, found: dict[str, Any]) -> None:
    """Writes what the library returned, as it writes it."""
    text = json.dumps(found, indent=1, default=_library("utils").handle_non_serializable)
    (folder / "harness.json").write_text(text + "\n", encoding="utf-8")
