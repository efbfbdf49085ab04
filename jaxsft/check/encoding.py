"""Encodes texts and checks their lengths, trained tokens and stop tokens.

It also shows rows token by token.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsft import tasks
from jaxsft.check.findings import Findings, percent, rows
from jaxsft.check.load import CheckedSplit
from jaxsft.config.schema import Config
from jaxsft.data import encode, long_texts
from jaxsft.data.chosen_tokenizer import make_tokenizer
from jaxsft.data.encode import Encoded
from jaxsft.data.file_records import Records
from jaxsft.data.ledger import Ledger, length_summary
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError, DataError
from jaxsft.training.components import fitted

OPTION = re.compile(
    r"\b(?:data|task|tokenizer|model|evaluation|adapter|loss)\.[a-z_.]+(?:=(?:\[[^\]]*\]|<[^>]*>|[^\s,;]+))?"
)
# What the sentences of `templates.py` are about, by a part of them.
ABOUT = {
    "is no prefix of": "prefix",
    "the generation prompt of message": "prefix",
    "is not a stop token": "stop_token",
    "more than one BOS": "bos",
    "{% generation %}": "generation_marks",
    "no token before the trained ones": "generation_marks",
    "looks like a special token": "template_markers",
    "does not write": "unwritten",
    "is not in the vocabulary of": "unseen_label",
    "in which the training split is written": "scheme_broken",
    "gives no token, and the tokenizer": "no_token",
}


def encode_parts(
    config: Config, parts: Mapping[str, CheckedSplit], findings: Findings
) -> tuple[dict[str, Any], list[dict[str, Any]], tuple[str, ...]]:
    """Encodes every row as training would.

    Returns: the numbers of each split, the rows that are shown token by token, and the tokenizer's
    special tokens.
    """
    source = parts.get("train") or next(iter(parts.values()))
    try:
        kind = tasks.get(config.task.name)
        tokenizer = make_tokenizer(config.tokenizer, kind, source.records)
        task = _task(config, kind, tokenizer, source, parts)
    except (ConfigError, DataError) as error:
        findings.add(
            _about(error) or "tokens",
            "error",
            f"The rows cannot be made into tokens: {error}.",
            repair=_named_options(error),
        )
        return {}, [], ()
    numbers, samples, least = {}, [], (1, 1)
    for name, part in parts.items():
        encoded = _encoded(task, part, findings)
        limits = long_texts.limits(encoded, config.model.context, config.data, least)
        least = (limits.row, limits.source)
        numbers[name] = _fitted(config, part, encoded, limits, findings)
        _audit(config, task, part, encoded, findings)
        samples += [
            _sample(task, part, encoded, i)
            for i in _evenly(encoded, config.check.samples if name == source.name else 0)
        ]
    return numbers, samples, tokenizer.special_strings


def _task(
    config: Config,
    kind: Any,
    tokenizer: Tokenizer,
    source: CheckedSplit,
    parts: Mapping[str, CheckedSplit],
) -> Any:
    """Builds the task, fitted to the training rows.

    For chats, rows that the template refuses are left out; they are reported one by one.
    """
    records, where = source.records, source.where
    if config.task.spec.conversations:
        records, where = [], []
        from jaxsft.tasks.chat_template import template_of

        options = {
            "require_stop": config.data.require_stop,
            "allow_unwritten": config.task.allow_unwritten,
            "variables": config.task.variables,
        }
        template = template_of(config.task.template, tokenizer, **options)
        for record, place in zip(source.records, source.where, strict=True):
            try:
                template.render(record, place)
            except DataError:
                continue
            # one that goes is enough: the longest answer is of no interest here
            records, where = [record], [place]
            break
        else:
            template.render(source.records[0], source.where[0])
    splits = {name: Records(part.records, part.where) for name, part in parts.items()} | {
        "train": Records(records, where)
    }
    return kind(config, tokenizer, fitted(config, kind, tokenizer, splits))


def _named_options(error: Exception) -> str:
    """Returns the options that an error message names, as the repair of that error."""
    told = str(error).partition(": ")[2]
    return ", ".join(
        dict.fromkeys(
            found.rstrip(".,;:") for found in OPTION.findall(told.partition("; ")[2] or told)
        )
    )


def _about(error: Exception) -> str | None:
    return next((id for part, id in ABOUT.items() if part in str(error)), None)


def _encoded(task: Any, part: CheckedSplit, findings: Findings) -> list[Encoded | str]:
    """Encodes every row, one by one where any fails; adds a finding for each kind of failure."""
    try:
        return task.encode_all(part.records, part.where)
    except DataError:
        pass
    out: list[Encoded | str] = []
    failed: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for record, place in zip(part.records, part.where, strict=True):
        try:
            out += task.encode_all([record], [place])
        except DataError as error:
            id = _about(error) or "template"
            failed[id].append((place, str(error)))
            out.append(id)
    for id, those in failed.items():
        if id == "unseen_label":  # told with the labels
            continue
        message = (
            f"{rows(len(those), part.name)}: no tokens can be made of it; the first:"
            f" {those[0][1].removeprefix(those[0][0] + ': ')}."
        )
        findings.add(
            id,
            "error",
            message,
            [place for place, _ in those],
            split=part.name,
            repair="task.template, or mend the rows",
        )
    return out


def _fitted(
    config: Config,
    part: CheckedSplit,
    encoded: Sequence[Encoded | str],
    limits: long_texts.Limits,
    findings: Findings,
) -> dict[str, Any]:
    """Compares lengths with the limits and returns the ledger that training would write."""
    d, limit, source_limit = config.data, limits.row, limits.source
    lengths = np.array(
        [one.positions for e in encoded if isinstance(e, Encoded) for one in e.texts], np.int64
    )
    over = [
        i
        for i, e in enumerate(encoded)
        if isinstance(e, Encoded) and long_texts.too_long_for(e, limit, source_limit)
    ]
    if d.too_long == "error":
        limits = dataclasses.replace(limits, too_long="drop")
    try:
        options = {"max_dropped": 1.0, "split": part.name, "aside": part.aside}
        _, ledger, gone = encode.build(encoded, part.where, limits, **options)
    except DataError as error:
        if not all(isinstance(e, str) and e in TOLD for e in encoded):
            lengths_of = (
                "data.max_length, data.max_source_length" if source_limit else "data.max_length"
            )
            repair = f"{lengths_of}, model.context" if over else "mend the rows"
            findings.add(
                "nothing_left",
                "error",
                f"No row of {part.name} is left: {error}.",
                split=part.name,
                repair=repair,
            )
        return {"limit": limit, "lengths": length_summary(lengths)}
    if over:
        _too_long(config, part, encoded, limits, over, findings)
    for reason, (severity, what, repair) in DROPPED.items():
        if count := ledger.rows_dropped[reason]:
            places = [part.where[row] for row, why in gone.items() if why == reason]
            findings.add(
                reason,
                severity,
                f"{rows(count, part.name)}: {what}; dropped.",
                places,
                split=part.name,
                count=count,
                repair=repair,
            )
    _too_many_dropped(config, part, ledger, findings)
    if ledger.several_texts:
        message = (
            f"{rows(ledger.several_texts, part.name)}: the template writes earlier turns otherwise"
            " when later ones follow, so that each such row is several examples;"
            " task.train_turns=last trains the last turn of each alone."
        )
        findings.add("several_texts", "info", message, split=part.name, count=ledger.several_texts)
    ledger.check()
    return {"limit": limit, "lengths": length_summary(lengths), "ledger": ledger.as_dict()}


def _too_long(
    config: Config,
    part: CheckedSplit,
    encoded: Sequence[Encoded | str],
    limits: long_texts.Limits,
    over: list[int],
    findings: Findings,
) -> None:
    """Tells which rows, `over`, are longer than the limits, and what becomes of them."""
    d, limit, source_limit = config.data, limits.row, limits.source
    sources = all(long_texts.longest([encoded[i]]) <= limit for i in over)
    size = lambda i: encoded[i].source_positions if sources else long_texts.longest([encoded[i]])
    over.sort(key=lambda i: -size(i))
    longest, where = size(over[0]), [part.where[i] for i in over]
    cut = sum(
        max(one.positions - limit, 0) + max(one.source_positions - source_limit, 0)
        for i in over
        for one in encoded[i].texts
    )
    room, option = (
        (f"{source_limit:,} tokens of a row of sources", "data.max_source_length")
        if sources
        else (f"{limit:,} tokens of a row", "data.max_length")
    )
    become = {
        "error": "which training refuses",
        "drop": "dropped whole",
        "window": "which are cut into windows",
    }.get(d.too_long, f"of which {cut:,} tokens are cut off")
    message = (
        f"{rows(len(over), part.name, len(encoded))}: longer than the {room} (up to"
        f" {longest:,}), {become}."
    )
    policies = "|".join([one for one in config.task.spec.too_long if one != "error"][:3])
    others = f", or data.too_long={policies}" if d.too_long == "error" else ""
    repair = f"model.context={-(-longest // 32) * 32} and {option}" + others
    severity = {"error": "error", "window": "info"}.get(d.too_long, "warning")
    findings.add("too_long", severity, message, where, split=part.name, repair=repair)


def _too_many_dropped(
    config: Config, part: CheckedSplit, ledger: Ledger, findings: Findings
) -> None:
    """Tells where more rows would be dropped than `data.max_dropped` allows."""
    d = config.data
    # these end a training, and what cannot be encoded does: they are told above
    refused = {"too_long"} if d.too_long == "error" else set()
    dropped = sum(
        ledger.rows_dropped[reason] for reason in {"empty", "too_long", *DROPPED} - refused
    ) + sum(not one.declared for one in part.aside)
    if dropped > d.max_dropped * part.read:
        message = (
            f"{dropped:,} of {part.read:,} rows of {part.name} would be dropped, more than"
            f" data.max_dropped={d.max_dropped} allows."
        )
        findings.add(
            "too_many_dropped",
            "error",
            message,
            split=part.name,
            count=dropped,
            repair="data.max_dropped, or mend the rows",
        )


WORDS = 60  # words of a row that are shown with their tags
# findings that name the rows of which no tokens can be made
TOLD = ("unseen_label", *ABOUT.values(), "template")
DROPPED = {
    "text_lost": (
        "warning",
        "the tokenizer keeps nothing of the text",
        "remove them, or take another tokenizer",
    ),
    "answer_lost": (
        "warning",
        "the tokenizer keeps nothing of the answer",
        "remove them, or take another tokenizer",
    ),
    "no_trained_token": (
        "error",
        "no trained token",
        "the weights of their turns, or data.too_long",
    ),
    "stop_token_truncated": (
        "warning",
        "the stop token is cut off",
        "data.too_long=truncate_left, or data.require_stop=false",
    ),
}


def _audit(
    config: Config,
    task: Any,
    part: CheckedSplit,
    encoded: Sequence[Encoded | str],
    findings: Findings,
) -> None:
    """Checks every row's ids: BOS, the last trained token, and how many tokens are trained."""
    known = [
        (where, one)
        for where, e in zip(part.where, encoded, strict=True)
        if isinstance(e, Encoded)
        for one in e.texts
    ]
    bos = task.tokenizer.bos_id
    if bos is not None and (
        twice := [where for where, e in known if np.count_nonzero(e.ids[:2] == bos) > 1]
    ):
        message = f"{rows(len(twice), part.name)}: two BOS tokens at the beginning."
        findings.add("bos", "error", message, twice, split=part.name, repair="task.template")
    if not (trained := [(where, e) for where, e in known if e.weights is not None]):
        return
    _last_trained(config, task, part.name, trained, findings)
    learnt = sum(int(np.count_nonzero(e.weights[1:])) for _, e in trained)
    whole = sum(len(e.ids) for _, e in trained)
    all_or_none = config.task.spec.conversations and learnt in (0, whole)
    message = f"{percent(learnt, whole)} of the {whole:,} tokens of {part.name} are trained."
    severity, repair = ("error", "task.template") if all_or_none else ("info", "")
    findings.add("trained_share", severity, message, split=part.name, repair=repair)


def _last_trained(
    config: Config,
    task: Any,
    split: str,
    trained: Sequence[tuple[str, Encoded]],
    findings: Findings,
) -> None:
    """Checks that what is trained ends with a stop token, and that there is one."""
    stops = set(getattr(task, "stop_ids", ()))
    ends = [
        (where, int(e.ids[at[-1]])) for where, e in trained if len(at := np.flatnonzero(e.weights))
    ]
    if config.task.spec.output == "continuation" and not stops:
        message = (
            "The tokenizer has no EOS token: texts do not end, and generation has nothing to stop"
            " at."
        )
        findings.add("stop_token", "warning", message, repair="tokenizer")
    elif open_ends := [where for where, last in ends if last not in stops]:
        message = (
            f"{rows(len(open_ends), split)}: no stop token at the end of what is trained, so"
            " that the model would not learn to stop."
        )
        repair = "task.template, or check.accept=[stop_token]"
        findings.add("stop_token", "error", message, open_ends, split=split, repair=repair)


# --- rows token by token
# --------------------------------------------------------------------------------------------------
def _evenly(encoded: Sequence[Encoded | str], count: int) -> list[int]:
    there = [i for i, e in enumerate(encoded) if isinstance(e, Encoded)]
    count = min(count, len(there))
    return [there[i * len(there) // count] for i in range(count)]


def _sample(
    task: Any, part: CheckedSplit, encoded: Sequence[Encoded | str], i: int
) -> dict[str, Any]:
    """Returns row i as runs of tokens: trained, masked, or template.

    Template is what the template wrote and the loss ignores.
    """
    e, tokenizer = encoded[i], task.tokenizer
    special = {tokenizer.special_id(name) for name in tokenizer.special_strings}
    ids = np.concatenate([one.ids for one in e.texts])
    weights = (
        np.zeros(len(ids))
        if e.weights is None
        else np.concatenate([one.weights for one in e.texts])
    )
    pieces = []
    written = (
        task.written(part.records[i], part.where[i])
        if hasattr(task, "template")
        else [False] * len(ids)
    )
    for token, weight, ours in zip(ids.tolist(), weights.tolist(), written, strict=True):
        kind = (
            "trained"
            if weight > 0
            else (
                "template"
                if ours or token in special
                else "masked"
                if e.weights is not None
                else "text"
            )
        )
        pieces.append((token, kind, token in special))
    runs: list[dict[str, Any]] = []
    ids = []
    for at, (token, kind, alone) in enumerate(pieces):
        ids.append(token)
        following = pieces[at + 1] if at + 1 < len(pieces) else None
        if following is None or following[1] != kind or alone or following[2]:
            # a space between two runs is shown
            goes_on = at >= len(ids) and not pieces[at - len(ids)][2]
            text = (tokenizer.continued if goes_on else tokenizer.decode)(ids, skip_special=False)
            runs.append({"text": text, "kind": kind, "tokens": len(ids)})
            ids = []
    gold = _gold(part.records[i])
    return {"split": part.name, "where": part.where[i], "tokens": len(pieces), "runs": runs} | (
        {"gold": gold} if gold else {}
    )


def _gold(record: Any) -> str:
    """Returns the gold labels of each word, `word/tag` or `word/head/relation`; "" without any."""
    if hasattr(record, "tags"):
        said = list(zip(record.tokens, record.tags, strict=True))
    elif hasattr(record, "deprels"):
        said = list(zip(record.tokens, record.heads, record.deprels, strict=True))
    else:
        return ""
    label = f"{record.label}: " if getattr(record, "label", "") else ""
    return (
        label
        + " ".join("/".join(map(str, of)) for of in said[:WORDS])
        + (" ..." if len(said) > WORDS else "")
    )


@dataclasses.dataclass(frozen=True)
class Style:
    """The terminal style of a kind of token: a colour, and marks for when there are no colours."""

    colour: str
    left: str
    right: str


STYLES = {
    "trained": Style("32", "[+", "+]"),
    "masked": Style("31", "[-", "-]"),
    "template": Style("90", "", ""),
    "text": Style("0", "", ""),
}


def shown(sample: Mapping[str, Any], colour: bool) -> str:
    """Formats a row for the terminal: trained green, masked red, template grey.

    Without colours trained is [+so+], masked [-so-], and template as it is.
    """
    out = []
    for run in sample["runs"]:
        style = STYLES[run["kind"]]
        text = visible(run["text"])
        out.append(
            f"\x1b[{style.colour}m{text}\x1b[0m" if colour else f"{style.left}{text}{style.right}"
        )
    return "".join(out)


def visible(text: str) -> str:
    """Returns the text with control characters escaped; a line break is shown and kept."""
    return "".join("\\n\n" if c == "\n" else c if c.isprintable() else repr(c)[1:-1] for c in text)
