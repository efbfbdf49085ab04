"""What is drawn from logits: the filters against those of transformers (a golden file) and against
definitions; one program for all options.
"""

import itertools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxsft.config.schema import GenerateConfig
from jaxsft.generation.sampling import Sampling, choose, filtered, penalised

GOLDEN = json.loads(
    (Path(__file__).parent / "golden" / "generate.json").read_text(encoding="utf-8")
)
LOGITS = np.random.default_rng(3).normal(size=(4, 33)).astype(np.float32) * 2
cut = jax.jit(filtered)
draws = jax.jit(choose)


@pytest.mark.parametrize(
    "case", GOLDEN["filters"], ids=lambda case: f"{case['top_k']},{case['top_p']},{case['min_p']}"
)
def test_filters_keep_what_transformers_keeps(case):
    out = cut(
        np.array(GOLDEN["logits"], np.float32),
        np.int32(case["top_k"]),
        np.float32(case["top_p"]),
        np.float32(case["min_p"]),
    )
    assert [np.flatnonzero(np.isfinite(row)).tolist() for row in np.asarray(out)] == case["kept"]


def test_filters_by_definition():
    """The kept logits are untouched, k of them stay, and the nucleus is the smallest set of the
    likeliest that reaches p.
    """
    for k, p in itertools.product((1, 4, 33, 100), (0.2, 0.7, 0.99)):
        out = np.asarray(cut(LOGITS, np.int32(k), np.float32(p), np.float32(0)))
        for row, given in zip(out, LOGITS.astype(np.float64), strict=True):
            kept = np.isfinite(row)
            assert (row[kept] == given[kept]).all() and kept[given.argmax()] and kept.sum() <= k
            mass = np.exp(given - given.max()) * (given >= np.sort(given)[-min(k, 33)])
            share = mass[kept].sum() / mass.sum()
            assert share >= p - 1e-6 and share - mass[kept].min() / mass.sum() < p
    # all off
    assert (np.asarray(cut(LOGITS, np.int32(0), np.float32(1), np.float32(0))) == LOGITS).all()


def test_equal_logits_stay_or_go_together():
    out = np.asarray(
        cut(
            np.array([[1.0, 2.0, 2.0, 0.0, -np.inf, -0.0]], np.float32),
            np.int32(2),
            np.float32(1),
            np.float32(0),
        )
    )
    assert np.isfinite(out).tolist() == [[False, True, True, False, False, False]]
    out = np.asarray(
        cut(
            np.array([[1.0, 1.0, 0.0, -0.0]], np.float32), np.int32(3), np.float32(1), np.float32(0)
        )
    )
    assert np.isfinite(out).all()


def test_repetition_penalty():
    seen = np.array([[True, True, False]])
    assert np.asarray(penalised(np.array([[2.0, -2.0, 3.0]]), seen, np.float32(2))).tolist() == [
        [1.0, -4.0, 3.0]
    ]


def draw(options, rows=4000, seed=0, seen=None):
    logits = np.tile(LOGITS[:1], (rows, 1))
    seen = np.zeros(logits.shape, bool) if seen is None else seen
    return np.asarray(
        draws(
            logits,
            seen,
            np.arange(rows, dtype=np.uint32),
            np.zeros(rows, np.int32),
            Sampling.of(GenerateConfig(**options), seed),
        )
    )


def test_samples_follow_the_filtered_distribution():
    """Temperature first, then the filters: their order matters."""
    options = {"temperature": 1.7, "top_k": 9, "top_p": 0.8, "min_p": 0.15}
    kept = np.asarray(cut(LOGITS[:1] / 1.7, np.int32(9), np.float32(0.8), np.float32(0.15)))[
        0
    ].astype(float)
    expected = np.exp(kept - kept.max()) / np.exp(kept - kept.max()).sum()
    found = np.bincount(draw(options), minlength=33) / 4000
    np.testing.assert_allclose(found, expected, atol=4 * np.sqrt(0.25 / 4000))
    assert (found[expected == 0] == 0).all() and 2 < (expected > 0).sum() < 9


def test_one_program_for_all_options():  # guards H5
    draw({})
    compiled = draws._cache_size()
    plain = draw({"temperature": 1.0})
    every = {"top_k": 3, "top_p": 0.5, "min_p": 0.3, "repetition_penalty": 4.0}
    seen = np.tile(np.arange(33) == plain[0], (4000, 1))
    for name, value in every.items():
        assert (draw({"temperature": 1.0, name: value}, seen=seen) != plain).any(), name
    assert (draw({"temperature": 1.0}, seed=1) != plain).any() and draws._cache_size() == compiled
    assert (draw({"temperature": 1e-6, "top_k": 5}) == draw({})).all()
