"""BERT's head over the vocabulary.

head/dense/{w [D, E], b}  head/norm/{scale, bias}  [head/w [E, V]]  [head/b [V]]     E: the size of
  the embeddings
"""

from __future__ import annotations

from flax import linen as nn
from jaxtyping import Array, Float

from jaxsft.config.model import ModelConfig
from jaxsft.models.heads import ACTIVATIONS
from jaxsft.models.initialisers import fan_in_normal
from jaxsft.models.layers import Linear, Norm
from jaxsft.products import contract
from jaxsft.sharding.weights import declare


class MaskedHead(nn.Module):
    """The masked-LM head of BERT (Devlin et al., 2019): `norm(activation(dense(x)))`.

    Its product with the embeddings (or with a matrix of its own), plus a bias, gives the
    logits.

    The loss reads `w` and `b` itself; `__call__` serves initialisation and small logits of a model
    that is not tied.
    """

    config: ModelConfig
    vocab: int
    precision: str
    activation: str

    def setup(self) -> None:
        m = self.config
        self.size = m.embed_inner if m.tied and m.embed_inner else m.embed
        self.dense = Linear(
            "bsd,de->bse", (m.embed, self.size), ("embed", "positions"), self.precision, bias=True
        )
        self.norm = Norm.of(m)
        if not m.tied:
            self.w = self.param(
                "w",
                declare(fan_in_normal(1), ("embed", "vocab"), inputs=1),
                (self.size, self.vocab),
            )
        if m.head_bias:
            self.b = self.param("b", declare(nn.initializers.zeros, ("vocab",)), (self.vocab,))

    def transform(self, x: Float[Array, "batch seq embed"]) -> Float[Array, "batch seq inner"]:
        return self.norm(ACTIVATIONS[self.activation](self.dense(x)))

    def __call__(self, x: Float[Array, "batch seq embed"]) -> Array:
        y = self.transform(x)
        if not self.config.tied:
            y = contract("bsd,dv->bsv", y, self.w, self.precision)
        return y + self.b if self.config.head_bias and not self.config.tied else y
