"""From Python: the numbers, predictions and answers of the command line, without its exits; and
nothing is compiled twice.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import hydra
import jax
import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra

import jaxsft
from jaxsft import rundir
from jaxsft.config import overrides
from jaxsft.reports import outputs
from jaxsft.runlock import RunLock
from tests import tiny


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny.data(tmp_path_factory.mktemp("data"))


def trained(files, folder, task, stem):
    data = {"train": files / f"{stem}.jsonl", "test": files / f"{stem}_held.jsonl"}
    return jaxsft.train(
        f"task={task}", *tiny.FAST, "generate.allow_cut=true", data=data, run_dir=folder / "run"
    )


@pytest.fixture(scope="module")
def classified(files, tmp_path_factory):
    return trained(files, tmp_path_factory.mktemp("classify"), "classify", "labels")


@pytest.fixture(scope="module")
def chatted(files, tmp_path_factory):
    return trained(files, tmp_path_factory.mktemp("chat"), "chat", "chat")


@pytest.fixture(scope="module")
def read_on(files, tmp_path_factory):
    return jaxsft.train(
        "task=lm",
        *tiny.FAST,
        data={"train": files / "book.txt"},
        run_dir=tmp_path_factory.mktemp("lm") / "run",
    )


def command(*arguments):
    code, out, err = tiny.jaxsft(*map(str, arguments))
    assert code == 0, err
    return out


class Compilations:
    """Counts programs that are compiled, or fetched from the persistent cache, inside the block."""

    def __enter__(self):
        self.count, self.open = 0, True

        def heard(name, *_, **__):
            self.count += self.open and name in (
                "/jax/core/compile/backend_compile_duration",
                "/jax/core/compile/jaxpr_to_mlir_module_duration",
            )

        jax.monitoring.register_event_duration_secs_listener(heard)
        return self

    def __exit__(self, *_):
        self.open = False


# --- configs
# --------------------------------------------------------------------------------------------------
def test_import_is_free_of_jax():
    code = (
        "import sys, jaxsft; dir(jaxsft); print({'jax', 'hydra'} & {*sys.modules}); jaxsft.train;"
        " print({'jax', 'hydra'} <= {*sys.modules})"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "set()\nTrue\n"
    )


def test_values_compose_to_what_overrides_compose_to():
    text = [
        "task=classify",
        "data.train=it's a=b, 中文 (x).csv",
        "optim=muon",
        "optim.learning_rate=1e-3",
        "seed=3",
        "train.ema=null",
    ]
    text += [
        "train.freeze=[embed/.*,'layers/[0-1]/.*']",
        "optim.lr_groups=[{pattern: 'head/.*', factor: 0.5}]",
        "data.packing=false",
        "precision=fp32",
    ]
    values = jaxsft.compose(
        task="classify",
        data={"train": "it's a=b, 中文 (x).csv", "packing": False},
        optim="muon",
        **{"optim.learning_rate": 1e-3, "optim.lr_groups": [{"pattern": "head/.*", "factor": 0.5}]},
        seed=3,
        train={"ema": None, "freeze": ("embed/.*", "layers/[0-1]/.*")},
        precision="fp32",
    )
    assert (
        jaxsft.compose(*text) == values
        and values.data.train == "it's a=b, 中文 (x).csv"
        and values.seed == 3
    )
    assert jaxsft.compose(*text, seed=4).seed == 4  # values come after
    assert jaxsft.compose("experiment=demo").train.duration == "5epochs"
    # NumPy scalars
    rates = [
        jaxsft.compose(optim={"learning_rate": rate}).optim.learning_rate
        for rate in np.geomspace(1e-4, 1e-2, 3)
    ]
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2])
    variables = jaxsft.compose(
        task={"variables": {"mood": "kind, 'soft'", "deep": False}}
    ).task.variables
    assert variables == {"mood": "kind, 'soft'", "deep": False}


@pytest.mark.parametrize("text", ["a\\", "a\\'b", "'q'", "x,y", "[1]", "null ", " a", "#"])
def test_text_is_taken_as_it_stands(text):
    assert jaxsft.compose(data={"train": text}).data.train == text


def test_composing_leaves_an_application_of_hydra_alone():
    with hydra.initialize_config_dir(str(overrides.config_folder()), version_base="1.3"):
        jaxsft.compose("task=lm")
        assert GlobalHydra.instance().is_initialized()
        assert hydra.compose("config", ["task=classify"]).task.name == "classify"
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: jaxsft.compose("seed"), "seed: expected key=value"),
        (lambda: jaxsft.compose("optim.lr=1"), "did you mean optim.learning_rate"),
        (lambda: jaxsft.compose(sede=1), "sede: unknown option"),
        (lambda: jaxsft.compose(task="clasify"), "task=clasify: unknown; there are chat"),
        (lambda: jaxsft.compose(seed=object()), "an option cannot be a object"),
        (lambda: jaxsft.compose(seed="one"), "seed: "),
        (lambda: jaxsft.train(jaxsft.compose("task=lm"), seed=1), "give a Config, or overrides"),
        (lambda: jaxsft.train("task=lm"), "no training data"),
        (lambda: jaxsft.load("nowhere"), "nowhere: not a run directory"),
    ],
)
def test_what_is_wrong_is_an_error_of_ours(call, message):
    with pytest.raises(jaxsft.ConfigError) as caught:
        call()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_batches_are_those_that_are_trained_on(classified, files):
    config = jaxsft.compose("task=classify", *tiny.FAST, data={"train": files / "labels.jsonl"})
    batches, tokenizer = jaxsft.batches(config)
    manifest = rundir.read_json(classified.run_dir / "manifest.json")
    ledger = rundir.read_json(classified.run_dir / "ledger.json")["train"]["packing"]
    assert tokenizer.digest == manifest["tokenizer"] and batches[0].tokens.shape == (
        batches.batch_size,
        ledger["row_length"],
    )
    texts = {row["text"].lower() for row in rundir.read_jsonl(files / "labels.jsonl")}
    first = batches[0]
    read = [
        tokenizer.decode(first.tokens[row][first.segment_ids[row] == 1])
        for row in range(len(first.tokens))
        if (first.segment_ids[row] == 1).any()
    ]
    assert read and set(read) <= texts  # in lower case: the tokenizer of task=classify


# --- the same as the commands
# --------------------------------------------------------------------------------------------------
def test_a_run_is_that_of_the_command(classified, files, tmp_path):
    given = (
        "task=classify",
        f"data.train={files / 'labels.jsonl'}",
        f"data.test={files / 'labels_held.jsonl'}",
        "generate.allow_cut=true",
        *tiny.FAST,
    )
    command("train", *given, f"run_dir={tmp_path / 'run'}")
    assert tiny.outcome(classified.run_dir) == tiny.outcome(tmp_path / "run")
    assert (classified.run_dir / "report.md").is_file() and classified.numbers == rundir.read_json(
        classified.run_dir / "result.json"
    )


def test_the_report_is_written_before_another_may_write(files, tmp_path, monkeypatch):
    tried, write = [], outputs.write_all

    def watched(run_dir):
        with pytest.raises(jaxsft.JaxsftError, match="is writing to this run directory"):
            RunLock(run_dir)
        tried.append(write(run_dir))

    monkeypatch.setattr(outputs, "write_all", watched)
    jaxsft.train(
        "task=lm",
        *tiny.FAST,
        "train.duration=1steps",
        data={"train": files / "book.txt"},
        run_dir=tmp_path / "run",
    )
    assert len(tried) == 1 and (tmp_path / "run" / "report.md").is_file()
    RunLock(tmp_path / "run").release()


def test_evaluation_is_that_of_the_command(classified, chatted, files):
    for result, stem, more in (
        (classified, "labels_held", ()),
        (chatted, "chat_held", ("evaluation.generate=end", "generate.max_new_tokens=auto")),
    ):
        numbers = json.loads(
            command("eval", f"run={result.run_dir}", f"data.path={files / stem}.jsonl", *more)
        )
        model = jaxsft.load(result, *more)
        from_file, from_rows = (
            model.evaluate(files / f"{stem}.jsonl"),
            model.evaluate(rundir.read_jsonl(files / f"{stem}.jsonl")),
        )
        assert {f"{stem}/{name}": value for name, value in from_file.items()} == numbers
        assert from_rows == from_file and from_file["loss"] == pytest.approx(
            result.numbers["test/loss"], rel=1e-6
        )
    assert numbers["chat_held/generated_rows"] == 12


def test_predictions_are_those_of_the_command(classified, chatted, files, tmp_path):
    texts = [row["text"] for row in rundir.read_jsonl(files / "labels_held.jsonl")]
    for result, field in ((classified, "text"), (chatted, "prompt")):
        tiny.write_lines(
            tmp_path / "in.jsonl", [{field: text, "id": i} for i, text in enumerate(texts)]
        )
        command(
            "predict",
            f"run={result.run_dir}",
            f"input={tmp_path / 'in.jsonl'}",
            f"output={tmp_path / 'out.jsonl'}",
        )
        lines, model = rundir.read_jsonl(tmp_path / "out.jsonl"), jaxsft.load(result.run_dir)
        assert model.predict([{field: text, "id": i} for i, text in enumerate(texts)]) == lines
        assert model.predict(texts) == [
            {k: v for k, v in line.items() if k != "id"} for line in lines
        ]
        assert model.predict([]) == []
    empty, whole = jaxsft.load(classified).predict(["", texts[0]])
    # told, not left out
    assert empty == {"text": "", "prediction": None, "dropped": "empty"} and whole["prediction"]


def test_a_prediction_overwrites_no_column(classified):
    model = jaxsft.load(classified)
    # no field of a classifier's prediction
    assert model.predict([{"text": "a", "tokens": 3}])[0]["tokens"] == 3
    with pytest.raises(
        jaxsft.DataError,
        match="rows:1: has a column 'prediction', which the prediction would overwrite",
    ):
        model.predict([{"text": "a", "prediction": "b"}])


def test_answers_are_those_of_the_command(chatted, read_on):
    for result in (chatted, read_on):
        model, text = jaxsft.load(result), "translate: red cat"
        for given, options in (
            ((), {}),
            (
                ("generate.temperature=2.0", "seed=5", "generate.max_new_tokens=7"),
                {"temperature": 2.0, "seed": 5},
            ),
        ):
            out = command("generate", f"run={result.run_dir}", f"prompt={text}", *given)
            answer = model.generate(text, **options, **({"max_new_tokens": 7} if given else {}))
            assert answer + "\n" == out and isinstance(answer, str)
        answers = model.generate([text, "b", "c"])
        assert (
            len(answers) == 3
            and answers[0] == model.generate([text])[0]
            and model.generate([]) == []
        )


def test_conversations_are_rendered_by_the_template(chatted):
    model, ask = jaxsft.load(chatted), {"role": "user", "content": "translate: red cat"}
    assert model.generate([ask]) == model.generate(ask["content"])
    longer = [
        {"role": "system", "content": "be kind"},
        ask,
        {"role": "assistant", "content": "chat rouge"},
        ask,
    ]
    one, two = model.generate([longer, [ask]], max_new_tokens=3)
    assert two == model.generate([ask], max_new_tokens=3) and isinstance(one, str)
    [line] = model.predict([{"messages": [*longer, {"role": "assistant", "content": ""}]}])
    assert line["prediction"] == model.generate(longer)


def test_a_model_is_what_its_errors_say(classified, chatted, read_on, files):
    for call, kind, message in (
        (
            lambda: jaxsft.load(classified).generate("x"),
            jaxsft.ConfigError,
            "task=classify generates nothing",
        ),
        (
            lambda: jaxsft.load(classified, "model.layers=9"),
            jaxsft.ConfigError,
            "model.layers: cannot be changed for a trained run",
        ),
        (
            lambda: jaxsft.load(chatted).generate("x", temperature=-1),
            jaxsft.ConfigError,
            "generate.temperature=-1",
        ),
        (
            lambda: jaxsft.load(chatted).generate("x", temperature="hot"),
            jaxsft.ConfigError,
            "generate.temperature",
        ),
        (
            lambda: jaxsft.load(chatted).generate("x", max_new_tokens=0),
            jaxsft.ConfigError,
            "generate.max_new_tokens=0",
        ),
        (
            lambda: jaxsft.load(chatted).generate([{"role": "assistant", "content": "x"}]),
            jaxsft.DataError,
            "the last message is from the assistant",
        ),
        (
            lambda: jaxsft.load(chatted).generate([{"role": "owl", "content": "x"}]),
            jaxsft.DataError,
            "prompt:1: message 1 has the role 'owl'",
        ),
        (lambda: jaxsft.load(chatted).generate([3]), jaxsft.DataError, "prompt:1: found 3"),
        (
            lambda: jaxsft.load(read_on).generate([{"role": "user", "content": "x"}]),
            jaxsft.DataError,
            "found messages, but task=lm reads a text",
        ),
        (lambda: jaxsft.load(classified).predict("x"), jaxsft.DataError, "expected a list of rows"),
        (
            lambda: jaxsft.load(classified).predict([{"txet": "x"}]),
            jaxsft.DataError,
            "rows:1: missing column 'text'",
        ),
        (
            lambda: jaxsft.load(classified).evaluate([{"text": "x", "label": "zz"}]),
            jaxsft.DataError,
            "rows:1: label 'zz'",
        ),
        (lambda: jaxsft.load(classified).evaluate([]), jaxsft.DataError, "no rows"),
        (
            lambda: jaxsft.load(classified).evaluate(files / "none.jsonl"),
            jaxsft.DataError,
            "there is no such file",
        ),
    ):
        with pytest.raises(kind, match=message):
            call()


# --- in a long session
# --------------------------------------------------------------------------------------------------
def test_nothing_is_compiled_twice(classified, chatted, files):
    held = rundir.read_jsonl(files / "labels_held.jsonl")
    labels, chat = jaxsft.load(classified), jaxsft.load(chatted)
    calls = [
        lambda: labels.predict(held),
        lambda: labels.evaluate(held),
        lambda: chat.evaluate(files / "chat_held.jsonl"),
    ]
    calls += [lambda: chat.generate(["a", "b c"]), lambda: chat.predict(["a", "b c"])]
    with Compilations() as first:
        before = [call() for call in calls]
        calls[2]()  # after an answer the layers are stacked again, by programs of their own
    with Compilations() as again:
        assert [call() for call in calls] == before
        # traced: another value is no other program
        chat.generate(["d", "e"], temperature=0.5, seed=7)
    assert first.count > 0 and again.count == 0


def test_a_thread_can_train(files, tmp_path):
    """A notebook's kernel or a web server runs us outside the main thread, where no signal handler
    can be set.
    """
    out = []
    options = {"data": {"train": files / "book.txt"}, "run_dir": tmp_path / "run"}
    thread = threading.Thread(
        target=lambda: out.append(jaxsft.train("task=lm", *tiny.FAST, **options))
    )
    thread.start()
    thread.join()
    [result] = out
    assert result.stopped_by is None and result.numbers["train/steps"] == 4
    # complete: told from its files
    assert jaxsft.train("task=lm", *tiny.FAST, **options).numbers == result.numbers


def test_the_card_of_quality_is_that_of_the_command(files, tmp_path):
    options = [f"data.path={files / 'labels.jsonl'}"]
    card = jaxsft.quality(*options, data={"columns": {"label": "label"}})
    command("quality", *options, "data.columns.label=label", f"output={tmp_path / 'card'}")
    assert json.loads(json.dumps(card)) == rundir.read_json(tmp_path / "card" / "card.json")
    assert (
        jaxsft.quality(overrides.composed([*options, "data.columns.label=label"], "quality"))
        == card
    )
    with pytest.raises(
        jaxsft.ConfigError, match=r"output: jaxsft.quality gives the card and writes nothing"
    ):
        jaxsft.quality(*options, output=str(tmp_path))
