"""`jaxsft generate`: one answer, a conversation, a file; a folder of transformers that was never
trained here; and its errors in one sentence.
"""

import builtins
import contextlib
import io
import json
import os
import select
import signal
import subprocess
import sys
import types

import jax
import pytest
from flax import linen as nn
from tokenizers import decoders

import jaxsft
from jaxsft import cli
from jaxsft.commands import generate_text as command
from jaxsft.config.model import ModelConfig
from jaxsft.data.chat.templates import DEFAULT_TEMPLATE
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.generation.decoding import Answer
from jaxsft.models.transformer import Transformer
from jaxsft.rundir import read_jsonl
from tests import realdata, tiny
from tools.bench.generate import save_as_llama

FP32 = "precision=fp32"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Llama of random weights that reads bytes and has a chat template."""
    folder, tokenizer = tmp_path_factory.mktemp("llama"), Tokenizer.bytes()
    config = ModelConfig(layers=1, embed=16, heads=2, kv_heads=1, head_dim=8, mlp=24, context=512)
    params = nn.meta.unbox(
        jax.jit(Transformer(config, tokenizer.vocab_size).init)(jax.random.key(0))
    )
    params["embed"]["tokens"]["w"] = params["embed"]["tokens"]["w"] * 4
    save_as_llama(folder, config, params)
    tokenizer.save(folder)
    (folder / "chat_template.jinja").write_text(DEFAULT_TEMPLATE, encoding="utf-8")
    (folder / "generation_config.json").write_text('{"eos_token_id": [65, 66]}', encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return jaxsft.load(folder, FP32, "generate.max_new_tokens=24")


def test_a_folder_of_transformers_answers(folder, model):  # guards C3, C10
    """By its own template, until a token that it or its generation_config.json says; the command
    prints what Python gives.
    """
    end = model.tokenizer.special_id("<|end|>")
    assert model.task.stop_ids == [65, 66, end] and model.task.name == "chat"
    for options in ((), ("generate.temperature=1.5", "generate.top_k=20", "seed=3")):
        code, out, err = tiny.jaxsft(
            "generate", f"run={folder}", "prompt=où?", FP32, "generate.max_new_tokens=24", *options
        )
        python = model.generate(
            "où?", **({"temperature": 1.5, "top_k": 20, "seed": 3} if options else {})
        )
        assert (code, err) == (0, "") and out == python + "\n"
    beams = tiny.jaxsft(
        "generate",
        f"run={folder}",
        "prompt=où?",
        FP32,
        "generate.max_new_tokens=24",
        "generate.num_beams=3",
    )
    assert beams == (0, model.generate("où?", num_beams=3) + "\n", "")


def test_what_is_streamed_is_what_comes_out(model):
    """Random bytes: most are no characters, and a piece is never taken back."""
    for seed in range(4):
        options = {"temperature": 2.0, "seed": seed, "stop": ["e", "�"] if seed % 2 else ["Q"]}
        pieces = list(model.stream("ab", **options))
        assert "".join(pieces) == model.generate("ab", **options) and all(pieces)


def test_a_character_that_is_read_as_bytes_later_ends_no_stream(model, monkeypatch):
    """The decoder of SentencePiece's byte fallback makes a text of all bytes that follow each
    other, or none.
    """
    decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokens = ["a", "<0xE4>", "<0xB8>", "<0x96>", "<0xE7>", "<0x95>", "<0x8C>", "<0xFF>", "b", "c"]
    texts = [decoder.decode(tokens[:n]) for n in range(1, len(tokens) + 1)]
    assert texts[6] == "a世界" and texts[-1] == "a" + "\ufffd" * 7 + "bc"
    steps = [(0, Answer([], False, text), i + 1 == len(texts)) for i, text in enumerate(texts)]
    monkeypatch.setattr(
        "jaxsft.inference.generation.continuations", lambda *args, **options: iter(steps)
    )
    assert list(model.stream("x")) == ["a", "世", "界", "\ufffd" * 7 + "b", "c"]


def test_a_file_is_answered_row_by_row(folder, model, tmp_path):
    rows = [{"prompt": "a", "id": 7}, {"prompt": "grüße", "id": 8}]
    source = tiny.write_lines(tmp_path / "in.jsonl", rows)
    code, out, err = tiny.jaxsft(
        "generate", f"run={folder}", f"input={source}", FP32, "generate.max_new_tokens=24"
    )
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [{"prompt": x["prompt"], "id": x["id"]} for x in lines] == rows, err
    assert lines == model.answers(rows) and all(isinstance(x["stopped"], bool) for x in lines)
    code, out, _ = tiny.jaxsft(
        "generate",
        f"run={folder}",
        f"input={source}",
        f"output={tmp_path / 'out.jsonl'}",
        FP32,
        "generate.max_new_tokens=24",
    )
    assert code == 0 and out.startswith("2 rows: ") and read_jsonl(tmp_path / "out.jsonl") == lines


class Talker:
    """A model that says what it was asked; `?` is interrupted half-way and `!` cannot be
    rendered."""

    class config:
        seed = 5

        class generate:
            num_beams = 1

    def __init__(self):
        self.asked = []

    def stream(self, messages, seed):
        self.asked.append(([m["content"] for m in messages], seed))
        last = messages[-1]["content"]
        if last == "!":
            raise jaxsft.DataError("prompt:1: no")
        yield "re:"
        if last == "?":
            raise KeyboardInterrupt
        yield last


def talk(monkeypatch, capsys, *typed):
    """(what was asked, what was printed) of a conversation; an exception is what happens instead of
    a line.
    """
    lines = iter(typed)

    def typing(_):
        line = next(lines, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr(builtins, "input", typing)
    talker = Talker()
    assert command.converse(talker) == 0
    return talker.asked, capsys.readouterr()


def test_a_conversation_keeps_its_history(monkeypatch, capsys):
    asked, printed = talk(monkeypatch, capsys, "a", "", "b", "/reset", "c", "/exit", "d")
    assert (
        asked == [(["a"], 5), (["a", "re:a", "b"], 7), (["c"], 5)]
        and printed.out == "re:a\nre:b\nre:c\n"
    )


def test_ctrl_c_ends_an_answer_and_then_the_conversation(monkeypatch, capsys):
    asked, printed = talk(monkeypatch, capsys, "?", "b", KeyboardInterrupt(), "c")
    assert [texts for texts, _ in asked] == [
        ["?"],
        ["?", "re:", "b"],
    ] and printed.out == "re:\nre:b\n"


TERMINAL = """
import fcntl, termios, time, types
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that keys become signals
from jaxsft.commands import generate_text

def stream(messages, seed):
    yield "gr\\u00fc\\u00dfe "
    for _ in range(600 if messages[-1]["content"] == "long" else 0):
        time.sleep(0.1)
    yield f"{len(messages)}"

config = types.SimpleNamespace(seed=0, generate=types.SimpleNamespace(num_beams=1))
raise SystemExit(generate_text.converse(types.SimpleNamespace(config=config, stream=stream)))
"""


@pytest.mark.parametrize("last", [b"\x03", b"\x04"], ids=["ctrl-c", "ctrl-d"])
def test_keys_of_a_terminal(last):
    """Letters appear as they are written; Ctrl-C ends an answer, whose part stays in the
    conversation; both keys end it, at the start of a line.
    """
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command, env = [sys.executable, "-c", TERMINAL], {**os.environ, "TERM": "dumb"}
    with (
        subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=env
        ) as process,
        contextlib.ExitStack() as stack,
    ):
        os.close(theirs)

        stack.callback(process.kill)  # a conversation that does not end would be waited for

        def until(end, wait=60):
            told = b""
            while not told.endswith(end) and select.select([ours], [], [], wait)[0]:
                told += os.read(ours, 1)
            return told.decode()

        until(b"> ")
        for keys, end, part in (
            (b"short\n", b"> ", "grüße 1\r\n> "),
            (b"long\n", "ße ".encode(), "grüße "),
            (b"\x03", b"> ", "\r\n> "),
        ):
            os.write(ours, keys)
            assert until(end).endswith(part)
        os.write(ours, b"short\n")
        assert until(b"> ").endswith("grüße 5\r\n> ")
        told = ""
        # between the prompt and its reading, a key that is a signal is seen with the next one
        for _ in range(12):
            os.write(ours, last)
            if told := until(b"\r\n", wait=5):
                break
        assert told.endswith("\r\n") and process.wait(60) == 0
    os.close(ours)


@pytest.mark.slow
def test_ctrl_c_ends_a_single_answer_in_one_sentence(tmp_path):
    """A process of its own, once the first letter is there."""
    told = ("prompt=Once upon a time", FP32, "generate.max_new_tokens=20000")
    process = tiny.start("generate", f"run={realdata.real('stories260K_hf')}", *told, cwd=tmp_path)
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "jaxsft: interrupted\n")


def test_a_question_that_cannot_be_asked_is_forgotten(monkeypatch, capsys):
    asked, printed = talk(monkeypatch, capsys, "a", "!", "b")
    assert asked[-1][0] == ["a", "re:a", "b"] and printed.err == "jaxsft: prompt:1: no\n"


@pytest.mark.parametrize(
    "prompt", ["caf\udce9", [{"role": "user", "content": "caf\ud83d"}]], ids=["byte", "half"]
)
def test_a_prompt_of_no_characters_is_refused(model, prompt):
    """A byte that is no UTF-8 comes from the command line, half of an emoji from JSON."""
    for ask in (
        model.generate,
        lambda prompt: list(model.stream(prompt)),
        lambda prompt: model.predict([{"prompt": prompt}]),
    ):
        with pytest.raises(
            jaxsft.DataError, match=r"1: a text holds \\ud(ce9|83d), half of a surrogate pair"
        ):
            ask(prompt)


def test_letters_that_the_output_has_not_are_one_sentence(monkeypatch, capfd):
    """Not a traceback in the middle of an answer."""
    monkeypatch.setattr(
        "jaxsft.api.load",
        lambda *given: types.SimpleNamespace(
            config=Talker.config, stream=lambda *given, **options: ["gr", "ü"]
        ),
    )
    monkeypatch.setattr(Talker.config.generate, "num_beams", 1)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    assert cli.main(["generate", "run=x", "prompt=a"]) == 1
    assert (
        capfd.readouterr().err
        == "jaxsft: the output is written in ascii, which has no '\\xfc'; set"
        " PYTHONIOENCODING=utf-8\n"
    )


def test_bytes_of_another_encoding_are_told(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), "utf-8", "strict"))
    with pytest.raises(
        jaxsft.DataError,
        match=r"the input is no utf-8 \(found the byte 0xe9\); set PYTHONIOENCODING",
    ):
        command.converse(Talker())


def test_a_real_conversation(folder, model, monkeypatch, capsys):
    """Its second answer is that to all that was said."""
    lines = iter(["ab", "cd"])
    monkeypatch.setattr(builtins, "input", lambda _: next(lines, "/exit"))
    command.converse(model)
    first = model.generate("ab")
    said = [
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "cd"},
    ]
    assert capsys.readouterr().out == f"{first}\n{model.generate(said)}\n"


@pytest.mark.parametrize(
    "given, told",
    [
        (["prompt=a", "input=b"], "prompt= and input= exclude each other"),
        (["prompt=a", "output=b"], "output= is read with input= only"),
        (
            ["prompt=a", "generate.top_k=3"],
            "generate.top_k=3: is read with generate.temperature above 0 only",
        ),
        (
            ["prompt=a", "generate.top_p=0.5"],
            "generate.top_p=0.5: is read with generate.temperature",
        ),
        (
            ["prompt=a", "generate.min_p=0.5"],
            "generate.min_p=0.5: is read with generate.temperature",
        ),
        (
            ["prompt=a", "generate.temperature=1", "generate.top_p=1.5"],
            "generate.top_p=1.5: expected more than 0 and at most 1",
        ),
        (
            ["prompt=a", "generate.temperature=1", "generate.top_k=0"],
            "generate.top_k=0: expected at least 1",
        ),
        (
            ["prompt=a", "generate.repetition_penalty=0"],
            "generate.repetition_penalty=0.0: expected a finite number of more than 0",
        ),
        (["prompt=a", "generate.num_beams=0"], "generate.num_beams=0: expected at least 1"),
        (
            ["prompt=a", "generate.num_beams=2", "generate.temperature=1"],
            "generate.temperature=1.0: is read with generate.num_beams=1 only",
        ),
        (["prompt=a", "generate.num_beams=99"], "generate.num_beams=99: beams are rows of a batch"),
        (
            ["prompt=a", "generate.length_penalty=2"],
            "generate.length_penalty=2.0: is read with generate.num_beams above 1 only",
        ),
        (["prompt=a", 'generate.stop=[""]'], "generate.stop="),
        (["prompt=a", "model.layers=3"], "model.layers: cannot be changed"),
        (["input=/no/such.jsonl"], "there is no such file"),
        (
            ["input=a.jsonl", "output=b.csv"],
            "output=b.csv: lines of JSON are written; give a name that ends in .jsonl",
        ),
        (["prompt=a", "prompt=b"], "prompt= is given twice"),
        (["promt=a"], "promt=: unknown; did you mean prompt=?"),
        (
            ["a question"],
            (
                "a question: expected key=value; there are run=, prompt=, input=, output= and"
                " options of the run"
            ),
        ),
        (["prompt=a", "temperature=0.5"], "did you mean generate.temperature?"),
        (["prompt=a", "generate.temperature=hot"], "generate.temperature: Value 'hot'"),
        (
            ["prompt=a", "generate.stop=x"],
            "generate.stop=x: expected a list, such as generate.stop=[x]",
        ),
        (
            ["prompt=" + "a" * 600, FP32],
            "tokens, more than model.context=512: training saw no such position",
        ),
    ],
    ids=lambda x: " ".join(x)[:60] if isinstance(x, list) else "",
)
def test_errors_are_one_sentence(folder, given, told):  # guards H5
    code, out, err = tiny.jaxsft("generate", f"run={folder}", *given)
    assert (
        code == 1
        and out == ""
        and told in err
        and err.startswith("jaxsft: ")
        and err.count("\n") == 1
    )


def test_a_model_that_cannot_answer_says_so(folder, tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for name, why in (
        ("", "it has no config.yaml"),
        ("none", "there is no such folder"),
        ("file", "it is a file"),
    ):
        code, _, err = tiny.jaxsft("generate", f"run={tmp_path / name}", "prompt=a")
        assert code == 1 and err.count("\n") == 1 and f"not a run directory ({why})" in err
    (plain := tmp_path / "plain").mkdir()
    for file in folder.iterdir():
        if file.name != "chat_template.jinja":
            (plain / file.name).write_bytes(file.read_bytes())
    code, _, err = tiny.jaxsft("generate", f"run={plain}", FP32)
    assert code == 1 and "task=lm holds no conversation; give prompt= or input=" in err
    code, out, _ = tiny.jaxsft(
        "generate", f"run={plain}", "prompt=ab", FP32, "generate.max_new_tokens=4"
    )
    assert code == 0 and len(out) > 1
