"""Writes the model of a run as a folder that transformers loads: config.json, safetensors,
tokenizer, chat template, stop tokens.

  jaxsft export run=runs/mine to=FOLDER [export.dtype=fp32|bf16|fp16] [export.family=llama]
  [export.shard=4000000000]
      [export.adapter=merge|peft] [export.head=class|body] [checkpoint=STEP|newest]

Each tensor has the dtype of the files that the run started from; one that training did not touch
has the same bytes. A run that started from nothing is written as the first family that has all of
its options. FOLDER is written aside and renamed. An adapter is merged into the weights; with
export.adapter=peft it is written alone, for the library PEFT. A task whose head no class of
transformers has is written with export.head=body: the model for AutoModel, and the head in
head.safetensors and head.json, beside what sentence-transformers reads where it can.
"""

from __future__ import annotations

from jaxsft.commands import from_run
from jaxsft.errors import ConfigError

OWN = (
    "run",
    "to",
    "export.dtype",
    "export.family",
    "export.shard",
    "export.adapter",
    "export.head",
    "checkpoint",
)


def main(arguments: list[str]) -> int:
    mine, rest = from_run.arguments(arguments, OWN, ("run", "to"))
    if rest:
        raise ConfigError(f"{rest[0]}: is no option of export; there are {', '.join(OWN)}")
    if not (shard := mine.get("export.shard", "4000000000")).isdecimal() or not int(shard):
        raise ConfigError(f"export.shard={shard}: expected a number of bytes")

    for option, known in (
        ("export.adapter", ("merge", "peft")),
        ("export.head", ("class", "body")),
    ):
        if mine.get(option, known[0]) not in known:
            raise ConfigError(f"{option}={mine[option]}: expected {' or '.join(known)}")

    from jaxsft import api

    how = {
        name: mine[f"export.{name}"]
        for name in ("dtype", "family", "adapter", "head")
        if f"export.{name}" in mine
    }
    done = api.export(
        mine["run"], mine["to"], shard=int(shard), checkpoint=mine.get("checkpoint"), **how
    )
    kinds = ", ".join(f"{count} {dtype}" for dtype, count in done["dtypes"].items())
    print(f"{done['class']}, {done['tensors']} tensors ({kinds}): {mine['to']}")
    return 0
