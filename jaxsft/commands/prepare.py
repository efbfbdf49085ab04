"""Takes a data set through a list of stages and leaves a folder with its splits and a manifest of
everything that was done.

jaxsft prepare data.path=dirty.csv stages=[clean,dedup,split] output.dir=prepared
jaxsft prepare data.path=dirty.csv
  'stages=[clean,{dedup:{threshold:0.8}},{split:{fractions:[0.8,0.1,0.1]}}]' output.dir=prepared
jaxsft prepare data.train=a.csv data.test=b.csv 'stages=[{missing:{fields:[age],strategy:median}}]'
  output.dir=prepared workers=4
jaxsft prepare data.path=dirty.csv recipe=text output.dir=prepared        the stages of
  conf/recipe/text.yaml
jaxsft prepare data.path=dirty.csv 'stages=[denoise]' run=runs/mine output.dir=prepared      asks
  the model of a run
jaxsft train task=classify data.path=prepared                              trains on its splits

The same command again does nothing; after an interruption it goes on behind the last stage that was
done.
"""

from __future__ import annotations

from typing import Any

from jaxsft.commands import hydra_app
from jaxsft.config.schema import PrepareConfig


def main(arguments: list[str]) -> int:
    return hydra_app.run(arguments, run, "prepare")


def run(config: PrepareConfig) -> int:
    from jaxsft.data import formats
    from jaxsft.prepare import run as preparing

    models: dict[str, Any] = {}
    if config.run is not None:
        from jaxsft import api  # with jax, which most stages do without

        models = api.model_functions(config.run)
    manifest, done = preparing.prepare(config, models)
    print(summary(manifest))
    for path in filter(
        None, (config.data.path, config.data.train, config.data.validation, config.data.test)
    ):
        for note in formats.left_out_note(path, config.data.format):
            print(note)
    what = "written" if done else "there already: same files, stages and seed; nothing was done"
    print(f"{config.output.dir}: {what}")
    return 0


def summary(manifest: dict[str, Any]) -> str:
    """Formats one line per stage and set: rows read, dropped, added, changed and written."""
    lines = []
    for told in manifest["stages"]:
        for split, counts in told["sets"].items():
            parts = [f"{counts['read']:,} rows"]
            parts += [f"- {n:,} {reason}" for reason, n in counts["dropped"].items()]
            parts += [f"+ {n:,} {reason}" for reason, n in counts.get("added", {}).items()]
            parts += [
                f"{n:,} {reason}"
                for kind in ("changed", "marked")
                for reason, n in counts.get(kind, {}).items()
            ]
            lines.append(f"{told['stage']:<14}{split:<12}{', '.join(parts)}")
    splits = ", ".join(f"{name} {split['rows']:,}" for name, split in manifest["splits"].items())
    return "\n".join([*lines, f"{'rows':<14}{splits}"])
