"""Added tokens and word vectors in an embedding: where the rows start, and which of them are
trained.
"""

import dataclasses

import jax
import numpy as np
import pytest

from jaxsft import tasks
from jaxsft.config import schema
from jaxsft.config.durations import Clock
from jaxsft.data.file_records import Records
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError, DataError
from jaxsft.optim.rules.adamw import AdamW
from jaxsft.training import partition, runs
from jaxsft.training import vocab_rows as rows
from jaxsft.training.checkpoint import flatten
from jaxsft.training.components import Components, build_components
from jaxsft.training.hyper import make_hyper
from jaxsft.training.step import Program
from tests import conftest

BYTES = Tokenizer.bytes()
ADDED = BYTES.with_added(["<|mask|>", "<x>"])


def parts_of(tokenizer: Tokenizer, **model) -> Components:
    config = dataclasses.replace(
        conftest.make_config("lm", model={"tied": False, "head_bias": True}),
        tokenizer=schema.BytesTokenizer(added=["<|mask|>", "<x>"]),
    )
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **model),
        optim=AdamW(learning_rate=0.1, weight_decay=0.1),
    )
    return build_components(config, tokenizer, tasks.get("lm").fit(config, tokenizer, [], []))


def test_new_rows_are_the_mean_of_the_others():  # guards G4
    small, big = parts_of(BYTES), parts_of(ADDED)
    before = jax.tree.map(lambda w: w + 0.5, small.init_params())
    after = runs._changed(big, before, small)
    assert rows.extends(ADDED, BYTES) and not rows.extends(BYTES, BYTES)
    for name, axis in (("embed/tokens/w", 0), ("head/w", 1), ("head/b", 0)):
        old, new = (
            np.moveaxis(np.asarray(flatten(tree)[name]), axis, 0) for tree in (before, after)
        )
        assert new.shape[0] == ADDED.vocab_size == old.shape[0] + 2  # the largest id has a row
        np.testing.assert_array_equal(new[:-2], old)
        np.testing.assert_allclose(
            new[-2:], np.broadcast_to(old.mean(0), new[-2:].shape), rtol=1e-6
        )
    conftest.assert_same(after["layers"], before["layers"])


def test_every_token_has_a_row():  # guards G4
    with pytest.raises(
        ConfigError,
        match=r"^model\.vocab_rows=262: the tokenizer has 263 tokens; give at least as many rows$",
    ):
        parts_of(BYTES, vocab_rows=262)
    assert parts_of(BYTES, vocab_rows=263).specs["embed"]["tokens"]["w"].shape[0] == 263


@pytest.mark.parametrize(("stored", "wanted"), [(263, 265), (270, 270), (264, 268)])
def test_rows_without_a_token_stay_behind(stored, wanted):
    big = parts_of(ADDED, vocab_rows=wanted)
    table = np.arange(stored * 16, dtype=np.float32).reshape(stored, 16)
    out = rows.grown({"embed/tokens/w": table}, flatten(big.specs), ADDED)["embed/tokens/w"]
    assert out.shape == (wanted, 16)
    np.testing.assert_array_equal(out[:263], table[:263])
    np.testing.assert_allclose(out[263:265], np.tile(table[:263].mean(0), (2, 1)), rtol=1e-6)
    np.testing.assert_array_equal(out[265 : min(stored, wanted)], table[265 : min(stored, wanted)])


def test_only_the_rows_of_added_tokens_are_trained():  # guards G4
    parts = parts_of(ADDED, train_rows="added")
    config = dataclasses.replace(
        parts.config, train=dataclasses.replace(parts.config.train, freeze=["layers/.*", "norm/.*"])
    )
    program = Program(
        config,
        parts.task,
        parts.model,
        partition.partition(parts.specs, parts.specs, config.train.freeze)[0],
    )
    params = parts.init_params()
    trainable, frozen = partition.partition(params, parts.specs, config.train.freeze)
    records, where = conftest.make_records("lm", 8)
    batches = parts.batches(parts.split("train", Records(records, where)), training=True)
    batch = batches[0]._replace(
        tokens=np.where(batches[0].tokens == ord("a"), 264, batches[0].tokens)
    )
    state, sums = jax.jit(program.step)(
        program.init_state(trainable), frozen, batch, make_hyper(config, Clock(1, 8, 4))
    )
    assert not sums.skipped
    for name, axis in (("embed/tokens/w", 0), ("head/w", 1), ("head/b", 0)):
        old, new = (
            np.moveaxis(np.asarray(flatten(tree)[name]), axis, 0)
            for tree in (trainable, state.trainable)
        )
        np.testing.assert_array_equal(new[:263], old[:263])
        assert (new[264] != old[264]).any()


def test_word_vectors(tmp_path):
    file = tmp_path / "v.txt"
    file.write_text(
        "".join(f"{chr(c)} {' '.join(str(c + i / 100) for i in range(16))}\n" for c in (97, 98, 99))
    )
    parts = parts_of(BYTES, vectors=str(file))
    assert parts.vectors.rows.tolist() == [65, 66, 67, 97, 98, 99]  # A, B and C by their lower case
    start, plain = (
        runs.starting_params(parts)["embed"]["tokens"]["w"],
        parts.init_params()["embed"]["tokens"]["w"],
    )
    np.testing.assert_allclose(start[98], 98 + np.arange(16) / 100, rtol=1e-6)
    others = np.setdiff1d(np.arange(263), parts.vectors.rows)
    np.testing.assert_array_equal(start[others], plain[others])
    with pytest.raises(
        ConfigError, match=r"vectors have 16 numbers, the embedding 8; set model.embed_inner=16"
    ):
        runs.starting_params(parts_of(BYTES, vectors=str(file), embed_inner=8))
    file.write_text("nothing 1 2\n")
    with pytest.raises(DataError, match="none of its words is in the vocabulary"):
        _ = parts_of(BYTES, vectors=str(file)).vectors


def test_word_vectors_of_an_encoder_decoder(tmp_path):
    """One table of both halves; with vectors of another size, a linear layer in each half leads
    from them.
    """
    file = tmp_path / "v.txt"
    file.write_text(
        "".join(f"{chr(c)} {' '.join(str(c + i / 100) for i in range(12))}\n" for c in (97, 98, 99))
    )
    model = {
        "decoder_layers": 1,
        "layers": 1,
        "causal": False,
        "vectors": str(file),
        "embed_inner": 12,
        "tied": False,
    }
    b = conftest.bench("seq2seq", 4, model=model, longest=12, train={"freeze": ["embed/tokens/.*"]})
    params = runs.starting_params(b.parts)
    assert params["embed"]["tokens"]["w"].shape == (263, 12) and params["encoder"]["embed"][
        "project"
    ]["w"].shape == (12, 16)
    np.testing.assert_allclose(
        params["embed"]["tokens"]["w"][98], 98 + np.arange(12) / 100, rtol=1e-6
    )
    trainable, frozen = partition.partition(params, b.parts.specs, b.config.train.freeze)
    moved, sums = jax.jit(b.program.step)(
        b.program.init_state(trainable), frozen, b.batches[0], b.hyper
    )
    assert (
        not sums.skipped
        and (
            moved.trainable["decoder"]["embed"]["project"]["w"]
            != params["decoder"]["embed"]["project"]["w"]
        ).any()
    )
    with pytest.raises(ConfigError, match=r"a tied output would need model.embed of that size"):
        conftest.make_config("seq2seq", model=model | {"tied": True})


def test_words_of_a_vocabulary():
    words = Tokenizer.train(["the cat sat on the mat", "the cat sat"] * 5, 280).words()
    assert "the" in words and words[BYTES.special_id("<|end|>") - 256] is None and len(words) <= 280
