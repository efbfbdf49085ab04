"""What was asked for is what runs, or it is an error that says so before anything is trained."""

import dataclasses
import functools
import logging

import jax
import numpy as np
import pytest
import yaml

from jaxsft.commands import hydra_app
from jaxsft.config import compose, schema
from jaxsft.data.records import Chat, LabelledText, Message, Seq2Seq, Text
from jaxsft.data.split_ledger import ledger_entry
from jaxsft.data.tokenizers.tokenizer import OURS, Tokenizer
from jaxsft.errors import ConfigError, DataError
from jaxsft.evaluation import evaluate as evaluation
from jaxsft.rundir import read_json, read_jsonl, write_json
from jaxsft.tasks.specs import SPECS
from jaxsft.training import loop, setup
from tests import tiny
from tests.conftest import LABELS, assert_close, bench, make_config, make_records, short

LONG = "a" * 100  # more than the 64 positions of the model


# --- data
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("task", ["chat", "classify", "lm"])
def test_packing_is_on_or_off_and_says_so(task):  # guards B10
    """Neither way cuts anything, and the ledger of the run tells them apart."""
    for packing in (True, False):
        b = bench(task, data={"packing": packing})
        entry = ledger_entry(b.batches)
        assert (
            (entry["packing"]["max_texts_per_row"] > 1)
            == packing
            == (b.batches[0].example_ids.shape[1] > 1)
        )
        assert (
            entry["rows"]["truncated"] == 0
            and entry["rows"]["kept"] == 13 == entry["packing"]["examples"]
        )
        assert entry["packing"]["real"] == sum(
            np.count_nonzero(b.batches[k].segment_ids) for k in range(len(b.batches))
        )


@pytest.mark.parametrize("packing", [True, False])
def test_only_plain_text_is_cut_into_pieces(packing):  # guards B13, D3, D4
    """A long text of `lm` goes on in the next row, without a second bos; a conversation or a
    labelled text is an error that names it.
    """
    b = bench("lm", records=([Text(LONG)], ["a:1"]), data={"packing": packing})
    arrays = b.batches.split.arrays
    ids = [
        arrays["tokens"][i:j].tolist()
        for i, j in zip(arrays["offsets"][:-1], arrays["offsets"][1:], strict=True)
    ]
    bos, end = 257, 258
    assert (
        ids == [[bos] + [97] * 63, [97] * 37]
        and arrays["targets"].tolist() == [97] * 100 + [end]
        and arrays["loss_weight"].all()
    )
    for task, record in (
        ("chat", Chat((Message("user", "q"), Message("assistant", LONG)))),
        ("classify", LabelledText(LONG, None, "good")),
    ):
        records = make_records(task, 5)
        with pytest.raises(
            DataError,
            match=(
                r"^b:7: 10\d tokens, but a row holds 64 \(1 of 6 rows of train are longer\); raise"
                r" model\.context"
            ),
        ):
            bench(
                task,
                records=([*records[0], record], [*records[1], "b:7"]),
                data={"packing": packing},
            )


@pytest.mark.parametrize("too_long", ["truncate_left", "truncate_right"])
def test_a_cut_conversation_keeps_its_own_mask(too_long):  # guards C8, D2
    """What is trained is decided before the cut: the kept tokens have the weights that they had."""
    record = Chat(
        (
            Message("user", "q" * 30),
            Message("assistant", "a" * 20),
            Message("user", "r" * 10),
            Message("assistant", "b" * 30),
        )
    )
    options = {"too_long": too_long, "require_stop": False, "packing": False}
    whole, cut = (
        bench("chat", records=([record], ["a:1"]), data=options, model={"context": n}).batches.split
        for n in (128, 64)
    )
    assert cut.ledger["rows"]["truncated"] == 1 and len(cut.arrays["tokens"]) == 64 < len(
        whole.arrays["tokens"]
    )
    kept = slice(0, 64) if too_long == "truncate_right" else slice(-64, None)
    for name in ("tokens", "targets", "loss_weight"):
        np.testing.assert_array_equal(cut.arrays[name], whole.arrays[name][kept])
    assert (
        set(cut.arrays["targets"][cut.arrays["loss_weight"] > 0]) <= {97, 98, 258}
        and 0 < (cut.arrays["loss_weight"] > 0).mean() < 1
    )


@pytest.mark.parametrize("blank", ["", " \n", "\u3000"])
def test_a_row_without_text_is_dropped_by_its_task(blank):  # guards D5
    records = {"classify": LabelledText(blank, None, "good"), "lm": Text(blank)}
    for name, record in records.items():
        full, where = make_records(name, 5)
        task = bench(name, 5).parts.task
        assert task.encode_all([*full, record], [*where, "rows.jsonl:6"])[-1] == "empty"
    pair = LabelledText(blank, "words", "good")
    assert bench("classify", 5).parts.task.encode_all([pair], ["rows.jsonl:1"])[0] != "empty"


def test_a_row_that_the_tokenizer_empties_is_dropped_by_its_task():
    """Characters that a normaliser takes away leave a frame and nothing in it."""
    strip = {"type": "Replace", "pattern": {"String": "\u200b"}, "content": ""}
    tokenizer = Tokenizer(Tokenizer.bytes()._document | {"normalizer": strip}, dict(OURS))
    gone = "\u200b"
    records = {
        "classify": LabelledText(gone, None, "good"),
        "lm": Text(gone),
        "seq2seq": Seq2Seq(gone, "x"),
    }
    for name, record in records.items():
        old = bench(name, 5).parts.task
        task = type(old)(old.config, tokenizer, old.state)
        assert (
            task.encode_all([*make_records(name, 5)[0], record], [f"a:{i}" for i in range(6)])[-1]
            == "text_lost"
        )
    assert task.encode_all([Seq2Seq("x", gone)], ["a:1"]) == ["answer_lost"]
    assert not isinstance(task.encode_all([Seq2Seq("x", "")], ["a:1"])[0], str)


def test_a_label_that_training_never_saw_is_named():  # guards D12
    b = bench("classify")
    with pytest.raises(
        DataError,
        match=(
            r"^held\.jsonl:2: label 'ugly' is not in the vocabulary of 3 labels \(bad, fair,"
            r" good\); add it by task\.labels$"
        ),
    ):
        b.parts.split(
            "validation",
            (
                [LabelledText("x", None, "bad"), LabelledText("y", None, "ugly")],
                ["held.jsonl:1", "held.jsonl:2"],
            ),
        )
    wider = bench("classify", task={"labels": ["bad", "fair", "good", "ugly"]})
    wider.parts.split("validation", ([LabelledText("y", None, "ugly")], ["held.jsonl:2"]))


# --- evaluation
# --------------------------------------------------------------------------------------------------
def numbers(b):
    run = lambda batch: b.evaluate(*b.apart, batch, b.hyper)
    return evaluation.evaluate(
        run,
        b.parts.task,
        b.batches,
        b.hyper["terms"],
    ).numbers


@pytest.mark.parametrize(
    "task, options",
    [
        ("chat", {"chunk": 16}),
        ("lm", {"chunk": "none", "z_loss": 0.1}),
        *(("classify", x) for x in ("mse", "huber")),
    ],
)
def test_evaluation_gives_the_metrics_that_the_task_declares(task, options):  # guards E7, E8
    """All of them whatever the loss and however it is computed; so a metric can be checked by its
    name, before any data is read.
    """
    b = bench(task, 5, **({"task": {"loss": options}} if task == "classify" else {"loss": options}))
    generated = {"exact_match", "stopped", "generated_rows"} if task == "chat" else set()
    assert set(numbers(b)) | generated == set(b.parts.task.metric_names(b.config)) and all(
        np.isfinite(list(numbers(b).values()))
    )


@pytest.mark.parametrize(
    "task, loss",
    short(
        [("chat", None), ("lm", None), *(("classify", name) for name in SPECS["classify"].losses)],
        ("chat", None),
        ("classify", "cross_entropy"),
        ("classify", "mse"),
    ),
)
def test_no_loss_knows_its_batch(task, loss, tmp_path):  # guards A2, A4, A5
    """Terms, totals and states of a batch are the sums of those of its rows, for every loss there
    is: nothing but the step divides.
    """
    smoothing = {"label_smoothing": 0.1} | ({} if loss else {"z_loss": 0.01})
    options = {"loss": loss}
    if loss == "forward_correction":
        matrix = (0.7 * np.eye(3) + 0.1).tolist()
        options["transition"] = str(tmp_path / "transition.json")
        write_json(tmp_path / "transition.json", {"labels": list(LABELS), "matrix": matrix})
    b = bench(
        task,
        5,
        loss=smoothing,
        model={"layers": 1},
        train={"batch_size": 8},
        data={"packing": False},
        **({"task": options} if loss else {}),
    )
    whole = b.evaluate(*b.apart, b.batches[0], b.hyper)[0]
    rows = [
        b.evaluate(*b.apart, jax.tree.map(lambda x, i=i: x[i : i + 1], b.batches[0]), b.hyper)[0]
        for i in range(8)
    ]
    assert_close(jax.tree.map(lambda *x: sum(x), *rows), whole, rtol=2e-6, atol=1e-6)
    assert all(value > 0 for value in jax.tree.leaves(whole[:2]))


@pytest.mark.parametrize("metric", ["validation/f1", "test/loss", "loss", "validation/exact_match"])
def test_a_metric_that_will_not_be_there_is_refused_at_once(metric):  # guards E8, E9
    with pytest.raises(ConfigError, match=rf"^evaluation\.metric={metric}: "):
        make_config("chat", data={"train": "no such file"}, evaluation={"metric": metric})


@pytest.mark.parametrize("task", ["chat", "lm"])
def test_evaluation_never_hands_out_logits_of_tokens(task):  # guards E6
    b = bench(task, 5)
    shapes = jax.eval_shape(b.program.evaluate, *b.apart, b.batches[0], b.hyper)
    assert all(b.parts.model.vocab not in x.shape and x.ndim <= 2 for x in jax.tree.leaves(shapes))


def test_a_test_split_chooses_nothing(tmp_path):  # guards E9
    """Without validation data the last weights are the result; the test split is evaluated once, at
    the end.
    """
    files = tiny.data(tmp_path)
    data = {
        "train": str(files / "chat.jsonl"),
        "validation": None,
        "test": str(files / "chat_held.jsonl"),
    }
    small = {
        "layers": 1,
        "embed": 8,
        "heads": 1,
        "kv_heads": 1,
        "head_dim": 8,
        "mlp": 8,
        "context": 64,
    }
    config = tiny.config(
        files,
        tmp_path / "run",
        data=data,
        model=small,
        train={"duration": "4steps", "batch_size": 4},
        evaluation={"generate": "never", "every": "1steps"},
    )
    result = loop.train(config).numbers
    assert {line["kind"] for line in read_jsonl(tmp_path / "run" / "metrics.jsonl")} == {"train"}
    assert result["train/best_step"] == result["train/steps"] == 4 and np.isfinite(
        result["test/loss"]
    )
    assert read_json(tmp_path / "run" / "result.json") == result and not any(
        k.startswith("validation/") for k in result
    )
    with pytest.raises(ConfigError, match="patience"):
        setup.resolve(dataclasses.replace(config, evaluation=schema.EvaluationConfig(patience=1)))


# --- options
# --------------------------------------------------------------------------------------------------
def everything(config):
    yield config
    for f in dataclasses.fields(config):
        if dataclasses.is_dataclass(value := getattr(config, f.name)):
            yield from everything(value)


@functools.cache
def composed(*arguments):
    """The config that the command line comes to."""
    out = []
    hydra_app.run([*arguments, "data.train=a.jsonl"], lambda config: out.append(config) or 0)
    return out[0]


def test_a_config_cannot_be_changed():  # guards H3
    for config in (make_config(), composed()):
        for part in everything(config):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(part, dataclasses.fields(part)[0].name, None)
    assert not [
        part
        for part in everything(composed())
        for f in dataclasses.fields(part)
        if isinstance(getattr(part, f.name), list)
    ]


@pytest.mark.parametrize(
    "argument",
    [
        "optim.learning_rat=0.1",
        "model.layer=3",
        "data.packingg=true",
        "train.gradient_checkpointing=true",
    ],
)
def test_an_unknown_option_is_an_error(argument):  # guards H5
    key = argument.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"{key}: unknown option"):
        composed(argument)
    with pytest.raises(ConfigError, match=rf"{key}: unknown option"):
        compose.override(make_config(), [argument])
    values = compose.to_dict(make_config())
    group, name = key.split(".")
    values[group][name] = 1
    with pytest.raises(ConfigError, match=rf"{key}: unknown option"):
        compose.typed(values)


WORDS = [
    ("optim.learning_rate", "1e-4", 1e-4),
    ("optim.learning_rate", "1E-4", 1e-4),
    ("optim.learning_rate", "1", 1.0),
    *(("data.packing", word, False) for word in ("off", "no", "false", "False")),
    *(("data.packing", word, True) for word in ("on", "yes", "true")),
    ("model.remat", "true", True),
    ("optim.clip_norm", "null", None),
]


@pytest.mark.parametrize("key, text, value", WORDS)
def test_words_mean_the_same_in_a_file_and_on_the_command_line(key, text, value):  # guards H5, H8
    """And what is given is what the run's own config.yaml says, and what comes back from it."""
    group, name = key.split(".")
    config = composed(f"{key}={text}")
    values = compose.to_dict(composed())
    values[group][name] = yaml.safe_load(f"x: {text}")["x"]
    for found in (
        config,
        compose.typed(values),
        compose.override(composed(), [f"{key}={text}"]),
        compose.typed(yaml.safe_load(compose.to_yaml(config))),
    ):
        assert getattr(getattr(found, group), name) == value and type(
            getattr(getattr(found, group), name)
        ) is type(value)


@pytest.mark.parametrize(
    "argument",
    ["data.packing=maybe", "optim.learning_rate=fast", "model.layers=2.5", "model.layers=two"],
)
def test_a_word_of_the_wrong_type_is_an_error(argument):  # guards H8
    with pytest.raises(ConfigError, match=argument.partition("=")[0]):
        composed(argument)
    with pytest.raises(ConfigError, match=argument.partition("=")[0]):
        compose.override(composed(), [argument])


def test_warnings_of_libraries_are_not_silenced():
    """That no GPU was found, say: composing a config leaves the loggers of others as they were."""
    levels = lambda: {
        name: (log.disabled, log.getEffectiveLevel())
        for name in ("", "jax", "jax._src.xla_bridge")
        if (log := logging.getLogger(name))
    }
    before = levels()
    composed("seed=7")
    assert levels() == before and before["jax._src.xla_bridge"] == (False, logging.WARNING)
