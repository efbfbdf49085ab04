"""Looks at a data set before training: every row, the labels, the tokens, the leaks; nothing is
trained.

jaxsft check task=classify data.train=train.csv data.test=test.csv
jaxsft check task=chat data.path=chats.jsonl tokenizer=pretrained tokenizer.path=FOLDER
jaxsft check task=tag data.train=words.conll check.output=checked     check.json and check.html
jaxsft check ... check.json=- | jq .counts

The options are those of jaxsft train. The exit code is 1 where there is an error, else 0.
check.accept=[leak_exact] accepts an error by its name.
"""

from __future__ import annotations

import sys

from jaxsft.commands import hydra_app
from jaxsft.config.schema import Config
from jaxsft.data.config_files import check_files


def main(arguments: list[str]) -> int:
    return hydra_app.run(arguments, run)


def run(config: Config) -> int:
    import os

    # nothing is computed: no accelerator is taken from another run
    os.environ.setdefault("JAX_PLATFORMS", "cpu")

    if "jax" not in sys.modules:
        check_files(config)

    from jaxsft.check import check, summary

    result = check(config)
    paths = summary.write(result, config.check.output, config.check.json)
    if config.check.json == "-":
        print(summary.json_text(result.as_dict()))
    else:
        print(summary.text(result, summary.colours()))
        for path in paths:
            print(path)
    sys.stdout.flush()
    return 1 if result.errors else 0
