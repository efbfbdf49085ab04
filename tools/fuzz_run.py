"""Edits every file of a run directory, and compares what the run then predicts.

  python -m tools.fuzz_run RUN INPUT [--edits 300] [--seed 0] [--show] [--report]

Each edit is made in a copy of RUN: a byte flipped, a digit or a letter changed, cut, emptied,
removed, made a folder, exchanged with another file, nested without end. Good is a sentence (a
JaxsftError), or the same predictions; a fault is another prediction, or any other exception. Exit
code 1 with faults. With --report the report is written instead, which must raise nothing but a
sentence.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxsft import api
from jaxsft.errors import JaxsftError, first_line
from jaxsft.reports import outputs

Edit = Callable[[Path, random.Random], object]
SKIPPED = ("run.lock", "tensorboard")  # nothing reads them again


def flip(path: Path, dice: random.Random) -> None:
    content = bytearray(path.read_bytes() or b"\0")
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


def change(path: Path, dice: random.Random) -> None:
    """Another digit or small letter, so that JSON and YAML stay what they are."""
    content = bytearray(path.read_bytes())
    places = [i for i, byte in enumerate(content) if chr(byte).isalnum()]
    if not places:
        return flip(path, dice)
    at = dice.choice(places)
    content[at] = dice.choice(
        [
            b
            for b in (b"0123456789" if chr(content[at]).isdigit() else b"abcdefghijklmnop")
            if b != content[at]
        ]
    )
    path.write_bytes(content)


def cut(path: Path, dice: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: dice.randrange(len(content) or 1)])


def empty(path: Path, dice: random.Random) -> None:
    path.write_bytes(b"")


def grow(path: Path, dice: random.Random) -> None:
    path.write_bytes(path.read_bytes() + dice.choice([b"\n", b"x: 1\n", b"{}", b"\0" * 100]))


def nest(path: Path, dice: random.Random) -> None:
    path.write_bytes(b"[" * 100_000 + b"]" * 100_000)


def alias(path: Path, dice: random.Random) -> None:
    """YAML that grows without measure."""
    bomb = "a0: &a0 {k: v}\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
    )
    path.write_bytes(bomb.encode() + path.read_bytes())


def remove(path: Path, dice: random.Random) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def folder(path: Path, dice: random.Random) -> None:
    remove(path, dice)
    path.mkdir()


def file(path: Path, dice: random.Random) -> None:
    remove(path, dice)
    path.write_bytes(b"x")


def link(path: Path, dice: random.Random) -> None:
    """A link to itself."""
    remove(path, dice)
    path.symlink_to(path)


def exchange(path: Path, dice: random.Random) -> None:
    """With another one of its name or kind, elsewhere in the run."""
    run = next(parent for parent in path.parents if (parent / "checkpoints").is_dir())
    others = [
        p
        for p in run.rglob("*")
        if p != path
        and p.is_dir() == path.is_dir()
        and path not in p.parents
        and p not in path.parents
    ]
    alike = [p for p in others if p.name == path.name] or [
        p for p in others if p.suffix == path.suffix
    ]
    if not alike:
        return remove(path, dice)
    other, aside = dice.choice(sorted(alike)), path.with_name(".aside")
    path.rename(aside), other.rename(path), aside.rename(other)


FILES: tuple[Edit, ...] = (
    flip,
    change,
    change,
    cut,
    empty,
    grow,
    nest,
    alias,
    remove,
    folder,
    link,
    exchange,
)
FOLDERS: tuple[Edit, ...] = (remove, folder, file, link, exchange)


def edits(run: Path, dice: random.Random) -> Iterator[tuple[str, Edit]]:
    """(place, edit) of everything in a run once, then drawn at random without end."""
    places = sorted(
        p.relative_to(run) for p in run.rglob("*") if p.relative_to(run).parts[0] not in SKIPPED
    )
    every = [
        (str(place), edit)
        for place in places
        for edit in (FOLDERS if (run / place).is_dir() else FILES)
    ]
    dice.shuffle(every)
    yield from every
    while True:
        yield dice.choice(every)


def outcome(
    run: Path, place: str, edit: Edit, use: Callable[[Path], object], reference: object, seed: int
) -> tuple[str, str]:
    """(same | named | another | exception, what was said) of one edit."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "run"
        shutil.copytree(run, copy)
        edit(copy / place, random.Random(seed))
        with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(said):
            try:
                found = use(copy)
            except JaxsftError as error:
                text = " ".join(str(error).split()).replace(str(copy), "RUN")
                return (
                    ("exception", f"Traceback in {text}")
                    if "Traceback" in said.getvalue()
                    else ("named", text)
                )
            except Exception as error:
                return "exception", f"{type(error).__name__}: {first_line(error)}"
    return ("same", "") if found == reference else ("another", said.getvalue())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("input", type=Path)
    parser.add_argument("--edits", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="every edit, not the faults alone")
    parser.add_argument(
        "--report", action="store_true", help="write the report instead of predictions"
    )
    given = parser.parse_args()
    rows, counts = api.load(given.run).read(given.input), {}

    def use(run: Path) -> object:
        if given.report:
            return outputs.write_all(run) and None
        return api.load(run).predict(rows)

    reference = None if given.report else use(given.run)
    for number, (place, edit) in zip(
        range(given.edits), edits(given.run, random.Random(given.seed)), strict=False
    ):
        kind, said = outcome(given.run, place, edit, use, reference, given.seed + number)
        counts[kind] = counts.get(kind, 0) + 1
        if given.show or kind in ("another", "exception"):
            print(f"{kind}: {edit.__name__} {place}: {said}", flush=True)
    print(", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))
    return 1 if counts.keys() & {"another", "exception"} else 0


if __name__ == "__main__":
    sys.exit(main())
