"""The command line `jaxsft <command> [overrides]`.

Imports a command's module only when it runs, so that help answers at once.
"""

from __future__ import annotations

import errno
import importlib
import itertools
import os
import sys
from collections.abc import Callable

from jaxsft import __version__, invocation, plugins
from jaxsft.commands import COMMANDS, WITH_PLUGINS
from jaxsft.errors import JaxsftError

# of a stream, which has no name: what it is written to is full or gone
_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)

HELP = """usage: jaxsft <command> [key=value ...]

{commands}

Every option of a run is a key, e.g. optim.learning_rate=1e-3
train.duration=60steps data.max_length=512 seed=1.
jaxsft train --cfg job task=chat     shows all of them as they would run
jaxsft train -m seed=0,1,2 ...       runs once for each value
jaxsft <command> --help              more about one command
"""


def main(argv: list[str] | None = None, end: Callable[[int], int] = lambda code: code) -> int:
    """Runs a command and returns its exit code.

    0; 1 for anything that the user can mend, told in one line; 128 + n after signal n.

    Args:
      end: what is done with the code after a failure, while its exception is still held.
    """
    try:
        return _dispatch(sys.argv[1:] if argv is None else argv)
    except JaxsftError as error:
        print(f"jaxsft: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return end(1)
    except KeyboardInterrupt:
        print("jaxsft: interrupted", file=sys.stderr)
        return end(130)
    except BrokenPipeError:
        return end(141)
    except OSError as error:
        if error.filename is None and error.errno not in _OUTPUT:
            raise
        place = str(error.filename or "the output")[:300]
        print(f"jaxsft: {place}: cannot be used ({error.strerror})", file=sys.stderr)
        return end(1)
    except UnicodeEncodeError as error:
        if error.encoding == "utf-8":
            raise
        letter = ascii(error.object[error.start])
        print(
            f"jaxsft: the output is written in {error.encoding}, which has no {letter}; set"
            " PYTHONIOENCODING=utf-8",
            file=sys.stderr,
        )
        return end(1)


def _dispatch(argv: list[str]) -> int:
    """Runs the command, or prints what it was asked about it; returns the exit code."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(
            HELP.format(
                commands="\n".join(f"  {name:<12}{text}" for name, (_, text) in COMMANDS.items())
            )
        )
        return 0 if argv else 1
    if argv[0] in ("-V", "--version"):
        print(f"jaxsft {__version__}")
        return 0
    if argv[0] not in COMMANDS:
        print(
            f"jaxsft: unknown command {argv[0]}; there are {', '.join(COMMANDS)}", file=sys.stderr
        )
        return 1
    if any(a in ("-h", "--help") for a in argv[1:]):
        print(
            f"jaxsft {argv[0]}:"
            f" {COMMANDS[argv[0]][1]}\n\n{_module_help(argv[0])}"
            f"{_choices() if argv[0] in ('train', 'crossval', 'check') else ''}"
        )
        return 0
    if shell := _asked_shell(argv):
        argv = ["completion", shell]
    for stream in (sys.stdout, sys.stderr):
        if str(getattr(stream, "encoding", "")).lower().replace("-", "") == "utf8" and hasattr(
            stream, "reconfigure"
        ):
            # the name of a file may hold bytes that are no UTF-8
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    invocation.remember(["jaxsft", *argv])
    others = plugins.of_arguments(argv[1:])
    rest = argv[1:] if argv[0] in WITH_PLUGINS else others
    return importlib.import_module(f"jaxsft.commands.{COMMANDS[argv[0]][0]}").main(rest)


def script() -> None:
    """Runs the program `jaxsft`.

    After a failure it ends at once: threads and coroutines that the failure left behind would
    add to its one line.
    """
    code = main(end=_leave)
    _leave(code) if code else sys.exit(_flushed() or 0)


def _leave(code: int) -> int:
    """Ends the process, without what Python does at its end."""
    os._exit(_flushed() or code)


def _flushed() -> int:
    """Flushes the output; returns 141, as shells expect, where its reader is gone, else 0."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        # Python flushes again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, ValueError):  # closed, or a full disk behind it
        pass
    return 0


def _module_help(command: str) -> str:
    """Returns the docstring of a command's module, without importing what the module needs."""
    import ast
    from pathlib import Path

    source = Path(__file__).with_name("commands") / f"{COMMANDS[command][0]}.py"
    return ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""


def _choices() -> str:
    """Lists the tasks and the groups of options, without importing Hydra."""
    from pathlib import Path

    from jaxsft.commands import options_help
    from jaxsft.config.tasks import TASKS

    theirs = {"optim": "optimizers", "schedule": "schedules"}
    package = Path(__file__).resolve().parent
    folder = next(p for p in (package / "conf", package.parent / "conf") if p.is_dir())
    first = lambda cls: " ".join((cls.__doc__ or "").split()).partition(". ")[0].rstrip(".")
    tasks = "\n".join(f"  {name:<17}{first(cls)}" for name, cls in TASKS.items())
    groups = {
        p.name: sorted(f.stem for f in p.glob("*.yaml"))
        + (plugins.names(theirs[p.name]) if p.name in theirs else [])
        for p in sorted(folder.iterdir())
        if p.is_dir() and p.name not in ("task", "recipe")
    }
    listed = "\n".join(
        f"  {name + '=':<12}{' | '.join(names)}" for name, names in groups.items() if names
    )
    return f"""

Tasks, as task=NAME:
{tasks}

Groups of options, as group=NAME:
{listed}

The options that are used first, as key=value; [what runs where no preset says another value]:
{options_help.text()}

Every option is in docs/config.md;
jaxsft train --cfg job task=NAME [model.pretrained=FOLDER] prints them as they would run.
Options of your own in DIR/experiment/NAME.yaml (first line: # @package _global_):
jaxsft train --config-dir DIR experiment=NAME"""


def _asked_shell(argv: list[str]) -> str | None:
    """Returns the shell of Hydra's flag -sc install=SHELL; None without it.

    Hydra's own script would call a command that is not there.
    """
    asked = [
        after for flag, after in itertools.pairwise(argv) if flag in ("-sc", "--shell-completion")
    ]
    return asked[0].removeprefix("install=") if asked and asked[0].startswith("install=") else None


if __name__ == "__main__":
    script()
