"""The special tokens around one text or two, as the model was pretrained with.

They are read from the post processor of a tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxsft.errors import ConfigError

A, B = -1, -2  # where the texts stand in a frame


class Wrapped(NamedTuple):
    """A text with its special tokens.

    Attributes:
      ids: with the special tokens.
      types: of each id, 0 or 1: BERT's token types.
      head, tail: how many ids at the beginning and at the end are special; what is cut is cut
        between them.
    """

    ids: list[int]
    types: list[int]
    head: int
    tail: int


class Frames(NamedTuple):
    """The frames of one text and of two: (id or A or B, type) in their order."""

    single: tuple[tuple[int, int], ...]
    pair: tuple[tuple[int, int], ...]

    def wrap(self, ids: Sequence[int], pair_ids: Sequence[int] | None) -> Wrapped:
        frame = self.single if pair_ids is None else self.pair
        out: list[int] = []
        types: list[int] = []
        for part, kind in frame:
            piece = ids if part == A else (pair_ids or ()) if part == B else (part,)
            out += piece
            types += [kind] * len(piece)
        texts = [i for i, (part, _) in enumerate(frame) if part in (A, B)]
        return Wrapped(out, types, texts[0], len(frame) - 1 - texts[-1])


def frames(document: dict[str, Any], bos: int | None, eos: int | None) -> Frames:
    """Returns the frames of a tokenizer.json.

    Where its own do not close a text (or there are none), a text is framed as the documents of
    pretraining are: `bos a eos`, and two texts `bos a eos b eos`; what its own put before a text
    stands for bos.

    Raises:
      ConfigError: the post processor is of a kind that is not known, or what it names is not in the
        vocabulary.
    """
    found = own_frames(document)
    if found is None or found.single[-1][0] == A or found.pair[-1][0] == B:
        begin, end = ([] if token is None else [(token, 0)] for token in (bos, eos))
        if found is not None and found.single[0][0] != A:
            begin = found.single[: [part for part, _ in found.single].index(A)]
        found = Frames((*begin, (A, 0), *end), (*begin, (A, 0), *end, (B, 0), *end))
    if (
        bos is not None
        and bos != eos
        and any(sum(part == bos for part, _ in frame) > 1 for frame in found)
    ):
        raise ConfigError(
            "the post processor of the tokenizer writes the first token of a text twice; correct"
            " its tokenizer.json"
        )
    return found


def processor(frame: Frames, token_of: Callable[[int], str]) -> dict[str, Any]:
    """Builds the post processor of a tokenizer.json that writes these frames."""
    tokens = {part: token_of(part) for half in frame for part, _ in half if part not in (A, B)}

    def half(parts: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
        sequence = lambda part, kind: {
            "Sequence": {"id": "A" if part == A else "B", "type_id": kind}
        }
        special = lambda part, kind: {"SpecialToken": {"id": tokens[part], "type_id": kind}}
        return [sequence(*one) if one[0] in (A, B) else special(*one) for one in parts]

    special = {
        token: {"id": token, "ids": [part], "tokens": [token]} for part, token in tokens.items()
    }
    return {
        "type": "TemplateProcessing",
        "single": half(frame.single),
        "pair": half(frame.pair),
        "special_tokens": special,
    }


def own_frames(document: dict[str, Any]) -> Frames | None:
    """Returns the frames of the post processor; None where it adds no tokens.

    Raises ConfigError as `frames`.
    """
    steps = _steps(document.get("post_processor"))
    if len(steps) > 1:
        raise ConfigError(
            f"the post processor of the tokenizer has {len(steps)} steps that add tokens,"
            " expected one"
        )
    if not steps:
        return None
    (step,) = steps
    try:
        if step["type"] == "TemplateProcessing":
            found = Frames(
                *(
                    tuple(_part(part, step["special_tokens"]) for part in step[name])
                    for name in ("single", "pair")
                )
            )
            texts = [[part for part, _ in frame if part in (A, B)] for frame in found]
            if texts != [[A], [A, B]]:
                raise ValueError("a text is missing, or there twice")
            return found
        if step["type"] in ("BertProcessing", "RobertaProcessing"):
            begin, end, bert = step["cls"][1], step["sep"][1], step["type"] == "BertProcessing"
            between = ((end, 0),) if bert else ((end, 0), (end, 0))
            return Frames(
                ((begin, 0), (A, 0), (end, 0)),
                ((begin, 0), (A, 0), *between, (B, int(bert)), (end, int(bert))),
            )
    except (KeyError, IndexError, TypeError, ValueError):
        raise ConfigError(
            f"the post processor of the tokenizer is not as expected: {step!s:.200}"
        ) from None
    raise ConfigError(
        f"the post processor of the tokenizer is a {step.get('type')!s:.40}, expected"
        " TemplateProcessing, BertProcessing or RobertaProcessing"
    )


def _steps(processor: Any) -> list[dict[str, Any]]:
    """Returns the steps of a post processor that add tokens."""
    if not processor or processor.get("type") == "ByteLevel":
        return []
    if processor.get("type") == "Sequence":
        return [step for inner in processor.get("processors") or [] for step in _steps(inner)]
    return [processor]


def _part(part: dict[str, Any], special: dict[str, Any]) -> tuple[int, int]:
    ((kind, said),) = part.items()
    if kind == "Sequence":
        return {"A": A, "B": B}[said["id"]], int(said["type_id"])
    (token,) = special[said["id"]]["ids"]
    return int(token), int(said["type_id"])
