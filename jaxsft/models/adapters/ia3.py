"""(IA)^3: learned vectors that multiply the outputs or the inputs of frozen linear layers (Liu et
al. 2022, arXiv:2205.05638, section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable

from flax import linen as nn
from flax import struct
from jaxtyping import Array

from jaxsft import quantised
from jaxsft.config.adapters import IA3
from jaxsft.models.adapters.targets import Leaf, Site
from jaxsft.products import at_least_fp32

OUTPUTS, INPUTS = 1, 2  # rules of a site


def declare(site: Site, options: IA3) -> dict[str, Leaf]:
    """Declares vectors of ones: the model starts as it is."""
    w, n, inputs = site.spec, site.spec.inputs, site.rule == INPUTS
    part = slice(0, n) if inputs else slice(n, None)
    return {
        "inputs" if inputs else "outputs": Leaf(w.shape[part], w.axes[part], nn.initializers.ones)
    }


class IA3Node(struct.PyTreeNode):
    """The vectors that scale the inputs or outputs of one site."""

    inputs: Array | None = None
    outputs: Array | None = None

    def linear(
        self,
        x: Array,
        w: Array,
        bias: Array | None,
        equation: str,
        product: Callable[[str, Array, Array], Array],
    ) -> Array:
        """Computes the scaled linear layer; the bias is scaled too, as activations in the paper."""
        y = product(equation, x if self.inputs is None else x * self.inputs, w)
        y = y if bias is None else y + bias
        return y if self.outputs is None else y * self.outputs

    def merged(self, w: Array, bias: Array | None) -> tuple[Array, Array | None]:
        """Returns weight and bias with the vectors multiplied in, in float32 or higher."""
        w = quantised.widen(w)
        w = w.astype(at_least_fp32(w.dtype))
        if self.inputs is not None:
            w = w * self.inputs.reshape(self.inputs.shape + (1,) * (w.ndim - self.inputs.ndim))
        if self.outputs is not None:
            w, bias = (
                w * self.outputs,
                (None if bias is None else bias.astype(w.dtype) * self.outputs),
            )
        return w, bias
