"""Trains once for each fold of one set of rows, and scores every row by a model that did not train
on it.

jaxsft crossval task=classify data.path=all.csv crossval.folds=5
jaxsft crossval ... crossval.repeats=3                        other folds and seeds, three times
jaxsft crossval ... crossval.groups=author                    rows of one author stay together
jaxsft crossval ... crossval.choose=[optim.learning_rate=1e-3,optim.learning_rate=3e-3]
  each fold chooses by inner folds of its own training rows (crossval.nested)
jaxsft crossval ... crossval.fractions=[0.1,0.2,0.5,1]        a learning curve too
jaxsft crossval ... run_dir=runs/mine                         the same command again goes on with
  the folds that are not finished

The options are those of jaxsft train. Beside data.train=FILE, data.validation and data.test are
sets that no fold trains on, and that every fold is scored on.
"""

from __future__ import annotations

import sys

from jaxsft import progress, remote
from jaxsft.commands import hydra_app
from jaxsft.config import metric_names
from jaxsft.config.schema import Config
from jaxsft.data.config_files import check_files


def main(arguments: list[str]) -> int:
    return hydra_app.run(arguments, run)


def run(config: Config) -> int:
    if "jax" not in sys.modules:
        check_files(config)
    if sys.stderr.isatty():
        progress.doing("starting JAX")
    with progress.ended():
        from jaxsft import plugins, rundir
        from jaxsft.training import cross_validation, recorder

    plugins.begin()
    result = cross_validation.cross_validate(config)
    if result.stopped_by is None:
        content = rundir.read_json(result.run_dir / "figures" / "crossval.json")
        print("\n".join(["", *told(content), ""]))
        print(f"written: {remote.join(result.mirror.place, 'figures/crossval.json')}")
    sys.stdout.flush()
    return recorder.exit_code(result)


def told(content: dict) -> list[str]:
    """Returns the lines for the screen: each number pooled, and its mean over the folds."""
    first, pooled, means = content["metric"], content["pooled"], content["mean"]
    twice = metric_names.repeated({("", n): e["value"] for n, e in means.items()}, list(means))
    names = [n for n in metric_names.ordered(means, first) if "se" in means[n] and n not in twice]
    head = f"{'':<24}{'held out':>28}{'mean of folds':>32}{'sd':>10}"
    lines = [head]
    for name in names:
        one = means[name]
        mean = _spelled(one)
        lines.append(f"{name:<24}{_spelled(pooled.get(name)):>28}{mean:>32}{one['sd']:>10.3g}")
    compiled = ", ".join(f"{what} {n}" for what, n in content["compiled"].items())
    lines += ["", f"compiled: {compiled}", *content["notes"]]
    for name, fit in content.get("learning_curve", {}).get("fits", {}).items():
        if name == first:
            lines.append(f"{name} of twice the rows: {_spelled(fit.get('doubled'))}")
    return lines


def _spelled(entry: dict | None) -> str:
    if entry is None:
        return ""
    if entry.get("low") is None:
        return f"{float(entry['value']):.4g}"
    return f"{entry['value']:.4g} [{entry['low']:.4g}, {entry['high']:.4g}]"
