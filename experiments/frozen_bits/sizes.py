"""Sizes and errors of the weights of a folder of Hugging Face in few bits:

python experiments/frozen_bits/sizes.py models/minilm/model.safetensors
"""

import sys

import jax
import jax.numpy as jnp
from safetensors.numpy import load_file

from jaxsft import quantised


def main(path: str) -> None:
    tensors = load_file(path)
    whole = 4 * sum(w.size for w in tensors.values() if w.dtype.kind == "f")
    chosen = {
        name: w
        for name, w in tensors.items()
        if w.ndim == 2 and ("layer." in name or name.endswith("word_embeddings.weight"))
    }
    for kind in quantised.KINDS:
        make = jax.jit(lambda w, k=kind: quantised.quantise(w, k, 0, stacked=False))
        held, error, power = 0, 0.0, 0.0
        for w in chosen.values():
            few = make(w)
            held += sum(x.nbytes for x in jax.tree.leaves(few))
            error += float(jnp.square(few.dense() - w).sum())
            power += float(jnp.square(w).sum())
        full = 4 * sum(w.size for w in chosen.values())
        print(
            f"{kind}: {len(chosen)} weights, {held / 2**20:.2f} MiB, {held / full:.2%} of float32;"
            f" the model {(whole - full + held) / whole:.2%}; error {(error / power) ** 0.5:.2%}"
        )


if __name__ == "__main__":
    main(sys.argv[1])
