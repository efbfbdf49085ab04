"""Reads JSON and YAML files that anybody may have written: bounded in size and nesting, each key
once, numbers finite, no aliases.

What is wrong is one sentence that begins with the file, raised as the error that the caller names.
The type of the whole is the caller's to check, or `top` says it.
"""

import json
import math
import re
import stat
from pathlib import Path
from typing import Any, NoReturn

import yaml

from jaxsft.errors import DataError, JaxsftError

# of lists and objects in each other: what walks them calls itself per level, and Python may call
# 1,000 deep
LEVELS = 100
JSON_BYTES = 1 << 30  # a large tokenizer.json has some 30 MB
LONG_YAML = 1 << 11  # characters
YAML_BYTES = 1 << 24  # the parser takes a second per megabyte
_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_HALF = re.compile("[\ud800-\udfff]")
_DEEP = f"lists and objects stand in each other more than {LEVELS} deep, which no such file needs"
_TYPES = {
    dict: "object",
    list: "list",
    str: "text",
    bool: "boolean",
    int: "number",
    float: "number",
    type(None): "null",
}


def read_json(
    path: str | Path,
    error: type[JaxsftError] = DataError,
    top: type | None = None,
    limit: int = JSON_BYTES,
    halves: bool = False,
) -> Any:
    """Returns the content of a JSON file in UTF-8.

    Args:
        error: what is raised.
        top: dict or list, where only that is expected.
        limit: the most bytes that are read.
        halves: whether a text may hold half of a surrogate pair, as what was read from broken data
          may.

    Raises:
        JaxsftError: the file cannot be read, is too large, or is not as `parse_json` wants it.
    """
    return parse_json(read_text(path, error, limit), path, error, top, halves)


def parse_json(
    text: str | bytes,
    where: str | Path,
    error: type[JaxsftError] = DataError,
    top: type | None = None,
    halves: bool = False,
) -> Any:
    """Returns the value of a JSON text; `where` begins each message.

    Raises:
        JaxsftError: it is no JSON (RFC 8259: `NaN` is none), nests deeper than `LEVELS`, has a key
            twice in an object, a number that is no finite float, or, without `halves`, half of a
            surrogate pair, which is no character.
    """
    try:
        value = decode(text.decode("utf-8-sig") if isinstance(text, bytes) else text, halves)
    except (json.JSONDecodeError, UnicodeDecodeError) as cause:
        raise error(f"{where}: not a JSON file ({cause})") from cause
    except ValueError as cause:
        raise error(f"{where}: {cause}") from cause
    return _of_type(value, where, error, top)


def decode(text: str, halves: bool = False) -> Any:
    """Returns the value of a JSON text. Raises ValueError for what `parse_json` does not take."""
    try:
        value = _decoder.decode(text.removeprefix("\ufeff"))
    except RecursionError:
        raise ValueError(_DEEP) from None
    if _depth(value) > LEVELS:
        raise ValueError(_DEEP)
    if (
        not halves
        and _ESCAPED_HALF.search(text)
        and _HALF.search(json.dumps(value, ensure_ascii=False))
    ):
        raise ValueError("a text holds half of a surrogate pair, which is no character")
    return value


def read_yaml(
    path: str | Path,
    error: type[JaxsftError] = DataError,
    top: type | None = None,
    limit: int = YAML_BYTES,
) -> Any:
    """Returns the content of a YAML file in UTF-8.

    Arguments as `read_json`. Raises JaxsftError as `read_json` and `parse_yaml`.
    """
    return parse_yaml(read_text(path, error, limit), path, error, top)


def parse_yaml(
    text: str, where: str | Path, error: type[JaxsftError] = DataError, top: type | None = None
) -> Any:
    """Returns the value of a YAML document; each message begins with `where` and the line.

    A long one is read by libyaml, which is five times as fast, within the same bounds.

    Raises:
        JaxsftError: it is no YAML, has an alias, an anchor or a merge key (`*a`, `&a`, `<<`), which
            can grow without measure, nests deeper than `LEVELS`, or has a key twice in a mapping.
    """
    try:
        value = yaml.load(text, Loader=Loader) if len(text) < LONG_YAML else _long_yaml(text)
    except yaml.YAMLError as cause:
        mark = getattr(cause, "problem_mark", None) or getattr(cause, "context_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        what = getattr(cause, "problem", None) or " ".join(str(cause).split())
        raise error(f"{where}{line}: not a readable YAML file ({what})") from cause
    except RecursionError:
        raise error(f"{where}: {_DEEP}") from None
    # what SafeLoader makes of `!!int x` and its kind
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as cause:
        raise error(f"{where}: not a readable YAML file ({cause})") from cause
    return _of_type(value, where, error, top)


def read_text(
    path: str | Path, error: type[JaxsftError] = DataError, limit: int = JSON_BYTES
) -> str:
    """Returns a text file in UTF-8, without a byte order mark.

    Raises JaxsftError where it cannot be read, or has more than `limit` bytes.
    """
    try:
        # a device may never end, and a pipe never begin
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise error(f"{path}: cannot read (it is no file)")
        with open(path, "rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise error(f"{path}: has more than {limit:,} bytes, far more than such a file needs")
        return content.decode("utf-8-sig")
    except OSError as cause:
        raise error(f"{path}: cannot read ({cause.strerror or cause})") from cause
    except ValueError as cause:  # not UTF-8, or a path with a NUL
        raise error(f"{path}: cannot read ({cause})") from cause


# --- JSON
# --------------------------------------------------------------------------------------------------
def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns an object whose keys are unique. Raises ValueError for a key that occurs twice.

    The standard decoder would silently drop the first of two equal keys.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"the key {twice!r} occurs twice in an object")
    return found


def _constant(name: str) -> NoReturn:
    raise ValueError(f"found {name}, which JSON does not have")


def _integer(digits: str) -> int:
    if len(digits) > 300:
        raise ValueError(f"the number {digits:.40}... is too large")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits:.40} is too large")
    return value


_decoder = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_constant, parse_float=_finite, parse_int=_integer
)


def _depth(value: Any) -> int:
    """Returns how deep lists and objects are nested; stops counting above `LEVELS`."""
    level, depth = [value] if isinstance(value, dict | list) else [], 0
    while level and depth <= LEVELS:
        depth += 1
        level = [
            part
            for whole in level
            for part in (whole.values() if type(whole) is dict else whole)
            if type(part) is dict or type(part) is list
        ]
    return depth


def _of_type(value: Any, where: str | Path, error: type[JaxsftError], top: type | None) -> Any:
    if top is not None and type(value) is not top:
        found = _TYPES.get(type(value), type(value).__name__)
        article = "an" if found[0] in "aeiou" else "a"
        raise error(
            f"{where}: found {'null' if value is None else f'{article} {found}'}, expected"
            f" {'an object' if top is dict else 'a list'}"
        )
    return value


# --- YAML
# --------------------------------------------------------------------------------------------------
class _UniqueKeys:
    """Refuses keys that would hide each other, for a loader of YAML that it is mixed into."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Returns the mapping. Raises an error for a merge key, or one that would hide another."""
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.MarkedYAMLError(
                    problem="found a merge key, <<; write the values themselves",
                    problem_mark=key.start_mark,
                )
        found, seen = super().construct_mapping(node, deep), set()
        for key, _ in node.value if len(found) < len(node.value) else ():
            name = self.construct_object(key, deep)
            if name in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {name!r} was given before", problem_mark=key.start_mark
                )
            seen.add(name)
        return found


class Loader(_UniqueKeys, yaml.SafeLoader):
    """A SafeLoader that refuses what a config does not need and what can hang or hide something."""

    level = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise yaml.MarkedYAMLError(
                problem=f"found the alias or anchor {event.anchor!r}; write the value itself",
                problem_mark=event.start_mark,
            )
        if self.level >= LEVELS and not isinstance(event, yaml.ScalarEvent):
            raise yaml.MarkedYAMLError(
                problem=f"nested more than {LEVELS} deep", problem_mark=event.start_mark
            )
        self.level += 1
        node = super().compose_node(parent, index)
        self.level -= 1
        return node

    def fetch_flow_collection_start(self, kind: type[yaml.Token]) -> None:
        """Raises an error for deep brackets as they are scanned.

        The scanner looks far ahead, and its work for each token grows with their depth.
        """
        super().fetch_flow_collection_start(kind)
        if self.flow_level > LEVELS:
            raise yaml.MarkedYAMLError(
                problem=f"nested more than {LEVELS} deep", problem_mark=self.get_mark()
            )


class LongLoader(_UniqueKeys, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """The loader for a long document, whose aliases and depth `_long_yaml` has looked at."""


def _long_yaml(text: str) -> Any:
    """Returns the value of a long YAML document. Raises yaml.YAMLError as `Loader` does."""
    if not yaml.__with_libyaml__:
        return yaml.load(text, Loader=Loader)
    level = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(
                problem=f"found the alias or anchor {event.anchor!r}; write the value itself",
                problem_mark=event.start_mark,
            )
        level += isinstance(event, yaml.CollectionStartEvent)
        level -= isinstance(event, yaml.CollectionEndEvent)
        if level > LEVELS:
            raise yaml.MarkedYAMLError(
                problem=f"nested more than {LEVELS} deep", problem_mark=event.start_mark
            )
    return yaml.load(text, Loader=LongLoader)
