"""Compares models of random shapes and options with transformers: what they compute, in every way
in which jaxsft computes it, and what is written back.

    python -m tools.parity [only=FAMILY] [seeds=3]          needs transformers and torch

Of each family transformers draws a model and saves it. Then are compared: outputs of texts alone
and packed into one row, past every window; outputs of cached decoding, token by token; every tensor
and the config that an export writes, and what transformers computes from it; the loss and the
gradient of every tensor in one step of training. `draws` says what is drawn.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

from jaxsft.errors import ConfigError
from jaxsft.generation.kv_cache import caches_at, empty_kv
from jaxsft.hf import families
from jaxsft.hf import write as exported
from jaxsft.models.attention import TokenInfo
from jaxsft.sharding.weights import flatten, specs
from tools.draws import DRAWS, VOCABULARY

LENGTHS = (23, 14)  # of two texts
TOLERANCE, OF_GRADIENTS = 1e-5, 1e-4


class Difference(NamedTuple):
    """The largest differences, each relative to the largest number that was wanted."""

    alone: float
    packed: float
    decoded: float | None  # None: of a model that writes nothing
    export: float
    step: float

    def over(self) -> list[str]:
        """Returns the names of those that are too large."""
        limits = dict.fromkeys(self._fields, TOLERANCE) | {"step": OF_GRADIENTS}
        found = self._asdict().items()
        return [name for name, value in found if value is not None and not value <= limits[name]]


def far(a: np.ndarray, b: np.ndarray) -> float:
    """Returns how far `a` is from `b`, relative to the largest of `b`; infinite: other shapes."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or not np.isfinite(a).all():
        return float("inf")
    return float(np.abs(a - b).max() / max(1e-3, np.abs(b).max()))


class Drawn:
    """A random model of transformers, and the folder that it was saved to."""

    def __init__(self, name: str, seed: int, folder: Path) -> None:
        import torch
        import transformers

        self.draw, self.folder = DRAWS[name], folder
        rng = np.random.default_rng([seed, *name.encode()])
        torch.manual_seed(seed)
        cls = getattr(transformers, self.draw.cls)
        options = self.draw.options(rng)
        config = cls.config_class if self.draw.config is None else self.draw.config(transformers)
        self.model = cls(config(**options, attn_implementation="eager")).eval()
        with torch.no_grad():
            for parameter in self.model.parameters():
                if parameter.requires_grad:  # a table of sinusoids is none to be drawn
                    parameter.normal_(0, 0.3)
            for buffer in self.model.buffers():
                if buffer.dim() > 1 and buffer.shape[-1] == VOCABULARY:  # a bias of logits
                    buffer.normal_(0, 0.3)
        self.model.save_pretrained(folder)
        self.ids = [rng.integers(3, VOCABULARY, n) for n in LENGTHS]
        self.sources = [rng.integers(3, VOCABULARY, n) for n in reversed(LENGTHS)]
        self.weight = rng.standard_normal(self.draw.width(self.model.config)).astype(np.float32)

    def outputs(self, model: Any, i: int) -> Any:
        """Returns the output of text i, `[1, S, ...]`, of this or another model."""
        import torch

        given = {"input_ids": torch.from_numpy(self.ids[i][None])}
        if self.draw.pairs:
            given = {"decoder_input_ids": given["input_ids"]}
            given["input_ids"] = torch.from_numpy(self.sources[i][None])
        out = model(**given)
        return out.logits if hasattr(out, "logits") else out.last_hidden_state

    def gradients(self) -> tuple[float, dict[str, np.ndarray]]:
        """Returns a loss that every output is part of, and its gradients, by names as in files."""
        import torch

        out = torch.cat([self.outputs(self.model, i)[0] for i in range(2)])
        loss = (torch.tanh(out / out.detach().abs().max()) @ torch.from_numpy(self.weight)).mean()
        loss.backward()
        buffers = {name for name, _ in self.model.named_buffers()}
        with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
            # in the place of the weights, so that they are saved under the names of files
            for p in self.model.parameters():
                p.copy_(torch.zeros_like(p) if p.grad is None else p.grad)
            self.model.save_pretrained(folder)
            found = load_file(f"{folder}/model.safetensors")
        return float(loss), {name: g for name, g in found.items() if name not in buffers}


def compare(name: str, seed: int, folder: Path, steps: bool = True) -> Difference:
    """Returns all differences of one random model; `steps`: gradients too."""
    import torch

    from tests.hf.families import hf, test_pairs

    drawn = Drawn(name, seed, folder)
    with torch.no_grad():
        wanted = [drawn.outputs(drawn.model, i).numpy()[0] for i in range(2)]
    pairs, head = drawn.draw.pairs, drawn.draw.head
    if pairs:
        _, model, params = test_pairs.load(folder)
    else:
        model, params = hf.load(folder, head)

    def run(params, ids, where, source=None):
        more = {} if source is None else {"source": source}
        hidden = model.hidden(params, ids, where, **more)
        if head == "mlm":
            hidden = model.head.apply({"params": params["head"]}, hidden, method="transform")
        return model.logits(params, hidden) if head or pairs else hidden

    forward = jax.jit(run)
    target, source = _rows(drawn.ids), _rows(drawn.sources) if pairs else None
    packed, *padded = np.asarray(forward(params, *target, source))
    first = LENGTHS[0]
    parts = (packed[:first], packed[first:])
    alone = max(far(row[: len(w)], w) for row, w in zip(padded, wanted, strict=True))
    together = max(far(part, w) for part, w in zip(parts, wanted, strict=True))
    writes = pairs or model.config.causal
    decoded = far(_decoded(model, params, drawn, source), wanted[0]) if writes else None
    return Difference(
        alone,
        together,
        decoded,
        _exported(drawn, model, params, wanted),
        _step(drawn, model, params, run, wanted) if steps else 0.0,
    )


def _rows(texts: Sequence[np.ndarray]) -> tuple[jax.Array, TokenInfo]:
    """Returns three rows: both texts packed into one, then each with padding."""
    from tests.hf.families import test_pairs

    ids, where = test_pairs.rows(texts, np.array([len(text) for text in texts]))
    return jnp.asarray(ids), jax.tree.map(jnp.asarray, where)


def _decoded(model: Any, params: Any, drawn: Drawn, source: Any) -> np.ndarray:
    """Returns the logits of the first text: nine tokens at once, the others one by one."""
    ids, n = jnp.asarray(drawn.ids[0][None], jnp.int32), LENGTHS[0]
    at, kv = jnp.arange(n, dtype=jnp.int32)[None], empty_kv(model, 1, n, jnp.float32)
    sources = None
    if source is not None:
        sources = model.start(params, jax.tree.map(lambda a: a[1:2], source), jnp.float32)
    step = jax.jit(model.decode)
    out, start = [], 0
    for stop in range(9, n + 1):
        known = TokenInfo((at < stop).astype(jnp.int32), at)
        now = TokenInfo(jnp.ones((1, stop - start), jnp.int32), at[:, start:stop])
        caches = caches_at(kv, known, jnp.int32(start), sources)
        hidden, caches = step(params, ids[:, start:stop], now, caches)
        kv, start = tuple((c.k, c.v) for c in caches), stop
        out.append(model.logits(params, hidden)[0])
    return np.concatenate([np.asarray(x) for x in out])


def _exported(drawn: Drawn, model: Any, params: Any, wanted: list[np.ndarray]) -> float:
    """Returns how far transformers is with what is written; infinite: a tensor or the config is
    another."""
    import torch

    folder = drawn.folder
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    family = families.of(values, str(folder)).of_model(model.config)
    head = family.heads.get("lm" if drawn.draw.pairs else drawn.draw.head)
    declared, held = flatten(specs(jax.eval_shape(model.init, jax.random.key(0)))), flatten(params)
    if head is not None:
        held, declared = exported.with_biases(head, held, declared)
    moves = exported.all_moves(family, head, declared, "export")
    written = {move.theirs: exported.tensor(move, held, "F32") for move in moves}
    found = load_file(folder / "model.safetensors")
    prefix = "" if head is not None else family.prefix
    stored = {family.stored.get(name, name): value for name, value in written.items()}
    for name, value in stored.items():
        there = found.get(name, found.get(f"{prefix}{name}"))
        if there is None or not np.array_equal(there, value):
            print(f"   {name} is another")
            return float("inf")
    if family.write is not None:
        config = family.to_config(model.config, model.config.vocab_rows)
        if family.model(config, context=model.config.context) != model.config:
            print("   the config is another")
            return float("inf")
        kept = ("architectures", "pad_token_id", "decoder_start_token_id")
        values = {**{key: values[key] for key in kept if key in values}, **config}
    with tempfile.TemporaryDirectory() as other:
        save_file(stored, f"{other}/model.safetensors", metadata={"format": "pt"})
        Path(other, "config.json").write_text(json.dumps(values), encoding="utf-8")
        back, told = type(drawn.model).from_pretrained(
            other, attn_implementation="eager", output_loading_info=True
        )
        made = re.compile(r"pooler|embed_positions")  # what a class makes by itself
        missing = [name for name in told["missing_keys"] if not made.search(name)]
        if missing or told["unexpected_keys"]:
            print("  ", told)
            return float("inf")
        with torch.no_grad():
            return max(far(drawn.outputs(back.eval(), i).numpy()[0], wanted[i]) for i in range(2))


def _step(drawn: Drawn, model: Any, params: Any, run: Any, wanted: list[np.ndarray]) -> float:
    """Returns how far losses and gradients are, each tensor's relative to its own largest."""
    high = max(float(np.abs(w).max()) for w in wanted)
    target = _rows(drawn.ids)
    source = _rows(drawn.sources) if drawn.draw.pairs else None
    take = lambda tree: jax.tree.map(lambda a: a[:1], tree)

    def loss(params):
        out = run(params, *take(target), *(() if source is None else (take(source),)))
        return (jnp.tanh(out[0] / high) @ drawn.weight).mean()

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    theirs, of_theirs = drawn.gradients()
    family = families.of(json.loads((drawn.folder / "config.json").read_text()), "x")
    family = family.of_model(model.config)
    head = family.heads.get("lm" if drawn.draw.pairs else drawn.draw.head)
    declared = flatten(specs(jax.eval_shape(model.init, jax.random.key(0))))
    prefix = "" if head is not None or not drawn.draw.bare else family.prefix
    whole, worst = max(np.abs(g).max() for g in of_theirs.values()), 0.0
    for move in exported.all_moves(family, head, declared, "step"):
        name = family.stored.get(move.theirs, move.theirs).removeprefix(prefix)
        if name in of_theirs:
            expected = of_theirs.pop(name)
            found = exported.tensor(move, flatten(gradient), "F32")
            high = max(1e-2 * whole, np.abs(expected).max())
            worst = max(worst, float(np.abs(found - expected).max() / high))
    left = [name for name in of_theirs if not re.search(r"pooler|embed_positions|attn_norm", name)]
    assert not left, left
    return max(worst, abs(float(value) - theirs) / max(abs(theirs), 1e-3))


def main(arguments: Sequence[str]) -> int:
    given = dict(argument.split("=", 1) for argument in arguments)
    only, failed = given.get("only", "all").split(","), 0
    for name in DRAWS if only == ["all"] else only:
        worst: list[Any] = [0.0] * len(Difference._fields)
        for seed in range(int(given.get("seeds", 3))):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    one = compare(name, seed, Path(folder))
                except ConfigError as error:
                    print(f"{name} {seed}: {error}", flush=True)
                    failed += 1
                    continue
            if over := one.over():
                failed += 1
                print(f"{name} {seed}: {', '.join(over)} too far: {one}", flush=True)
            worst = [max(a, b) if b is not None else None for a, b in zip(worst, one, strict=True)]
        told = " ".join(
            f"{field} {'-' if value is None else format(value, '.1e')}"
            for field, value in zip(Difference._fields, worst, strict=True)
        )
        print(f"{name}: {told}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    sys.exit(main(sys.argv[1:]))
