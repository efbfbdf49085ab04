"""Every task from every family says in transformers what it says here: the oracle is the library
itself (jaxsft[torch]).
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import jaxsft
from jaxsft.data.formats import Row
from jaxsft.data.records import Seq2Seq
from jaxsft.models.heads import pool as pooled
from tests.hf.families.hf import one_text
from tests.training.exporting import (
    ENCODERS,
    NORMED,
    PAIR,
    ROWS,
    SCRATCH,
    TEXT,
    WORDS,
    encoded,
    export,
    made,
    read,
)

pytestmark = pytest.mark.slow
transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

# of dimensions of a head that turn
PAIRS = {"llama": 3, "gemma3": 4, "gpt_neox": 2, "modernbert": 3}
TOKENS = {name: NORMED if name.startswith("modernbert") else [] for name in (*TEXT, "gpt_neox")}
# families without a class for tags, and for spans
UNTAGGED, UNASKED = ("gemma3", "olmo2"), ("gemma2", "gemma3", "phi3", "olmo2")


def theirs(folder, kind: str, ids, types=None) -> np.ndarray:
    """The logits of one text; those of a span are its starts and ends."""
    model = (
        getattr(transformers, f"AutoModelFor{kind}")
        .from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        .eval()
    )
    given = {"input_ids": torch.tensor(np.asarray(ids, np.int64))[None]}
    if types is not None and model.config.model_type in ("bert", "electra"):
        given["token_type_ids"] = torch.tensor(np.asarray(types, np.int64))[None]
    with torch.no_grad():
        out = model(**given)
    found = (
        torch.stack([out.start_logits, out.end_logits], -1)
        if hasattr(out, "start_logits")
        else out.logits
    )
    return found[0].numpy()


def near(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def as_text(folder, text: str, pair: str | None = None) -> list[int]:
    return transformers.AutoTokenizer.from_pretrained(folder)(text, pair)["input_ids"]


@pytest.mark.parametrize("task", ["classify", "multilabel", "regress"])
@pytest.mark.parametrize("name", TEXT)
def test_texts(name, task, tmp_path):  # guards G3
    given = [
        *TEXT[name],
        *(
            ["task.standardize=false"]
            if task == "regress" and "task.bias=false" in TEXT[name]
            else []
        ),
    ]
    export(run := made(tmp_path, name, task, *given), tmp_path / "out")
    one = encoded(run, {"text": WORDS[1]})
    assert as_text(tmp_path / "out", WORDS[1]) == one.ids.tolist()
    near(theirs(tmp_path / "out", "SequenceClassification", one.ids), read(run, one))
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert config.num_labels == {"classify": 2, "multilabel": 3, "regress": 2}[task]


@pytest.mark.parametrize("name", [name for name in TOKENS if name not in UNTAGGED])
def test_tags(name, tmp_path):  # guards G3
    export(run := made(tmp_path, name, "tag", *TOKENS[name]), tmp_path / "out")
    one = encoded(run, {"tokens": WORDS[1].split()})
    near(theirs(tmp_path / "out", "TokenClassification", one.ids), read(run, one))


@pytest.mark.parametrize("name", ["t5", "t5_v1_1"])
def test_tags_of_an_encoder_without_its_decoder(name, tmp_path):  # guards G3
    done = export(run := made(tmp_path, name, "tag", "model.part=encoder"), tmp_path / "out")
    one = encoded(run, {"tokens": WORDS[1].split()})
    assert done["class"] == "T5ForTokenClassification"
    near(theirs(tmp_path / "out", "TokenClassification", one.ids), read(run, one))


@pytest.mark.parametrize("name", ["t5_v1_1", "bart"])
def test_an_encoder_without_its_decoder(name, tmp_path):  # guards G3
    """The body of a classifier."""
    done = export(
        run := made(tmp_path, name, "classify", "model.part=encoder"), tmp_path / "out", head="body"
    )
    one = encoded(run, {"text": WORDS[1]})
    library = transformers.models.bart.modeling_bart if name == "bart" else transformers
    model = (
        getattr(library, done["class"])
        .from_pretrained(tmp_path / "out", attn_implementation="eager")
        .eval()
    )
    with torch.no_grad():
        found = (
            model(input_ids=torch.tensor(one.ids.astype(np.int64))[None])
            .last_hidden_state[0]
            .numpy()
        )
    ids = jnp.asarray(one.ids)[None]
    near(found, np.asarray(run.run.parts.model.hidden(run.params, ids, one_text(ids.shape[1]))[0]))


@pytest.mark.parametrize("name", [name for name in TOKENS if name not in UNASKED])
def test_spans(name, tmp_path):  # guards G3
    export(run := made(tmp_path, name, "span", *TOKENS[name]), tmp_path / "out")
    one = encoded(run, {"question": "who?", "context": WORDS[1]})
    assert as_text(tmp_path / "out", "who?", WORDS[1]) == one.ids.tolist()
    near(theirs(tmp_path / "out", "QuestionAnswering", one.ids, one.types), read(run, one))


@pytest.mark.parametrize("name", [*ENCODERS, "bert_relu"])
def test_hidden_words(name, tmp_path):  # guards G3
    given = ["task.activation=relu"] if name == "bert_relu" else []
    export(run := made(tmp_path, name, "mlm", *given), tmp_path / "out")
    one = encoded(run, {"text": WORDS[1]})
    assert as_text(tmp_path / "out", WORDS[1]) == one.ids.tolist()
    near(theirs(tmp_path / "out", "MaskedLM", one.ids), read(run, one))


def test_hidden_words_of_an_encoder_from_nothing(tmp_path):  # guards G3
    """With an output matrix of its own."""
    done = export(
        run := made(tmp_path, None, "mlm", *SCRATCH, "model.types=2", "model.tied=false"),
        tmp_path / "out",
    )
    one = encoded(run, {"text": WORDS[1]})
    assert (
        done["class"] == "BertForMaskedLM"
        and as_text(tmp_path / "out", WORDS[1]) == one.ids.tolist()
    )
    near(theirs(tmp_path / "out", "MaskedLM", one.ids), read(run, one))


TASKS = {"tag": "TokenClassification", "span": "QuestionAnswering", "mlm": "MaskedLM"}
TASKS |= dict.fromkeys(("classify", "regress"), "SequenceClassification")
INPUTS = {"tag": {"tokens": WORDS[1].split()}, "span": {"question": "who?", "context": WORDS[1]}}
CHANGES = [
    ("classify", "task.pool=first"),
    ("classify", "task.activation=relu"),
    ("classify", "task.bias=false"),
    ("tag", "task.align=all"),
]


@pytest.mark.parametrize("task, given", [*((task, None) for task in TASKS), *CHANGES])
@pytest.mark.parametrize("name", ["modernbert", None])
# guards G3
def test_every_setting_of_a_head_computes_the_same_there_and_here(name, task, given, tmp_path):
    """With the standard head of a class and what it leaves to choose; of an encoder from nothing
    too.
    """
    start = [] if name else ["model=encoder", "model.layers=2"]
    export(run := made(tmp_path, name, task, *start, *([given] if given else [])), tmp_path / "out")
    one = encoded(run, INPUTS.get(task, {"text": WORDS[1]}))
    ours = read(run, one)
    near(theirs(tmp_path / "out", TASKS[task], one.ids, one.types), ours)
    if task != "mlm":  # which is no task to be asked
        near(read(jaxsft.load(tmp_path / "out", "precision=fp32"), one), ours)


@pytest.mark.parametrize(
    "loss, rows",
    [
        ("cross_entropy", None),
        ("mse", [{"text": t, "text_pair": t[::-1], "score": 2.0 + i} for i, t in enumerate(WORDS)]),
    ],
)
@pytest.mark.parametrize("name", ["bert", "roberta", "deberta", "modernbert"])
def test_pairs(name, loss, rows, tmp_path):  # guards G3
    export(
        run := made(
            tmp_path,
            name,
            "pair",
            *TEXT[name],
            f"task.loss={loss}",
            *(["data.columns.score=score"] if rows else []),
            rows=rows,
        ),
        tmp_path / "out",
    )
    row = Row((rows or ROWS["pair"])[1], "x", 1)
    one = run.task.encode_all([run.task.record(row, run.config.data.columns)], ["x:1"])[0]
    assert as_text(tmp_path / "out", WORDS[1], WORDS[1][::-1]) == one.ids.tolist()
    near(theirs(tmp_path / "out", "SequenceClassification", one.ids, one.types), read(run, one))


ORIGINAL = "factor=4 original=32"
SCALINGS = (
    "linear factor=4",
    "ntk factor=4",
    f"yarn {ORIGINAL} fast=4",
    f"llama3 {ORIGINAL}",
    f"longrope {ORIGINAL}",
)


@pytest.mark.parametrize("kind", SCALINGS)
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt_neox", "modernbert"])
def test_longer_contexts(name, kind, tmp_path):  # guards G9
    """Beyond the context that the source was made for (128)."""
    kind, *options = kind.split()
    given = [
        f"model.rope_scaling.kind={kind}",
        *(f"model.rope_scaling.{option}" for option in options),
        "model.context=512",
    ]
    if kind == "longrope":
        given.append(f"model.rope_scaling.factors={[1.0 + 0.5 * i for i in range(PAIRS[name])]}")
    task = "classify" if name == "modernbert" else "lm"
    export(
        run := made(tmp_path, name, task, *given, *(TEXT[name] if task == "classify" else [])),
        tmp_path / "out",
    )
    text = " ".join(WORDS * 5)
    one = encoded(run, {"text": text})
    assert len(one.ids) > 300
    near(
        theirs(
            tmp_path / "out",
            "SequenceClassification" if task == "classify" else "CausalLM",
            one.ids,
        ),
        read(run, one),
    )


@pytest.mark.parametrize(
    "name, pool, head",
    [
        ("bert", "mean", "linear"),
        ("bert", "max", "dense"),
        ("llama", "last", "linear"),
        ("modernbert", "first", "linear"),
        ("t5", "mean", "linear"),
    ],
)
def test_vectors(name, pool, head, tmp_path):  # guards G3
    """A bi-encoder, as sentence-transformers loads it."""
    library = pytest.importorskip("sentence_transformers")
    rows = [{"text": text, "text_pair": text[::-1]} for text in WORDS]
    given = ["task.encoder=bi", "task.loss=contrastive", f"task.pool={pool}", f"task.head={head}"]
    given += ["model.part=encoder"] if name == "t5" else []
    export(run := made(tmp_path, name, "pair", *given, rows=rows), tmp_path / "out")
    found = library.SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(list(WORDS))
    for text, vector in zip(WORDS, found, strict=True):
        ids = np.array(run.tokenizer.wrap(run.tokenizer.encode(text)).ids)
        where = one_text(len(ids))
        hidden = run.run.parts.model.hidden(run.params, jnp.asarray(ids)[None], where)
        expected = np.asarray(pooled(hidden, where.segment_ids, where.positions, 1, pool)[0, 0])
        if head == "dense":
            dense = run.params["head"]["dense"]
            expected = np.tanh(expected @ dense["w"] + dense["b"])
        near(vector, expected / np.linalg.norm(expected))


def test_a_decoder_reads_its_source_as_in_training(tmp_path):  # guards C3, G3
    """An encoder-decoder from nothing."""
    export(
        run := made(tmp_path, None, "seq2seq", *PAIR, "task.scores=[exact_match]"), tmp_path / "out"
    )
    source = as_text(tmp_path / "out", WORDS[0])
    assert source == run.task.prompt(Seq2Seq(WORDS[0], ""), "")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").eval()
    target = [model.config.decoder_start_token_id, 65, 66, 67]
    with torch.no_grad():
        found = (
            model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([target]))
            .logits[0]
            .numpy()
        )
    own, both = (
        run.run.parts.model,
        [(jnp.asarray(ids)[None], one_text(len(ids))) for ids in (target, source)],
    )
    hidden = own.hidden(run.params, *both[0], source=both[1])
    near(found, np.asarray(own.logits(run.params, hidden)[0]))
