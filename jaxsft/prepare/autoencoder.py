"""A small autoencoder over columns of numbers, trained in one jitted program.

Its weights are plain JSON and are used by numpy.

Denoising autoencoders: Vincent et al. 2008; for missing cells: Gondara and Wang 2018.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsft.prepare.numbers import array, plain

BATCH, RATE = 256, 1e-2


def train(z: np.ndarray, *, hidden: int, steps: int, corrupt: float, seed: int) -> dict[str, Any]:
    """Trains the weights of `[z, there] -> tanh -> z`.

    Args:
      z: `[N, F]` standardised numbers, NaN where one is missing: such cells are no target.
      hidden: units between. steps: of Adam, 256 rows each, the rate falling from 0.01 to 0 as a
        cosine.
      corrupt: the chance of each cell to be hidden from the input; the loss is the squared error of
        the hidden cells, or of all where this is 0.

    Returns: `{"encoder": [2F, H], "encoder_bias": [H], "decoder": [H, F], "decoder_bias": [F]}`,
    rounded to six digits.
    """
    import jax  # heavy, and only these options need it
    import jax.numpy as jnp
    import optax

    there = jnp.asarray(~np.isnan(z), jnp.float32)
    x = jnp.asarray(np.nan_to_num(z), jnp.float32)
    n, f = x.shape
    keys = jax.random.split(jax.random.key(seed, impl="threefry2x32"), 4)
    weights = {
        "encoder": jax.random.normal(keys[0], (2 * f, hidden)) / np.sqrt(2 * f),
        "encoder_bias": jnp.zeros(hidden),
        "decoder": jax.random.normal(keys[1], (hidden, f)) / np.sqrt(hidden),
        "decoder_bias": jnp.zeros(f),
    }
    adam = optax.adam(optax.cosine_decay_schedule(RATE, steps))

    def loss(w, rows, seen, target):
        out = (
            jnp.tanh(jnp.concatenate([rows * seen, seen], -1) @ w["encoder"] + w["encoder_bias"])
            @ w["decoder"]
            + w["decoder_bias"]
        )
        return (target * (out - rows) ** 2).sum() / jnp.maximum(target.sum(), 1)

    def step(carry, keys):
        w, opt = carry
        rows = jax.random.randint(keys[0], (min(BATCH, n),), 0, n)
        hide = jax.random.bernoulli(keys[1], corrupt, (len(rows), f))
        seen = there[rows] * ~hide
        target = there[rows] * hide if corrupt > 0 else there[rows]
        value, grads = jax.value_and_grad(loss)(w, x[rows], seen, target)
        updates, opt = adam.update(grads, opt)
        return (optax.apply_updates(w, updates), opt), value

    every = jax.vmap(jax.random.split)(jax.random.split(keys[2], steps))
    (weights, _), _ = jax.jit(lambda carry, every: jax.lax.scan(step, carry, every))(
        (weights, adam.init(weights)), every
    )
    short = np.vectorize(lambda v: float(f"{v:.6g}"))
    return {
        name: plain(short(np.asarray(w, np.float64))) for name, w in jax.device_get(weights).items()
    }


def reconstruct(z: np.ndarray, weights: Mapping[str, Any]) -> np.ndarray:
    """Computes the autoencoder's output `[N, F]` for rows, with the mask of their missing cells."""
    seen = ~np.isnan(z)
    inputs = np.concatenate([np.nan_to_num(z), seen], -1)
    hidden = np.tanh(
        np.einsum("nf,fh->nh", inputs, array(weights["encoder"])) + array(weights["encoder_bias"])
    )
    return np.einsum("nh,hf->nf", hidden, array(weights["decoder"])) + array(
        weights["decoder_bias"]
    )
