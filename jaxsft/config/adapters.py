"""The options of every adapter: a small tree of weights that is trained beside a frozen model. One
that does not apply does not exist in the class.

`target` holds patterns of module paths (`layers/3/attention/q`), of which each must match
something; `train` those of further parameters that are trained. The adapter and the head of the
task always are, everything else is frozen. Defaults are tuples: a model with an adapter is hashed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from jaxsft.config.option import Trace, option

# Every linear layer of a block: what QLoRA found to be needed (arXiv:2305.14314, section 4). Of a
# recurrent cell w is of its inputs, u of its state.
BLOCK_LINEAR = ".*layers/.*/(q|k|v|o|gate|up|down|w|u)"


@dataclass(frozen=True)
class AdapterConfig:
    name: str = "???"


@dataclass(frozen=True)
class NoAdapter(AdapterConfig):
    name: str = "none"


@dataclass(frozen=True)
class LowRank(AdapterConfig):
    rank: int = option(
        8,
        "columns of a and rows of b: the size of the adapter (`r`, `lora_r` elsewhere)",
        at_least=1,
        common="Model",
    )
    alpha: float = option(
        16.0,
        "what scale is made of, beside the rank",
        above=0,
        traced=Trace("adapter_scale", kind="adapter_scale"),
    )
    scaling: str = option(
        "rank",
        "rank: alpha / rank | sqrt: alpha / sqrt(rank), which is stable for large ranks (rsLoRA,"
        " arXiv:2312.03732)",
        choices=("rank", "sqrt"),
    )
    dropout: float = option(
        0.0,
        "of the adapter's input",
        at_least=0,
        below=1,
        traced=Trace("adapter_dropout", when="above 0"),
    )
    lr_ratio: float = option(
        1.0,
        "the learning rate of b over that of a (LoRA+, arXiv:2402.12354, which advises 16)",
        above=0,
    )
    target: list[str] = option(
        (BLOCK_LINEAR,),
        "patterns of the modules that get an adapter, such as .*/attention/(q|v); each must match",
    )
    train: list[str] = option((), "patterns of further parameters that are trained")
    start_from: Optional[str] = option(
        None, "a folder of the library PEFT: its weights are those that the adapter starts from"
    )


@dataclass(frozen=True)
class LoRA(LowRank):
    """Hu et al. 2021, arXiv:2106.09685: `y = x w + scale x a b`."""

    name: str = "lora"
    init: str = option(
        "zero",
        "zero: b is 0 | pissa: the principal part of w is trained (arXiv:2404.02948)",
        choices=("zero", "pissa"),
    )


@dataclass(frozen=True)
class DoRA(LowRank):
    """Liu et al. 2024, arXiv:2402.09353: LoRA for the direction of each column, and its length by
    itself.
    """

    name: str = "dora"


@dataclass(frozen=True)
class IA3(AdapterConfig):
    """Liu et al. 2022, arXiv:2205.05638: vectors that multiply keys, values and the inner
    activations of the MLP.
    """

    name: str = "ia3"
    target: list[str] = option((".*layers/.*/attention/(k|v)",), "their outputs are scaled")
    target_inputs: list[str] = option((".*layers/.*/mlp/down",), "their inputs are scaled")
    train: list[str] = option((), "patterns of further parameters that are trained")
    start_from: Optional[str] = option(
        None, "a folder of the library PEFT: its weights are those that the adapter starts from"
    )


@dataclass(frozen=True)
class Prefix(AdapterConfig):
    """Li and Liang 2021, arXiv:2101.00190: learned keys and values before the first token, in every
    targeted attention.
    """

    name: str = "prefix"
    tokens: int = option(20, "learned keys and values before each text", at_least=1)
    target: list[str] = option(
        (".*layers/.*/attention",), "patterns of the attention modules that get them"
    )
    train: list[str] = option((), "patterns of further parameters that are trained")
    start_from: Optional[str] = option(
        None, "a folder of the library PEFT: its weights are those that the adapter starts from"
    )


@dataclass(frozen=True)
class Prompt(AdapterConfig):
    """Lester et al. 2021, arXiv:2104.08691: learned vectors in place of the embeddings of tokens
    that stand before every text.
    """

    name: str = "prompt"
    tokens: int = option(20, "learned vectors before each text", at_least=1)
    train: list[str] = option((), "patterns of further parameters that are trained")
    start_from: Optional[str] = option(
        None, "a folder of the library PEFT: its weights are those that the adapter starts from"
    )


@dataclass(frozen=True)
class BitFit(AdapterConfig):
    """Ben Zaken et al. 2022, arXiv:2106.10199: only the biases are trained."""

    name: str = "bitfit"
    train: list[str] = option((), "patterns of further parameters that are trained")


ADAPTERS: dict[str, type[AdapterConfig]] = {
    "none": NoAdapter,
    "lora": LoRA,
    "dora": DoRA,
    "ia3": IA3,
    "prefix": Prefix,
    "prompt": Prompt,
    "bitfit": BitFit,
}
