"""What is known of each kind of device: figures of its data sheet, and what suits it."""

from __future__ import annotations

from typing import NamedTuple


class Chip(NamedTuple):
    """The figures of a data sheet.

    Attributes:
      flops: of products in bfloat16 a second. hbm: bytes of memory. bandwidth: of that memory, in
        bytes a second. link: bytes a second of one link to another chip, one way. dcn: of its share
        of the network between slices.
      wraps_from: chips of an axis from which on it is a ring: each axis has two links then.
    """

    flops: float
    hbm: float
    bandwidth: float
    link: float
    dcn: float
    wraps_from: int


class DeviceKind(NamedTuple):
    """A kind of device.

    Attributes:
      attention: backends for long rows, the first that does not refuse is taken.
      few_scores: of a head and row, below which all scores are held at once.
      plain_logits: numbers that are held at once without a second thought. chunk_logits: of a chunk
        where they are more.
      gathers: it picks single numbers of large arrays well; else it compares as it passes by.
      activations: in which states are kept where products are of bfloat16.
      chip: None where no data sheet is known.
    """

    attention: tuple[str, ...]
    few_scores: int
    plain_logits: int
    chunk_logits: int
    gathers: bool
    activations: str
    chip: Chip | None = None


_FEW = 512 * 512
# a gigabyte of logits, a sixteenth of the smallest accelerator
_GPU = DeviceKind(("blocked",), _FEW, 2**28, 2**28, False, "bf16")


def _tpu(chip: Chip) -> DeviceKind:
    logits = int(chip.hbm / 16 / 4)  # a sixteenth of the memory, in float32
    return DeviceKind(("splash", "blocked"), _FEW, logits, logits, False, "bf16", chip)


# cloud.google.com/tpu/docs: v5e, v5p and v6e, system architecture; the network between slices:
# jax-ml.github.io/scaling-book/tpus
KINDS = {
    # measured: smaller chunks stay in its caches
    "cpu": DeviceKind(("blocked",), _FEW, 2**25, 2**23, True, "fp32"),
    "gpu": _GPU,
    "v5e": _tpu(Chip(197e12, 16e9, 819e9, 45e9, 3.125e9, 16)),
    "v5p": _tpu(Chip(459e12, 95e9, 2765e9, 90e9, 6.25e9, 4)),
    "v6e": _tpu(Chip(918e12, 32e9, 1640e9, 90e9, 12.5e9, 16)),
}
CHIPS = {name: kind.chip for name, kind in KINDS.items() if kind.chip is not None}
# what the devices call themselves
_NAMES = {"TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v5p": "v5p", "TPU v6 lite": "v6e"}


def kind_of(platform: str, name: str = "") -> DeviceKind:
    """Returns the kind of a device.

    Args:
      platform: cpu | gpu | cuda | rocm | tpu.
      name: what it calls itself (`device_kind`); a TPU that is not known is taken for the smallest.
    """
    if platform == "tpu":
        return KINDS[_NAMES.get(name, "v5e")]
    return KINDS["cpu" if platform == "cpu" else "gpu"]
