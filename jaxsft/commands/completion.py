"""Completion for the shell: a tab completes commands, groups, options and their values.

eval "$(jaxsft completion bash)"       in ~/.bashrc
eval "$(jaxsft completion zsh)"        in ~/.zshrc, behind compinit
jaxsft completion fish | source        in ~/.config/fish/config.fish
"""

from __future__ import annotations

from collections.abc import Iterable

from jaxsft.commands import COMMANDS
from jaxsft.errors import ConfigError

# Bash cuts words at `=`: what stands before it is taken off each answer. Without an answer, files
# are completed.
BASH = r"""_jaxsft() {
  local line="${COMP_LINE:0:COMP_POINT}" IFS=$'\n'
  local word="${line##* }"
  COMPREPLY=($(command jaxsft completion query "$line" 2>/dev/null))
  if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then
    COMPREPLY=("${COMPREPLY[@]#"${word%%=*}="}")
  fi
}
complete -o default -o nospace -F _jaxsft jaxsft
"""
SCRIPTS = {
    "bash": BASH,
    "zsh": "autoload -U +X bashcompinit && bashcompinit\n" + BASH,
    "fish": (
        "complete -c jaxsft -a '(command jaxsft completion query (commandline -cp) 2>/dev/null)'\n"
    ),
}
OF_RUN = {
    "eval": ("run", "data.path", "eval.sets", "eval.harness", "output"),
    "predict": ("run", "input", "output"),
    "generate": ("run", "prompt", "input", "output"),
    "export": (
        "run",
        "to",
        "export.dtype",
        "export.family",
        "export.shard",
        "export.adapter",
        "export.head",
    ),
}
PARTS_OF_RUN = {
    "eval": ("data", "evaluation", "generate", "mesh"),
    "predict": ("data", "generate", "mesh"),
    "generate": ("generate",),
}
ROOTS = {
    "train": "config",
    "crossval": "config",
    "plan": "config",
    "check": "config",
    "demo": "config",
    "prepare": "prepare",
    "quality": "quality",
}
VALUES = {
    "export.dtype": ("fp32", "bf16", "fp16"),
    "export.adapter": ("merge", "peft"),
    "export.head": ("class", "body"),
}


def main(arguments: list[str]) -> int:
    if len(arguments) == 2 and arguments[0] == "query":
        print("\n".join(answers(arguments[1])))
        return 0
    if len(arguments) != 1 or arguments[0] not in SCRIPTS:
        raise ConfigError(f"give a shell: jaxsft completion {'|'.join(SCRIPTS)}")
    print(SCRIPTS[arguments[0]], end="")
    return 0


def answers(line: str) -> list[str]:
    """Returns what the last word of a command line, cut at the cursor, may become; nothing where a
    file is meant.
    """
    *before, word = line.split(" ")
    before = [part for part in before if part]
    if len(before) < 2:
        return sorted(f"{name} " for name in COMMANDS if name.startswith(word)) if before else []
    command = before[1]
    keys, values = _of_run(command) if command in OF_RUN else _of_config(command)
    key, sign, _ = word.partition("=")
    if sign:
        return sorted(
            f"{key}={value} " for value in values.get(key, ()) if f"{key}={value}".startswith(word)
        )
    return _next_parts(
        [key for key in keys if key not in [b.partition("=")[0] for b in before]], word
    )


def _next_parts(keys: Iterable[str], word: str) -> list[str]:
    """Returns the keys that begin with a word, each up to its next dot: `train.` before all of
    `train.duration=`.
    """
    out = set()
    for key in keys:
        if key.startswith(word):
            rest, dot, _ = key[len(word) :].partition(".")
            out.add(f"{word}{rest}{dot or '='}")
    return sorted(out)


def _of_run(command: str) -> tuple[list[str], dict[str, Iterable[str]]]:
    from jaxsft.config import compose, schema

    parts = PARTS_OF_RUN.get(command, ())
    options = compose.flat(compose.to_dict(schema.Config())) if parts else {}
    of_config = [key for key in options if key.startswith(tuple(f"{part}." for part in parts))]
    return [*OF_RUN[command], *of_config], {**compose.choices(), **VALUES}


def _of_config(command: str) -> tuple[list[str], dict[str, Iterable[str]]]:
    """Returns every option of the configs of a command, those of all choices of a group among them,
    and what each may be.
    """
    if command not in ROOTS:
        return [], {}
    from jaxsft.config import compose, overrides

    root = overrides.ROOTS[ROOTS[command]]
    if root is not overrides.Config:
        return list(compose.flat(compose.to_dict(root()))), {}
    keys = set(compose.flat(compose.to_dict(root())))
    for group, classes in compose.GROUPS.items():
        keys |= {f"{group}.{name}" for cls in classes.values() for name in cls.__dataclass_fields__}
    folders = [folder for folder in overrides.config_folder().iterdir() if folder.is_dir()]
    groups = {
        folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
        for folder in folders
        if folder.name != "recipe"
    }
    keys = {
        key
        for key in keys
        if not key.endswith((".name", ".kind")) or key in ("trackers.name", "model.kind")
    }
    return sorted(keys | set(groups)), {**compose.choices(), **groups}
