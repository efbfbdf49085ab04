"""Writes tests/models/golden/routers.json: what transformers computes of the routers of the sparse
models in tests/hf/families/golden.

  python -m tools.golden.experts      needs jaxsft[torch]

The texts and the weights are those of the families' cases: both texts as one padded batch, of which
the padding does not count.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tools.golden.families import CASES, FOLDER, drawn_on_disk

FILE = Path(__file__).parents[2] / "tests" / "models" / "golden" / "routers.json"


def of_case(name: str) -> dict[str, float]:
    """The auxiliary loss of a case, and the z-loss of its real tokens as Switch Transformers has
    it.
    """
    import torch
    import transformers
    from transformers.models.switch_transformers.modeling_switch_transformers import (
        router_z_loss_func,
    )

    kind, options, _ = CASES[name]
    config = getattr(transformers, kind).config_class(**options, attn_implementation="eager")
    model, _ = drawn_on_disk(getattr(transformers, kind)(config).eval(), sum(name.encode()))
    arrays = np.load(FOLDER / f"{name}.npz")
    ids = torch.from_numpy(arrays["ids"].astype(np.int64))
    mask = (
        torch.arange(ids.shape[1]) < torch.from_numpy(arrays["lengths"].astype(np.int64))[:, None]
    )
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=mask.long(), output_router_logits=True)
    # [L * tokens, E]
    real = torch.cat([logits.reshape(*ids.shape, -1)[mask] for logits in out.router_logits])
    return {
        "balance_loss": float(out.aux_loss),
        "router_z_loss": float(router_z_loss_func(real[None])),
    }


if __name__ == "__main__":
    found = {name: of_case(name) for name, (_, _, case) in CASES.items() if case.get("disk")}
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(found)
