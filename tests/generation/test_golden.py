"""What transformers generates with a real model, token by token: greedy, with a repetition penalty,
stop tokens, beams, and stop strings in beams.
"""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxsft
from jaxsft.config.schema import GenerateConfig
from jaxsft.generation.decoding import generate
from tests.realdata import real

GOLDEN = json.loads(
    (Path(__file__).parent / "golden" / "generate.json").read_text(encoding="utf-8")
)
TOLD = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
    " One day, she saw a big, red ball."
)


@functools.cache
def model():
    return jaxsft.load(real("stories260K_hf"), "precision=fp32")


def name(case):
    return ",".join(
        [
            *(f"{k}={v}" for k, v in case["options"].items()),
            *(["stop"] if case["stop"] != [511] else []),
        ]
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", GOLDEN["cases"], ids=name)
def test_the_tokens_are_those_of_transformers(case):  # guards E12
    """All prompts in one ragged batch here, each by itself there; both in float64."""
    m = model()
    params = jax.tree.map(lambda w: np.asarray(w, np.float64), m.params)
    options = {"batch_size": 3 * case["options"].get("num_beams", 1), **case["options"]}
    new, options["stop"] = options.pop("max_new_tokens"), options.pop("stop_strings", [])
    how = {"max_new_tokens": new, "stop_ids": case["stop"], "read": m.tokenizer.continued}
    out = generate(m.run.parts.model, params, GOLDEN["prompts"], GenerateConfig(**options), **how)
    assert [
        answer.ids + case["stop"] * (answer.stopped and not options["stop"]) for answer in out
    ] == case["ids"]
    if options["stop"]:
        assert sum(answer.stopped for answer in out) > 2 and not any(
            text in answer.text for answer in out for text in options["stop"]
        )


def test_the_text_is_the_documented_one():
    # the space is that of SentencePiece before a text
    assert model().generate("", max_new_tokens=60).lstrip().startswith(TOLD)
    assert (
        model()
        .generate("Once upon a time", max_new_tokens=40)
        .startswith(TOLD.removeprefix("Once upon a time")[:60])
    )
    assert "".join(model().stream("", max_new_tokens=60)) == model().generate("", max_new_tokens=60)
