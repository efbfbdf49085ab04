"""Encoder-decoder families compute what transformers computes, from golden files that transformers
wrote.
"""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxsft.errors import CheckpointError, ConfigError
from jaxsft.hf import families, pretrained_folder
from jaxsft.hf import read as pretrained
from jaxsft.hf import write as exported
from jaxsft.models.attention import TokenInfo
from jaxsft.models.encoder_decoder import EncoderDecoder
from jaxsft.models.heads import VocabHead
from jaxsft.sharding.weights import flatten, specs
from tools.golden.families import weights

GOLDEN = Path(__file__).parent / "golden_pairs"
CASES = sorted(path.stem for path in GOLDEN.glob("*.json"))


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8")), dict(
        np.load(GOLDEN / f"{name}.npz")
    )


def write(name, folder, drop=(), **more):
    """The folder of a case; `more` tensors beside its own."""
    about, _ = golden(name)
    (folder / "config.json").write_text(json.dumps(about["config"]), encoding="utf-8")
    tensors = {
        key: value
        for key, value in weights(about["shapes"], about["seed"]).items()
        if key not in drop
    } | more
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def load(folder):
    source = pretrained_folder.open_source(folder)
    c = source.model()
    head = (
        None
        if c.tied and not c.head_bias
        else VocabHead(c.embed, c.vocab_rows, "fp32", matrix=not c.tied, bias=c.head_bias)
    )
    model = EncoderDecoder(c, c.vocab_rows, "fp32", head)
    declared = specs(jax.eval_shape(model.init, jax.random.key(0)))
    todo = pretrained.plan(source, flatten(declared), "lm")
    assert not todo.fresh
    values = pretrained.load(
        source,
        todo,
        {path: jnp.zeros(spec.shape, spec.dtype) for path, spec in flatten(declared).items()},
    )
    return (
        source,
        model,
        jax.tree.unflatten(
            jax.tree.structure(declared), [values[path] for path in flatten(declared)]
        ),
    )


def rows(values, lengths):
    """Three rows: both texts packed into one, then each with padding."""
    lengths = lengths.astype(int)
    width = int(lengths.sum())
    lay = lambda a: np.stack(
        [np.pad(row, (0, width - len(row))) for row in (np.concatenate(a), *a)]
    ).astype(np.int32)
    texts = [value[:n] for value, n in zip(values, lengths, strict=True)]
    return lay(texts), TokenInfo(
        lay([np.full(n, i + 1) for i, n in enumerate(lengths)]),
        lay([np.arange(n) for n in lengths]),
    )


@pytest.mark.parametrize("name", CASES)
def test_numbers_are_those_of_transformers(name, tmp_path):  # guards B1, B3, G3
    """Both halves, packed and alone, tied and not; and what is written for transformers is what was
    read.
    """
    _, arrays = golden(name)
    source, model, params = load(write(name, tmp_path))
    run = jax.jit(lambda p, s, t: model.logits(p, model.hidden(p, *t, source=s)))
    packed, *padded = np.asarray(
        run(
            params,
            rows(arrays["source"], arrays["sources"]),
            rows(arrays["target"], arrays["targets"]),
        )
    )
    first = int(arrays["targets"][0])
    for i, found in enumerate((packed[:first], packed[first:])):
        wanted = arrays[f"out{i}"]
        for value in (found, padded[i][: len(wanted)]):
            assert np.abs(value - wanted).max() <= 1e-5 * max(1.0, np.abs(wanted).max())
    declared = flatten(specs(jax.eval_shape(model.init, jax.random.key(0))))
    moves = exported.all_moves(source.family, source.family.heads["lm"], declared, name)
    assert {move.theirs for move in moves} == set(source.tensors)
    for move in moves:
        np.testing.assert_array_equal(
            exported.tensor(move, flatten(params), "F32"), source.tensors.read(move.theirs)
        )
    config = source.family.to_config(source.model(), source.model().vocab_rows)
    assert source.family.model(config) == source.model()


def test_what_does_not_fit_is_refused(tmp_path):  # guards G3, F3
    tensor = weights({"w": [61, 24]}, 7)["w"]
    own = weights(golden("t5")[0]["shapes"], golden("t5")[0]["seed"])["shared.weight"]
    # copies of a tied matrix
    load(write("t5", tmp_path, **{"lm_head.weight": own, "decoder.embed_tokens.weight": own}))
    with pytest.raises(
        CheckpointError,
        match=r"lm_head.weight and shared.weight differ, but config.json says that they are one",
    ):
        load(write("t5", tmp_path, **{"lm_head.weight": tensor}))
    for family, name in (
        ("t5", "encoder.embed_tokens.weight"),
        ("bart", "model.decoder.embed_tokens.weight"),
    ):
        with pytest.raises(
            CheckpointError,
            match=rf"{name} and .*shared.weight differ, but this model has one for both",
        ):
            load(write(family, tmp_path, **{name: tensor}))
    with pytest.raises(
        ConfigError, match=r"dense_act_fn='silu': does not agree with feed_forward_proj=relu"
    ):
        values = golden("t5")[0]["config"] | {"feed_forward_proj": "relu", "dense_act_fn": "silu"}
        families.get("t5", "here").model(values)
    with pytest.raises(CheckpointError, match=r"decoder.block.2.layer.1.EncDecAttention.k.weight"):
        load(write("t5", tmp_path, drop=("decoder.block.2.layer.1.EncDecAttention.k.weight",)))
    with pytest.raises(CheckpointError, match=r"has decoder.more"):
        load(write("bart", tmp_path, **{"decoder.more": tensor}))
