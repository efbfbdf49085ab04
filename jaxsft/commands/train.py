"""Fine-tunes on the user's own data and leaves a run directory with weights, numbers, predictions
and a report.

jaxsft train task=chat data.train=train.jsonl data.test=test.jsonl data.columns.prompt=question
  data.columns.completion=answer
jaxsft train task=classify data.path=all.csv                 split 70/15/15 by content
jaxsft train task=lm data.train=book.txt data.unit=paragraph
jaxsft train ... run_dir=runs/mine                           the same command again continues an
  unfinished run
jaxsft train ... debug=overfit                               learn ten rows by heart first
"""

from __future__ import annotations

import sys

from jaxsft import progress, remote
from jaxsft.commands import hydra_app
from jaxsft.config.schema import Config
from jaxsft.data.config_files import check_files


def main(arguments: list[str]) -> int:
    return hydra_app.run(arguments, run, trains=True)


def run(config: Config) -> int:
    if "jax" not in sys.modules:
        check_files(config)
    if sys.stderr.isatty():
        progress.doing("starting JAX")
    with progress.ended():
        from jaxsft import api
        from jaxsft.sharding import hosts
        from jaxsft.training import recorder

    result = api.train(config)
    if result.stopped_by is not None:
        hosts.leave()
    elif hosts.first():
        from jaxsft.reports import scores

        first, bounds = scores.of_run(result.run_dir), scores.intervals_of_run(result.run_dir)
        print("\n".join(["", *scores.lines(result.numbers, first, bounds), ""]))
        print(f"report: {remote.join(result.mirror.place, 'report.html')}")
    sys.stdout.flush()
    return recorder.exit_code(result)
