"""Answers, from the run directory alone: the template, the stop tokens and the tokenizer are those
of training.

  jaxsft generate run=runs/mine                                a conversation; /reset forgets it,
    /exit ends
  jaxsft generate run=runs/mine prompt="translate: red cat"    one answer; a run of task=lm
    continues the text
  jaxsft generate run=runs/mine input=FILE [output=FILE.jsonl] a line of JSON for each row: its
    fields, prediction and stopped
  ... [generate.temperature=0.7 generate.top_p=0.9 generate.max_new_tokens=64
    'generate.stop=["\\n\\n"]' seed=1]

run= may also be a folder in the layout of Hugging Face, of a model that was never trained here:
with a chat template it answers, else it continues a text. Answers appear as they are written.
Ctrl-C ends an answer; at the prompt, or twice, it ends the conversation.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jaxsft import rundir
from jaxsft.commands import from_run
from jaxsft.errors import ConfigError, DataError, JaxsftError

if TYPE_CHECKING:
    from jaxsft.inference import Model

OWN = ("run", "prompt", "input", "output")


def main(arguments: list[str]) -> int:
    mine, overrides = from_run.arguments(arguments, OWN, ("run",))
    if "prompt" in mine and "input" in mine:
        raise ConfigError("prompt= and input= exclude each other; give one text, or a file of rows")
    if "output" in mine and "input" not in mine:
        raise ConfigError("output= is read with input= only; leave it out")
    if not (output := mine.get("output", ".jsonl")).lower().endswith(".jsonl"):
        raise ConfigError(
            f"output={output}: lines of JSON are written; give a name that ends in .jsonl"
        )
    if "input" in mine and "output" in mine:
        from_run.apart([mine["input"]], [mine["output"]])

    from jaxsft import api

    model = api.load(mine["run"], *overrides)
    if "input" in mine:
        return answer_file(model, mine["input"], mine.get("output"))
    if "prompt" in mine:
        write(pieces(model, mine["prompt"], model.config.seed))
        return 0
    if not model.task.spec.conversations:
        raise ConfigError(
            f"run={mine['run']}: task={model.task.name} holds no conversation; give prompt= or"
            " input="
        )
    return converse(model)


def pieces(model: Model, prompt: str | list[dict[str, str]], seed: int) -> Iterator[str]:
    """Yields the answer as it becomes readable; that of a beam search at once."""
    if model.config.generate.num_beams > 1:
        return iter([model.generate(prompt, seed=seed)])
    return model.stream(prompt, seed=seed)


def write(answer: Iterator[str]) -> str:
    """Prints the pieces and the end of the line; what was printed. After Ctrl-C, the part that was
    there.
    """
    told, refused = "", False
    try:
        for piece in answer:
            print(piece, end="", flush=True)
            told += piece
    except JaxsftError:
        refused = not told
        raise
    finally:
        if not refused:
            print(flush=True)
    return told


def answer_file(model: Model, path: str, output: str | None) -> int:
    lines = [rundir.json_text(line) + "\n" for line in model.answers(model.read(path))]
    if output is None:
        sys.stdout.write("".join(lines))
        return 0
    rundir.write_text(output, "".join(lines))
    print(f"{len(lines)} rows: {output}")
    return 0


def converse(model: Model) -> int:
    """Runs a conversation with questions from the terminal, or a line each from a pipe.

    All turns so far are in the prompt.
    """
    asked, history = sys.stdin.isatty(), []
    if asked:
        import contextlib

        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (what is typed can be edited)
        print("/reset forgets the conversation, /exit ends; Ctrl-C ends an answer")
    while (text := _question(asked)) is not None:
        if text == "/reset":
            history = []
        elif text.strip():
            history = _turn(model, history, text)
    return 0


def _question(asked: bool) -> str | None:
    """Returns the next line of input; None at its end. Raises DataError where it is not UTF-8."""
    try:
        text = input("> " if asked else "")
    except (EOFError, KeyboardInterrupt):
        if asked:
            print()  # what the shell says next begins a line
        return None
    except UnicodeDecodeError as error:
        raise DataError(
            f"the input is no {error.encoding} (found the byte 0x{error.object[error.start]:02x});"
            " set PYTHONIOENCODING"
        ) from None
    return None if text == "/exit" else text


def _turn(model: Model, history: list[dict[str, str]], text: str) -> list[dict[str, str]]:
    """Returns the conversation with one more question and answer; unchanged without an answer."""
    messages, told = [*history, {"role": "user", "content": text}], []
    seed = (model.config.seed + len(history)) % 2**32  # another question is another draw

    def kept() -> Iterator[str]:
        for piece in pieces(model, messages, seed):
            told.append(piece)
            yield piece

    try:
        write(kept())
    except KeyboardInterrupt:
        pass  # the answer ends here
    except JaxsftError as error:
        print(f"jaxsft: {' '.join(str(error).splitlines())}", file=sys.stderr)
    return [*messages, {"role": "assistant", "content": "".join(told)}] if told else history
