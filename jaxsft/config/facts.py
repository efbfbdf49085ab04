"""What must be known of a task, and of the place where a run runs, to make its config: plain data,
so that neither JAX nor the task itself is imported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol

_CUTS = ("error", "drop", "truncate_left", "truncate_right")
_ALL = (*_CUTS, "window", "head_tail", "sentence")
OUTPUTS = {
    **dict.fromkeys(("chat", "lm", "mlm", "span_corruption", "seq2seq"), "vocabulary"),
    **dict.fromkeys(("classify", "multilabel", "regress", "pair"), "text"),
    **dict.fromkeys(("tag", "joint", "parse"), "words"),
    "span": "span",
}
TOO_LONG: dict[str, tuple[tuple[str, ...], str]] = {  # what may become of long texts, and why
    **dict.fromkeys(("chat", "seq2seq"), (_CUTS, "has no windows, for its texts are not merged")),
    **dict.fromkeys(("lm", "mlm"), (("error",), "cuts long texts into pieces")),
    **dict.fromkeys(("classify", "multilabel", "regress", "pair"), (_ALL, "")),
    **dict.fromkeys(
        ("tag", "joint"),
        (("error", "drop", "window"), "would score fewer words than the file has"),
    ),
    "parse": (("error", "drop"), "cannot cut a tree"),
    "span": (("error", "drop", "window", "sentence"), "would lose answers"),
    "span_corruption": (
        ("error", "drop"),
        "cuts no texts, of which data.unit=paragraph gives shorter ones",
    ),
}


class TaskFacts(Protocol):
    """What the config asks of a task.

    Attributes:
      output: vocabulary | text | span | words: what its head gives a number to.
      metrics: the names that evaluation gives with this config.
      metric: the one that chooses the checkpoint; None: it hangs on the data.
      causal: what the attention must be; None where both work.
      generates: answers are generated and scored.
      can_generate: a prompt can be continued.
      reads: the columns of `data.columns` that its records are parsed from; None: any.
    """

    name: str
    output: str
    metrics: Sequence[str]
    metric: str | None
    causal: bool | None
    generates: bool
    can_generate: bool
    reads: Sequence[str] | None


@dataclasses.dataclass(frozen=True)
class Task:
    """`TaskFacts` as plain data."""

    name: str
    metrics: Sequence[str] = ("loss",)
    metric: str | None = "loss"
    causal: bool | None = None
    generates: bool = False
    can_generate: bool = False
    reads: Sequence[str] | None = None

    @property
    def output(self) -> str:
        return OUTPUTS[self.name]


class Source(NamedTuple):
    """What the defaults of a pretrained model depend on: its kind (decoder | encoder |
    encoder-decoder), `embed`, and the regularisation that it was trained with."""

    kind: str
    embed: int
    dropout: float
    label_smoothing: float = 0.0


@dataclasses.dataclass(frozen=True)
class Device:
    """The devices of all processes.

    Attributes:
      kind: cpu | gpu | tpu.
      bf16: a CPU has instructions for products of bfloat16.
    """

    kind: str = "cpu"
    count: int = 1
    processes: int = 1
    bf16: bool = False


@dataclasses.dataclass(frozen=True)
class Facts:
    """What must be known of the place where a run runs, and of what it starts from.

    Attributes:
      pretrained: of `model.pretrained`; None: the run starts from nothing, or its defaults are in
        the config already.
      scores: of generated answers, those whose library is installed.
    """

    device: Device = Device()
    pretrained: Source | None = None
    scores: Sequence[str] = ("exact_match",)
