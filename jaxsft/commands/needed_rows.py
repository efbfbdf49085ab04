"""Says how many rows, or how many seeds, a difference needs to be told from noise.

  jaxsft power run=runs/a effect=0.02 [power=0.8] [level=0.95] [metric=accuracy] [split=test]
  jaxsft power run=runs/a against=runs/b effect=0.02
  jaxsft power run=runs/a1,runs/a2,runs/a3 effect=0.02

From one run the rows are an upper estimate: a second run is taken to be right and wrong on other
rows. With against= the variance is that of the difference on the same rows, which is smaller for
runs that are alike. Several runs, one a seed, also say how many seeds an arm needs on these rows.
The runs may be files of predictions, with columns=NAME. --json prints the result as JSON.
"""

from __future__ import annotations

from typing import Any

from jaxsft import rundir
from jaxsft.commands import compare_runs, from_run
from jaxsft.errors import ConfigError

OWN = (
    "run", "against", "effect", "power", "level", "metric", "split", "columns", "replicates",
    "seed",
)  # fmt: skip


def main(arguments: list[str]) -> int:
    as_json = "--json" in arguments
    given, other = from_run.arguments(
        [a for a in arguments if a != "--json"], OWN, ("run", "effect")
    )
    if other:
        raise ConfigError(
            f"{other[0].partition('=')[0]}=: unknown; there are {', '.join(f'{k}=' for k in OWN)}"
        )

    from jaxsft.evaluation import compare, compared_runs, power

    groups = [compare_runs.listed(given[key]) for key in ("run", "against") if key in given]
    if not all(groups):
        raise ConfigError("run=, against=: give a run, or several with commas between them")
    settings = compare.Settings(
        level=compare_runs.numeric(given, "level", 0.95, float),
        replicates=compare_runs.numeric(given, "replicates", 2000, int),
        seed=compare_runs.numeric(given, "seed", 0, int),
    )
    effect = compare_runs.numeric(given, "effect", None, float)
    wanted = compare_runs.numeric(given, "power", 0.8, float)
    runs = iter(
        compared_runs.read(
            [place for group in groups for place in group],
            given.get("split", "test"),
            compare_runs.listed(given.get("columns")),
        )
    )
    names = compare_runs.short_names(groups)
    arms = [
        compare.Arm(name, tuple(next(runs) for _ in group))
        for name, group in zip(names, groups, strict=True)
    ]
    number = given.get("metric") or _chosen(arms)
    found = power.spread(arms, number, settings)
    result = power.needed(found, effect, wanted, settings.level)
    asked = {"metric": number, "effect": effect, "power": wanted, "level": settings.level}
    if as_json:
        print(rundir.json_text({**asked, **found, "needed": result}, indent=1))
    else:
        print("\n".join(lines(asked, found, result)))
    return 0


def _chosen(arms: list[Any]) -> str:
    """Returns the number that the run was chosen by, or its first one."""
    run = arms[0].runs[0]
    numbers = [n for metric in run.metrics.values() for n in metric.names if n not in metric.counts]
    if not numbers:
        raise ConfigError(f"{run.name}: has no number with bounds")
    return run.content.chosen if run.content.chosen in numbers else numbers[0]


def lines(asked: dict[str, Any], found: dict[str, Any], result: dict[str, Any]) -> list[str]:
    """Returns what a difference needs, as sentences."""
    values = ", ".join(f"{value:.4f}" for value in found["values"])
    of = "difference on the same rows" if found["paired"] else "one run, so an upper estimate"
    out = [
        f"{asked['metric']}: {values} on {found['rows']:,} rows; variance of the {of}"
        if found["paired"]
        else f"{asked['metric']}: {values} on {found['rows']:,} rows; variance of {of}",
        f"a difference of {asked['effect']:g} is told with power {asked['power']:g}"
        f" (level {asked['level']:g}) by {result['rows']:,} rows",
        f"the {found['rows']:,} rows that there are tell it with power {result['power_now']:.2f};"
        f" the smallest difference with power {asked['power']:g} is {result['smallest_now']:.4f}",
    ]
    if found["seed_variance"] is not None:
        sd = found["seed_variance"] ** 0.5
        need = (
            f"{result['seeds']} runs an arm tell it on these rows"
            if result["seeds"] is not None
            else "no number of runs tells it on these rows: more rows are needed first"
        )
        out.append(f"between seeds the standard deviation is {sd:.4f}; {need}")
    return out
