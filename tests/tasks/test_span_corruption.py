"""task=span_corruption: what it needs of a tokenizer and of a model, and a run."""

import pytest

from jaxsft import tasks
from jaxsft.config import schema
from jaxsft.data.file_records import Records
from jaxsft.data.records import Text
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.training.components import Components, build_components
from tests import conftest, tiny

BYTES = Tokenizer.bytes()
T5 = BYTES.with_added([f"<extra_id_{i}>" for i in range(4)])


@pytest.fixture(autouse=True)
def task(monkeypatch):
    monkeypatch.setitem(conftest.TASKS, "span_corruption", schema.SpanCorruptionTask)


def parts_of(tokenizer, data=None, **task) -> Components:
    config = conftest.make_config(
        "span_corruption",
        model={"decoder_layers": 1, "layers": 1, "causal": False},
        task=task,
        data=data or {},
    )
    return build_components(config, tokenizer, {})


def test_examples():
    parts = parts_of(T5, share=0.5, mean_length=2.0)
    batches = parts.batches(
        parts.split("train", Records([Text("abcdefgh")], ["rows.txt:1"])), training=True
    )
    batch = batches[0]
    source = T5.decode(batch.source.tokens[0][batch.source.segment_ids[0] > 0], skip_special=False)
    target = T5.decode(batch.targets[0][batch.segment_ids[0] > 0], skip_special=False)
    assert (
        "<extra_id_1>" in source
        and source.endswith("<|end|>")
        and target.startswith("<extra_id_0>")
        and target.endswith("<|end|>")
    )
    assert batch.tokens[0, 0] == T5.bos_id


def test_what_is_needed():
    with pytest.raises(
        ConfigError,
        match=(
            r"task.sentinel=<extra_id_\{i\}>: the tokenizer has no such tokens; set"
            r" tokenizer.added="
        ),
    ):
        parts_of(BYTES)
    with pytest.raises(
        ConfigError, match=r"a decoder writes what was taken out; set model=encoder_decoder"
    ):
        conftest.make_config("span_corruption", model={"causal": False})
    with pytest.raises(ConfigError, match="task=span_corruption cuts no texts"):
        parts_of(T5, data={"too_long": "truncate_right"})
    with pytest.raises(ConfigError, match=r"task.mean_length=0.5"):
        parts_of(T5, mean_length=0.5)
    assert parts_of(T5, start=["<|user|>"]).task.spans.start == (T5.special_id("<|user|>"),)
    assert "span_corruption" in tasks.NAMES


@pytest.mark.slow
def test_a_run(tmp_path):
    files = tiny.data(tmp_path)
    given = [
        "task=span_corruption",
        "model=encoder_decoder",
        "model.decoder_layers=1",
        "tokenizer.vocab_size=300",
        f"data.train={files / 'book.txt'}",
    ]
    code, _, err = tiny.jaxsft(
        "train",
        *given,
        f"data.validation={files / 'book.txt'}",
        f"run_dir={tmp_path / 'run'}",
        *tiny.FAST[:-2],
        "mesh.data=1",
    )
    assert code == 0, err
    assert "validation/perplexity" in (tmp_path / "run" / "result.json").read_text()
