"""Runs of every task from a golden model, exported, and what they say of a text: the tests of
export, with transformers and without it.
"""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np

import jaxsft
from jaxsft import rundir
from jaxsft.data.encode import Encoded
from jaxsft.data.formats import Row
from jaxsft.models.attention import TokenInfo
from jaxsft.sharding.weights import flatten
from jaxsft.training import components, runs, setup
from jaxsft.training import export as exporting
from jaxsft.training import pretrained as hf
from tests import tiny
from tests.training import test_pretrained_pairs as test_hf_pairs
from tests.training.test_pretrained import FAST, folder

BERT = ["task.pool=first", "task.head=dense"]
LAST = ["task.pool=last", "task.bias=false"]
NORMED = ["task.head=normed", "task.activation=gelu"]
TEXT = {  # options of a head over whole texts, by golden case
    **dict.fromkeys(("bert", "roberta", "xlm_roberta"), BERT),
    "distilbert": [*BERT, "task.activation=relu"],
    **{name: [*BERT, "task.activation=gelu"] for name in ("electra", "deberta")},
    **{name: ["task.pool=mean", *NORMED] for name in ("modernbert", "modernbert_biases")},
    **dict.fromkeys(
        (
            "llama",
            "mistral",
            "qwen2",
            "qwen3",
            "phi3",
            "gemma2",
            "gemma3",
            "gpt2",
            "gpt_neox",
            "olmo2",
            "mixtral",
            "qwen3_moe",
        ),
        LAST,
    ),
}
ENCODERS = [name for name, options in TEXT.items() if options is not LAST]
PAIRS = ("t5", "t5_v1_1", "bart")  # encoder-decoders
WORDS = ("red cats sleep", "a dog saw red cats", "small birds sing", "the red dog sleeps")
MASK = ["tokenizer.added=['<mask>']", "task.mask_token='<mask>'", "task.activation=gelu"]
SCRATCH = [
    "model.norm=layer",
    "model.positions=learned",
    "model.norm_position=post",
    "model.gated=false",
    "model.activation=gelu",
    "model.embed_norm=true",
]
# DistilBERT
SCRATCH += [
    "model.qkv_bias=true",
    "model.o_bias=true",
    "model.mlp_bias=true",
    "model.norm_epsilon=1e-12",
    "model.causal=false",
]
PAIR = [
    "model.positions=relative",
    "model.decoder_layers=2",
    "model.causal=false",
    "model.query_scale=1.0",
    "model.gated=false",
    "model.activation=relu",
]
ROWS = {
    "classify": [{"text": text, "label": "AB"[i % 2]} for i, text in enumerate(WORDS)],
    "multilabel": [
        {"text": text, "labels": [label for label in "ABC" if (i + ord(label)) % 2]}
        for i, text in enumerate(WORDS)
    ],
    "regress": [{"text": text, "x": 3.0 + i, "y": -2.0 * i} for i, text in enumerate(WORDS)],
    "pair": [
        {"text": text, "text_pair": text[::-1], "label": "AB"[i % 2]}
        for i, text in enumerate(WORDS)
    ],
    "tag": [
        {
            "tokens": text.split(),
            "tags": ["A" if word in ("red", "a") else "B" for word in text.split()],
        }
        for text in WORDS
    ],
    "joint": [
        {
            "tokens": t.split(),
            "tags": ["A" if w == "red" else "B" for w in t.split()],
            "label": "XY"[i % 2],
        }
        for i, t in enumerate(WORDS)
    ],
    "parse": [
        {
            "tokens": t.split(),
            "heads": [0, *[1] * (len(t.split()) - 1)],
            "deprels": ["root", *["dep"] * (len(t.split()) - 1)],
        }
        for t in WORDS
    ],
    "seq2seq": [{"source": text, "target": text[::-1]} for text in WORDS],
    "span": [
        {"question": "who?", "context": text, "answers": [{"text": text[:3], "answer_start": 0}]}
        for text in WORDS
    ],
}
OPTIONS = {"regress": ["data.columns.targets=[x,y]"], "mlm": MASK}


def made(
    tmp_path, name: str | None, task: str, *given: str, rows=None, freeze: tuple[str, ...] = ()
) -> jaxsft.Model:
    """A run from the golden model of this name (None: from nothing), whose weights were drawn
    instead of trained, but for those of `freeze`.
    """
    source, own = (
        test_hf_pairs.folder if name in PAIRS else folder,
        any(option.startswith("tokenizer=") for option in given),
    )
    start = (
        [*tiny.MODEL, *([] if own else ["tokenizer=bytes"])]
        if name is None
        else [f"model.pretrained={source(tmp_path / 'in', name)}"]
    )
    if task in ("lm", "mlm", "span_corruption"):
        data = tmp_path / "book.txt"
        data.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
        given = ("data.unit=line", *given)
    else:
        data = tiny.write_lines(tmp_path / f"{task}.jsonl", rows or ROWS[task])
    run = [
        f"task={task}",
        f"data.train={data}",
        *start,
        f"run_dir={tmp_path / 'run'}",
        *FAST,
        *OPTIONS.get(task, ()),
    ]
    parts = components.prepare(setup.resolve(jaxsft.compose(*run, *given)))[0]
    before = flatten(runs.starting_params(parts)) if freeze else {}
    rng, specs = np.random.default_rng(0), flatten(parts.specs)
    kept = lambda path: any(re.fullmatch(pattern, path) for pattern in freeze)
    drawn = [
        before[path] if kept(path) else (0.2 * rng.standard_normal(spec.shape)).astype(np.float32)
        for path, spec in specs.items()
    ]
    (tmp_path / "run").mkdir()
    if name is not None:
        rundir.write_json(tmp_path / "run" / hf.NAME, hf.facts(parts, None))
    return jaxsft.Model(
        runs.Run(
            tmp_path / "run",
            parts,
            jax.tree.unflatten(jax.tree.structure(parts.specs), drawn),
            {},
            0,
        )
    )


def export(model: jaxsft.Model, to, **options):
    return exporting.export(model.run, to, **options)


def encoded(run, row: dict) -> Encoded:
    return run.task.encode_all(
        [run.task.unlabelled(Row(row, "x", 1), run.config.data.columns)], ["x:1"]
    )[0]


def read(run, one: Encoded) -> np.ndarray:
    """What our head says of a text (`[C]`), of each of its tokens (`[S, C]`), or over the
    vocabulary (`[S, V]`).
    """
    model, params = run.run.parts.model, run.params
    ids = jnp.asarray(one.ids)[None]
    types = None if one.types is None else jnp.asarray(one.types)[None]
    where = TokenInfo(jnp.ones_like(ids), jnp.arange(ids.shape[1])[None], types)
    with jax.default_matmul_precision("highest"):
        hidden = model.hidden(params, ids, where)
        if run.task.name in ("lm", "chat"):
            return np.asarray(model.logits(params, hidden)[0])
        head = {"params": params["head"]}
        if run.task.name == "mlm":
            return np.asarray(
                model.logits(params, model.head.apply(head, hidden, method="transform"))[0]
            )
        if run.task.name in ("tag", "span"):
            return np.asarray(model.head.apply(head, hidden)[0])
        found = np.asarray(model.head.apply(head, hidden, where, 1)[0, 0])
    if run.task.name == "regress" or getattr(run.task, "kind", None) == "score":
        mean, deviation = run.task.scale
        return found * deviation + mean
    return found
