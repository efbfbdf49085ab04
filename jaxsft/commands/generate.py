"""Answers one prompt, from the run directory alone: the template, the stop token and the tokenizer are those of training.

  jaxsft generate run=runs/mine prompt="translate: red cat" [generate.max_new_tokens=64] [generate.temperature=0.7 seed=1]

A run of task=lm continues the prompt as text.
"""

from __future__ import annotations

from jaxsft.commands import from_run


def main(arguments: list[str]) -> int:
    mine, overrides = from_run.arguments(arguments, ("run", "prompt"), ("run", "prompt"))

    from jaxsft import api

    print(api.load(mine["run"], *overrides).generate(mine["prompt"]))
    return 0
