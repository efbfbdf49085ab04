"""`jaxsft <command> [overrides]`. Imports a command's module only when it runs, so that help answers at once."""

from __future__ import annotations

import importlib
import os
import sys

from jaxsft import __version__
from jaxsft.errors import JaxsftError

COMMANDS = {
    "demo": ("demo", "fine-tune a small model on a bilingual data set made on the spot, score it, write a report (two minutes)"),
    "prepare": ("prepare", "clean, deduplicate, split, balance ...: jaxsft prepare data.path=FILE stages=[clean,dedup,split] output.dir=DIR"),
    "train": ("train", "fine-tune: jaxsft train task=chat|classify|lm data.train=FILE ..."),
    "check": ("check", "look at a data set before training: rows, labels, lengths, leaks, tokens: jaxsft check task=... data.train=FILE"),
    "eval": ("evaluate", "score a run on a file: jaxsft eval run=DIR data.path=FILE"),
    "predict": ("predict", "predict every row of a file: jaxsft predict run=DIR input=FILE output=FILE"),
    "generate": ("generate", "answer a prompt, hold a conversation, answer a file: jaxsft generate run=DIR [prompt=TEXT | input=FILE]"),
    "export": ("export", "write a run as a folder that transformers loads: jaxsft export run=DIR to=FOLDER"),
    "quality": ("quality", "measure a data set before training on it: jaxsft quality data.path=FILE, or data.train=FILE data.test=FILE"),
    "annotate": ("annotate", "tasks for annotators, and one answer out of several: jaxsft annotate export|import schema=FILE ..."),
    "report": ("report", "write report.md and the figures of a run again: jaxsft report DIR"),
}
HELP = """usage: jaxsft <command> [key=value ...]

{commands}

Every option of a run is a key, e.g. optim.learning_rate=1e-3 train.duration=60steps data.max_length=512 seed=1.
jaxsft train --cfg job task=chat     shows all of them as they would run
jaxsft train -m seed=0,1,2 ...       runs once for each value
jaxsft <command> --help              more about one command
"""


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0; 1 for anything that the user can mend, told in one line; 128 + n after signal n."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP.format(commands="\n".join(f"  {name:<9}{text}" for name, (_, text) in COMMANDS.items())))
        return 0 if argv else 1
    if argv[0] in ("-V", "--version"):
        print(f"jaxsft {__version__}")
        return 0
    if argv[0] not in COMMANDS:
        print(f"jaxsft: unknown command {argv[0]}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 1
    if any(a in ("-h", "--help") for a in argv[1:]):
        print(f"jaxsft {argv[0]}: {COMMANDS[argv[0]][1]}\n\n{_module_help(argv[0])}")
        return 0
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        return importlib.import_module(f"jaxsft.commands.{COMMANDS[argv[0]][0]}").main(argv[1:])
    except JaxsftError as error:
        print(f"jaxsft: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("jaxsft: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141
    except UnicodeEncodeError as error:
        if error.encoding == "utf-8":
            raise
        letter = ascii(error.object[error.start])
        print(f"jaxsft: the output is written in {error.encoding}, which has no {letter}; set PYTHONIOENCODING=utf-8", file=sys.stderr)
        return 1


def script() -> None:
    """The program `jaxsft`. After a failure it ends at once: a write that failed leaves threads behind that would add tracebacks to its one line."""
    sys.unraisablehook = _quiet_after_failure
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code) if code else sys.exit(0)


def _quiet_after_failure(what: object, told=sys.unraisablehook) -> None:
    """A save that failed has closed its event loop, and TensorStore still reports to it: the failure is told already, by its exception."""
    if not (isinstance(what.exc_value, RuntimeError) and "Event loop is closed" in str(what.exc_value)):
        told(what)


def _module_help(command: str) -> str:
    """The docstring of a command's module, read without importing what the module needs."""
    import ast
    from pathlib import Path

    source = Path(__file__).with_name("commands") / f"{COMMANDS[command][0]}.py"
    return ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""


if __name__ == "__main__":
    script()
