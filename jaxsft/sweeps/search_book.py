"""The account of a search in `plan.yaml`: which sets of values were tried, by which trials.

`study` of the plan holds, beside what any study has, `search` (the options), `points` (each set of
values with the ids of its trials, one a seed) and `confirmations` (the best with other seeds). A
point and its trials are written at once; what became of a trial stands in the ledger alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxsft.config import search_options
from jaxsft.config.search_options import SearchConfig
from jaxsft.errors import JaxsftError
from jaxsft.sweeps import search_space, sweep_parent
from jaxsft.sweeps.search_space import Axis, Setting
from jaxsft.sweeps.sweep_parent import WantedTrial
from jaxsft.sweeps.sweep_plan import PlannedTrial, SweepPlan
from jaxsft.sweeps.trial_ledger import TrialLedger

KEY = "search"
Compose = Callable[[Setting], WantedTrial]  # raises JaxsftError where values do not go together


@dataclasses.dataclass(frozen=True)
class SearchPoint:
    """A set of values that was proposed.

    Attributes:
      number: its place, from 0, which is that of Optuna's trial too.
      values: of the options of the space.
      trials: ids, one a seed.
      refused: why there are none.
    """

    number: int
    values: Mapping[str, Any]
    trials: tuple[str, ...] = ()
    refused: str | None = None

    def plain(self) -> dict[str, Any]:
        """Returns the point as the plan holds it."""
        own = {"values": dict(self.values), "trials": list(self.trials)}
        return {**own, "refused": self.refused} if self.refused else own


def is_search(plan: SweepPlan) -> bool:
    """Returns whether the trials of a plan were searched for."""
    return bool(plan.study) and KEY in plan.study


def options_of(plan: SweepPlan) -> SearchConfig:
    """Returns the options that the plan of a search holds. Raises ConfigError."""
    return search_options.read(plan.study[KEY], f"{plan.folder / 'plan.yaml'}: study.search")


def axes_of(plan: SweepPlan) -> tuple[Axis, ...]:
    """Returns the space of the plan of a search. Raises ConfigError."""
    where = f"{plan.folder / 'plan.yaml'}: study.search.space"
    return search_space.read(plan.study[KEY]["space"], where)


def seeds_of(plan: SweepPlan) -> list[Setting]:
    """Returns what each set of values is trained with, one after the other."""
    return list(plan.study.get("with_each") or [{}])


def points_of(plan: SweepPlan) -> list[SearchPoint]:
    """Returns the points, in the order in which they were proposed."""
    return [
        SearchPoint(i, one["values"], tuple(one["trials"]), one.get("refused"))
        for i, one in enumerate(plan.study.get("points") or [])
    ]


def confirmations_of(plan: SweepPlan) -> dict[int, tuple[str, ...]]:
    """Returns the trials that confirm a point, by its number."""
    found = plan.study.get("confirmations") or []
    return {one["point"]: tuple(one["trials"]) for one in found}


class SearchBook:
    """Plans the trials of a search, and finds them again.

    Attributes:
      plan: as it stands on the disk.
    """

    def __init__(self, plan: SweepPlan, ledger: TrialLedger, compose: Compose):
        """Takes what composes the trial of some values; the caller holds the sweep's lock."""
        self.plan, self.ledger, self._compose = plan, ledger, compose
        self.trials = {one.id: one for one in plan.trials}

    def add(self, values: Setting) -> SearchPoint:
        """Plans a point with a trial for each seed, and returns it.

        Values that do not go together, or that were tried before, make no new trial.
        """
        number, wanted, why = len(self.plan.study.get("points") or []), [], None
        try:
            wanted = [self._compose({**values, **seed}) for seed in seeds_of(self.plan)]
        except JaxsftError as error:
            why = " ".join(str(error).split())
        point = SearchPoint(number, values, self._ids(wanted), why)
        points = [*(self.plan.study.get("points") or []), point.plain()]
        self._grow(wanted, points=points)
        return point

    def confirm(self, point: SearchPoint, seeds: Sequence[Setting]) -> None:
        """Plans trials of a point with other seeds. Raises JaxsftError."""
        wanted = [self._compose({**point.values, **seed}) for seed in seeds]
        entry = {"point": point.number, "seeds": list(seeds), "trials": list(self._ids(wanted))}
        others = self.plan.study.get("confirmations") or []
        kept = [one for one in others if one["point"] != point.number]
        self._grow(wanted, confirmations=[*kept, entry])

    def fresh_seeds(self, count: int) -> list[Setting]:
        """Returns seeds that no point was trained with, for the first option that is a seed."""
        used: set[Any] = set()
        with_each = seeds_of(self.plan)
        option = next((key for one in with_each for key in one), "seed")
        for one in self.plan.trials[:1]:
            used.add(search_space.chosen(one.config, option))
        used |= {one.get(option) for one in with_each}
        first = max((x for x in used if isinstance(x, int)), default=0) + 1
        return [{**with_each[0], option: first + i} for i in range(count)]

    def planned(self, ids: Sequence[str]) -> list[PlannedTrial]:
        """Returns the trials of some ids."""
        return [self.trials[one] for one in ids]

    def _ids(self, wanted: Sequence[WantedTrial]) -> tuple[str, ...]:
        return tuple(sweep_parent.id_of(self.plan, one) for one in wanted)

    def _grow(self, wanted: Sequence[WantedTrial], **study: Any) -> None:
        """Writes the plan with further trials and parts of the study, then the ledger."""
        plan = dataclasses.replace(self.plan, study={**self.plan.study, **study})
        data = sweep_parent.fingerprints([one.config for one in wanted], plan.data)
        self.plan = sweep_parent.grown(plan, wanted, plan.code, data)
        states = self.ledger.states()
        for one in self.plan.trials[len(self.trials) :]:
            self.trials[one.id] = one
            if one.id not in states:
                self.ledger.append("planned", one.id, one.number, 0)
