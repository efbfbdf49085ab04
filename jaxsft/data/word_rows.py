"""The words of packed rows, where something is said of each word: of tags, trees and entities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jaxsft.data.packing import PackingPlan


def most_words(arrays: Mapping[str, np.ndarray], plan: PackingPlan) -> int:
    """Returns the most words of a packed row; 0 where the split has no words."""
    if "word_offsets" not in arrays:
        return 0
    counts = np.concatenate([[0], np.cumsum(np.diff(arrays["word_offsets"])[plan.members])])
    return int(np.diff(counts[plan.offsets]).max(initial=1))


def word_ids(
    arrays: Mapping[str, np.ndarray], members: Sequence[np.ndarray], width: int
) -> np.ndarray:
    """Returns the word ids of rows with these examples, `[rows, width]`, -1 for none."""
    out = np.full((len(members), width), -1, np.int64)
    for i, examples in enumerate(members if width else ()):
        found = [np.arange(*arrays["word_offsets"][example : example + 2]) for example in examples]
        ids = np.concatenate([*found, np.zeros(0, np.int64)])
        out[i, : len(ids)] = ids
    return out


def word_batch(
    arrays: Mapping[str, np.ndarray],
    members: Sequence[np.ndarray],
    width: int,
    prompt_length: int,
) -> dict[str, np.ndarray]:
    """Returns the words of rows with these examples, `[rows, width]` arrays by name.

    `segment` is that of the word, 0 where there is none; `start` and `stop` its positions in the
    row; `index` its number in its text, `last` whether no other follows there, `own` whether this
    window of the text answers for it; `weight` that of its loss; `head` another word of the row,
    from 1 (0: none). `prompt_length` positions stand before each text.
    """
    named = {
        name.removeprefix("word."): values
        for name, values in arrays.items()
        if name.startswith("word.")
    }
    shape = (len(members), width)
    out = {name: np.zeros(shape, values.dtype) for name, values in named.items()}
    out["segment"] = np.zeros(shape, np.int32)
    for i, examples in enumerate(members):
        word = position = 0
        for j, example in enumerate(examples):
            position += prompt_length
            first, last = arrays["word_offsets"][example : example + 2]
            place = slice(word, word + int(last - first))
            out["segment"][i, place] = j + 1
            for name, values in named.items():
                found = values[first:last]
                if name in ("start", "stop"):
                    found = found + position
                elif name == "head":
                    found = np.where(found > 0, found + word, 0)
                out[name][i, place] = found
            word = place.stop
            position += int(arrays["offsets"][example + 1] - arrays["offsets"][example])
    return out
