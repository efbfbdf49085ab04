"""Every family computes what transformers computes, from golden files that transformers wrote."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxsft.models.attention import TokenInfo
from tests.conftest import short
from tests.hf.families import hf

TOLERANCE = 1e-5


def outputs(model, params, kind, ids, where):
    """Logits, or hidden states where there is no head: `[B, S, ...]`."""

    def forward(params, ids, where):
        hidden = model.hidden(params, ids, where)
        if kind == "mlm":
            hidden = model.head.apply({"params": params["head"]}, hidden, method="transform")
        return hidden if kind is None else model.logits(params, hidden)

    return np.asarray(jax.jit(forward)(params, ids, where))


def rows(arrays: dict) -> tuple[np.ndarray, TokenInfo]:
    """Ids and places of three rows: both texts packed into one, then each with padding."""
    lengths = arrays["lengths"].astype(int)
    width = lengths.sum()

    def laid(values):
        one, two = (value[:n] for value, n in zip(values, lengths, strict=True))
        return np.stack(
            [np.pad(row, (0, width - len(row))) for row in (np.concatenate([one, two]), one, two)]
        ).astype(np.int32)

    places, segments = (
        np.tile(np.arange(width), (2, 1)),
        np.array([[1], [2]]) * np.ones(width, int),
    )
    types = laid(arrays["types"]) if "types" in arrays else None
    return laid(arrays["ids"]), TokenInfo(laid(segments), laid(places), types)


OFTEN = ("bert", "deberta", "gemma3", "gpt2", "llama", "modernbert", "qwen3", "t5_encoder")


@pytest.mark.parametrize("name", short(list(hf.CASES), *OFTEN))
def test_numbers_are_those_of_transformers(name, tmp_path):  # guards G9, B1, B3
    about, arrays = hf.golden(name)
    model, params = hf.load(hf.write(name, tmp_path), hf.kind(about), about["context"])
    packed, *padded = outputs(model, params, hf.kind(about), *rows(arrays))
    first = arrays["lengths"][0]
    for i, found in enumerate((packed[:first], packed[first:])):
        for value in (found, padded[i]):
            wanted, value = arrays[f"out{i}"], value[arrays[f"where{i}"].astype(int)]
            assert np.abs(value - wanted).max() <= TOLERANCE * max(1.0, np.abs(wanted).max())
