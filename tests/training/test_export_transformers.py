"""Every task from every family says in transformers what it says here: the oracle is the library itself (jaxsft[torch])."""

from __future__ import annotations

import numpy as np
import pytest

from jaxsft.data.formats import Row
from tests.training.exporting import ENCODERS, NORMED, ROWS, TEXT, WORDS, encoded, export, made, read

pytestmark = pytest.mark.slow
transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

TOKENS = {name: NORMED if name.startswith("modernbert") else [] for name in (*TEXT, "gpt_neox")}
UNTAGGED, UNASKED = ("gemma3", "olmo2"), ("gemma2", "gemma3", "phi3", "olmo2")  # families without a class for tags, and for spans


def theirs(folder, kind: str, ids, types=None) -> np.ndarray:
    """The logits of one text; those of a span are its starts and ends."""
    model = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    given = {"input_ids": torch.tensor(np.asarray(ids, np.int64))[None]}
    if types is not None and model.config.model_type in ("bert", "electra"):
        given["token_type_ids"] = torch.tensor(np.asarray(types, np.int64))[None]
    with torch.no_grad():
        out = model(**given)
    found = torch.stack([out.start_logits, out.end_logits], -1) if hasattr(out, "start_logits") else out.logits
    return found[0].numpy()


def near(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def as_text(folder, text: str, pair: str | None = None) -> list[int]:
    return transformers.AutoTokenizer.from_pretrained(folder)(text, pair)["input_ids"]


@pytest.mark.parametrize("task", ["classify", "multilabel", "regress"])
@pytest.mark.parametrize("name", TEXT)
def test_texts(name, task, tmp_path):  # guards G3
    given = [*TEXT[name], *(["task.standardize=false"] if task == "regress" and "task.bias=false" in TEXT[name] else [])]
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


@pytest.mark.parametrize(
    "loss, rows", [("cross_entropy", None), ("mse", [{"text_a": t, "text_b": t[::-1], "score": 2.0 + i} for i, t in enumerate(WORDS)])]
)
@pytest.mark.parametrize("name", ["bert", "roberta", "deberta", "modernbert"])
def test_pairs(name, loss, rows, tmp_path):  # guards G3
    export(run := made(tmp_path, name, "pair", *TEXT[name], f"task.loss={loss}", rows=rows), tmp_path / "out")
    row = Row((rows or ROWS["pair"])[1], "x", 1)
    one = run.task.encode_all([run.task.record(row, run.config.data.columns)], ["x:1"])[0]
    assert as_text(tmp_path / "out", WORDS[1], WORDS[1][::-1]) == one.ids.tolist()
    near(theirs(tmp_path / "out", "SequenceClassification", one.ids, one.types), read(run, one))
