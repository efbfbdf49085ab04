"""Compiles the training and the evaluation step of a run, and says what they need: memory by kind,
FLOPs, bytes of memory and of every collective, the least time of a step.

jaxsft plan task=lm model.pretrained=FOLDER topology=v5p:4x4x4 data.max_length=8192
jaxsft plan ... plan.search=true                    more rows a chip and tensor parallelism as well
jaxsft plan ... plan.devices=8 mesh.data=8          for devices of a CPU that need not be there
jaxsft plan ... plan.output=plan.json               all figures as JSON
jaxsft plan ... plan.tokens=1e9 plan.dollars=4.2    hours and cost of the whole run

The options are those of jaxsft train. Without data, FOLDER may hold a config.json and nothing else.
Exit code: 0 where it fits, 1 where it does not.
"""

from __future__ import annotations

import sys

from jaxsft import progress, rundir
from jaxsft.commands import hydra_app
from jaxsft.config.schema import Config


def main(arguments: list[str]) -> int:
    short = ("topology=", "output=", "search=", "devices=", "tokens=", "dollars=")
    words = [f"plan.{word}" if word.startswith(short) else word for word in arguments]
    return hydra_app.run(words, run)


def run(config: Config) -> int:
    from jaxsft import planning

    def tell(line: str) -> None:
        progress.done()
        print(line, file=sys.stderr)
        progress.doing("compiling the next")

    progress.doing("compiling")
    with progress.ended():
        best = planning.plan(config, tell)
    print("\n".join(planning.told(best)))
    if config.plan.output:
        print(f"written: {rundir.write_json(config.plan.output, best)}")
    return 0 if best["fits"] else 1
