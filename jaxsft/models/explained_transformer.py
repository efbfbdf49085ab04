"""A Transformer whose embeddings are given, and which tells what its layers did: for explanation.

It is built from a trained model and shares its weights; training never meets it.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxsft.errors import ConfigError
from jaxsft.models.attention import TokenInfo, segment_mask
from jaxsft.models.attention.score_options import ScoreOptions
from jaxsft.models.layer_stack import Layer, depth_of, layers_of
from jaxsft.models.model_base import Params
from jaxsft.models.rope import rotate
from jaxsft.models.transformer import Transformer

CAPTURED = ("q", "k", "q_norm", "k_norm")


@dataclasses.dataclass(frozen=True)
class ExplainedTransformer(Transformer):
    """A Transformer that starts from `vectors`, `[B, S, D]`, instead of embedding its tokens.

    `keep`, `[L]`, says how much of the change of each layer is added: 0 skips the layer.
    """

    vectors: Array | None = None
    keep: Array | None = None

    @classmethod
    def of(
        cls, model: Transformer, vectors: Array | None = None, keep: Array | None = None
    ) -> ExplainedTransformer:
        """Returns the same model, with these embeddings; None: those of the tokens."""
        fields = {f.name: getattr(model, f.name) for f in dataclasses.fields(Transformer)}
        return cls(**{**fields, "routed": None}, vectors=vectors, keep=keep)

    def embeddings(
        self, params: Params, tokens: Int[Array, "batch seq"], where: TokenInfo
    ) -> Float[Array, "batch seq embed"]:
        """Computes the input of the first layer, without dropout."""
        return super()._embed(params, tokens, where, None)

    def _embed(self, params, tokens, where, dropout, soft=None):
        if self.vectors is None:
            return super()._embed(params, tokens, where, dropout, soft)
        return self.vectors

    def hidden(self, params, tokens, where, dropout=None, soft=None):
        if self.keep is None:
            return super().hidden(params, tokens, where, dropout, soft)
        return self.layer_states(params, tokens, where)[0][-1]

    def layer_states(
        self,
        params: Params,
        tokens: Int[Array, "batch seq"],
        where: TokenInfo,
        maps: bool = False,
    ) -> tuple[Float[Array, "states batch seq embed"], Float[Array, "layers batch heads seq seq"]]:
        """Computes the input of the first layer and what each layer gives, `[L + 1, B, S, D]`, the
        last one normed, and the attention of each layer, `[L, B, H, S, S]` (`maps`; else none).
        """
        x, states, attended = self._embed(params, tokens, where, None), [], []
        positions = self._positions(params, where, where, x.dtype)
        states.append(x)
        for start, stack, beside in self._segments(params):
            layers = layers_of(self.config, start, depth_of(stack))
            for i in range(depth_of(stack)):
                own, extra, layer = jax.tree.map(lambda a, i=i: a[i], (stack, beside, layers))
                weights = {"params": own} | self._adapters(extra)
                (y, _), found = self.block().apply(
                    weights,
                    x,
                    where,
                    positions,
                    layer,
                    None,
                    capture_intermediates=lambda module, _: module.name in CAPTURED,
                    mutable=["intermediates"],
                )
                if maps:
                    captured = found["intermediates"]["attention"]
                    attended.append(self._map(captured, where, layer, positions))
                x = y if self.keep is None else x + self.keep[start + i] * (y - x)
                states.append(x)
        states[-1] = self._norm(params, x)
        return jnp.stack(states), jnp.stack(attended) if maps else jnp.zeros((0,))

    def check_maps(self) -> None:
        """Raises ConfigError where the attention of a layer is more than softmax(q k)."""
        biased = self.config.positions not in ("learned", "rope", "none")
        if biased or self.prompt_length:
            raise ConfigError(
                "explain.method=rollout: needs attention without position biases and without"
                f" prefixes; model.positions={self.config.positions} has them; choose another"
                " method"
            )

    def _map(self, captured: dict, where: TokenInfo, layer: Layer, positions) -> Array:
        """Returns the softmax of one layer, `[B, H, S, S]`, from its captured queries and keys."""
        given = lambda name: captured[name]["__call__"][0]
        q = given("q_norm" if "q_norm" in captured else "q")
        k = given("k_norm" if "k_norm" in captured else "k")  # [B, S, K, N]
        if self.config.positions == "rope" and not self.config.qk_norm_last:
            pairs = self.config.rope_pairs
            q, k = (rotate(x, layer.positions(positions), pairs) for x in (q, k))
        how = ScoreOptions.of(self.config, self.config.causal)
        k = jnp.repeat(k, q.shape[2] // k.shape[2], axis=2)
        scores = how.cap(jnp.einsum("bshn,bthn->bhst", q * how.scale, k))
        mask = segment_mask(where, where, how.causal, layer.window)[:, None]
        weights = jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(scores.dtype).min), axis=-1)
        return jnp.where(mask, weights, 0)
