"""New tokens per second of greedy decoding: with the cache against the whole text again for every
token (what `use_cache=False` does elsewhere).

python tools/bench/decode.py [batch] [prompt] [new]          defaults: 16 128 64
"""

from __future__ import annotations

import functools
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jaxsft.config.model import ModelConfig
from jaxsft.config.schema import GenerateConfig
from jaxsft.generation.decoding import generate
from jaxsft.models.attention import TokenInfo
from jaxsft.models.transformer import Transformer

VOCAB = 261
ROUNDS = 5


@functools.partial(jax.jit, static_argnums=(0, 3))
def without_cache(model, params, prompt, new):
    """[B, P] -> [B, new], every token from a forward pass over all slots."""
    b, width = prompt.shape
    position = jnp.broadcast_to(jnp.arange(width + new), (b, width + new))

    def one(step, ids):
        hidden = model.hidden(
            params, ids, TokenInfo((position < width + step).astype(jnp.int32), position)
        )
        last = lax.dynamic_index_in_dim(hidden, width + step - 1, axis=1, keepdims=False)
        token = (last @ model.output_matrix(params)).argmax(-1).astype(jnp.int32)
        return lax.dynamic_update_slice_in_dim(ids, token[:, None], width + step, axis=1)

    return lax.fori_loop(0, new, one, jnp.pad(prompt, ((0, 0), (0, new))))[:, width:]


def main(batch: int = 16, width: int = 128, new: int = 64) -> None:
    model = Transformer(ModelConfig(), VOCAB, "fp32")
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0)))
    prompts = np.random.default_rng(0).integers(0, VOCAB, (batch, width)).astype(np.int32)
    cached = lambda: generate(
        model,
        params,
        prompts.tolist(),
        GenerateConfig(batch_size=batch),
        max_new_tokens=new,
        stop_ids=(),
    )
    again = lambda: np.asarray(without_cache(model, params, prompts, new))
    assert [answer.ids for answer in cached()] == again().tolist(), "the cache changes the answers"
    seconds = {"cache": [], "no cache": []}
    for _ in range(ROUNDS):
        for name, run in (("cache", cached), ("no cache", again)):
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in median.items():
        print(
            f"{name:<9} {batch * new / value:9,.0f} tokens/s   {median['no cache'] / value:.2f} x"
            " no cache"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
