"""The options of `jaxsft plan`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from jaxsft.config.option import option


@dataclass(frozen=True)
class PlanConfig:
    """The options of `jaxsft plan`, which compiles the steps of a run and trains nothing."""

    topology: Optional[str] = option(
        None,
        "of TPU chips that need not be there, as v5e:16x16, v5p:4x4x8 or v6e:8x8; null: the devices"
        " of this machine",
        matches=r"v(5e|5p|6e):\d+x\d+(x\d+)?",
        what="v5e:AxB, v6e:AxB or v5p:AxBxC",
    )
    slices: int = option(
        1,
        "of plan.topology, joined by the network of a data centre; mesh.data goes over all",
        at_least=1,
        read_if="plan.topology",
    )
    devices: Optional[int] = option(
        None,
        "CPU devices to compile for, that need not be there; null: those of this machine",
        at_least=1,
    )
    search: bool = option(
        False, "more rows a device, and a mesh with tensor parallelism, are compiled as well"
    )
    decode: bool = option(
        False,
        "the step that draws a token is compiled too, for generate.batch_size answers of"
        " generate.max_new_tokens after prompts of data.max_length",
    )
    output: Optional[str] = option(None, "a JSON file for all figures of the best plan")
    tokens: Optional[float] = option(
        None,
        "of the whole run, whose hours and cost are printed",
        above=0,
        read_if="plan.topology",
    )
    dollars: Optional[float] = option(
        None, "that an hour of a chip costs", above=0, read_if="plan.tokens"
    )
