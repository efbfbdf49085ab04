"""Writes the model of a run as a folder that transformers loads: config.json, safetensors, tokenizer, chat template, stop tokens.

  jaxsft export run=runs/mine to=FOLDER [export.dtype=fp32|bf16|fp16] [export.family=llama] [export.shard=4000000000]
      [export.adapter=merge|peft]

Each tensor has the dtype of the files that the run started from; one that training did not touch has the same bytes. A run that started from nothing
is written as the first family that has all of its options. FOLDER is written aside and renamed. An adapter is merged
into the weights; with export.adapter=peft it is written alone, for the library PEFT.
"""

from __future__ import annotations

from jaxsft.commands import from_run
from jaxsft.errors import ConfigError

OWN = ("run", "to", "export.dtype", "export.family", "export.shard", "export.adapter")


def main(arguments: list[str]) -> int:
    mine, rest = from_run.arguments(arguments, OWN, ("run", "to"))
    if rest:
        raise ConfigError(f"{rest[0]}: is no option of export; there are {', '.join(OWN)}")
    if not (shard := mine.get("export.shard", "4000000000")).isdecimal() or not int(shard):
        raise ConfigError(f"export.shard={shard}: expected a number of bytes")

    if (adapter := mine.get("export.adapter", "merge")) not in ("merge", "peft"):
        raise ConfigError(f"export.adapter={adapter}: expected merge or peft")

    from jaxsft import api

    done = api.export(mine["run"], mine["to"], dtype=mine.get("export.dtype"), family=mine.get("export.family"), shard=int(shard), adapter=adapter)
    kinds = ", ".join(f"{count} {dtype}" for dtype, count in done["dtypes"].items())
    print(f"{done['class']}, {done['tensors']} tensors ({kinds}): {mine['to']}")
    return 0
