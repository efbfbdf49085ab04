"""mBART (arXiv:2001.08210), M2M-100 and NLLB (arXiv:2010.11125, 2207.04672), and PEGASUS.

They are BART with a norm before each part and behind each half; the positions of the last three are
sinusoids, which no file holds. PEGASUS: arXiv:1912.08777.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxsft.hf.families import bart
from jaxsft.hf.families.family import Keys

_FIRST = {"norm_position": "pre"}


def _with(change: Callable[[Keys, dict[str, Any]], dict[str, Any]]) -> tuple[bart.Reader, ...]:
    """Returns readers of both halves and of the encoder alone, of BART with these changes."""

    def changed(reader: bart.Reader) -> bart.Reader:
        def read(keys: Keys) -> dict[str, Any]:
            out = reader(keys)
            more = {**_FIRST, **change(keys, out)}
            return {**out, **more, "head_bias": out["head_bias"] and more.get("head_bias", True)}

        return read

    return changed(bart.read), changed(bart.read_alone)


def _sinusoids(out: dict[str, Any], base: float, offset: int) -> dict[str, Any]:
    return {
        "positions": "sinusoidal",
        "rope_base": base,
        "position_offset": offset,
        "embed_norm": False,
    }


def _m2m(keys: Keys, out: dict[str, Any]) -> dict[str, Any]:
    """Returns the changes of M2M-100: positions begin behind the id of padding.

    Its wave lengths grow by `1e4 ** (1 / (half - 1))` where half of the dimensions are sines.
    """
    half, padding = out["embed"] // 2, keys.get("pad_token_id")
    if half < 2 or out["embed"] % 2:
        keys.refuse("d_model", "expected an even number of at least 4, for sines and cosines")
    if padding is None or padding < 0:
        keys.refuse("pad_token_id", "expected a whole number from 0: positions begin behind it")
    return {**_sinusoids(out, 1e4 ** (half / (half - 1)), padding + 1), "head_bias": False}


_SKIP = (r"((encoder|decoder)\.)?embed_positions\.weights?",)
MBART = bart.family("mbart", "MBart", _with(lambda keys, out: {}))
M2M_100 = bart.family("m2m_100", "M2M100", _with(_m2m), _SKIP, biased=False)
M2M_100 = dataclasses.replace(
    M2M_100,
    write=lambda m: {**bart.write(m), "pad_token_id": m.position_offset - 1},
    encoder=dataclasses.replace(
        M2M_100.encoder,
        write=lambda m: {**bart.write_alone(m), "pad_token_id": m.position_offset - 1},
    ),
)
PEGASUS = bart.family("pegasus", "Pegasus", _with(lambda keys, out: _sinusoids(out, 1e4, 0)), _SKIP)
