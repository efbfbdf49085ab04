"""`train.backbone=cached`: what would train the backbone, or make of one text another vector in
every epoch, is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxsft import plugins
from jaxsft.config.schema import Config
from jaxsft.config.tasks import PairTask
from jaxsft.errors import ConfigError

FROZEN = "(?!head/).*"  # all but the head


def frozen(given: Sequence[str]) -> list[str]:
    """`train.freeze` of a cached backbone; patterns that were given may freeze a part of the head
    too.
    """
    return [*given] if FROZEN in given else [*given, FROZEN]


def check(config: Config) -> None:
    """Raises ConfigError."""
    if config.train.backbone != "cached":
        if config.train.backbone_limit is not None:
            raise ConfigError(
                f"train.backbone_limit={config.train.backbone_limit}: is read with"
                " train.backbone=cached; leave it out"
            )
        return
    t, train = config.task, config.train
    specs = [*plugins.table("tasks").own_items()]
    own = [name for what in ("text", "words") for name, spec in specs if spec.about == what]
    moves = "a cached backbone gives the same numbers in every epoch"
    soft = bool(config.data.columns.features) and getattr(t, "features", "") == "tokens"
    bare = (
        isinstance(t, PairTask)
        and t.encoder == "bi"
        and t.loss != "cross_entropy"
        and t.pool != "attention"
        and t.head == "linear"
    )
    for wrong, option, why in (
        (
            t.spec.over_vocabulary,
            f"task={t.name}",
            f"it has no head apart from the model; those that have one are {', '.join(own)}",
        ),
        (
            config.adapter.name != "none",
            f"adapter={config.adapter.name}",
            "it trains inside the backbone, which is frozen; set adapter=none",
        ),
        (
            train.unfreeze_every is not None,
            f"train.unfreeze_every={train.unfreeze_every}",
            "the backbone stays frozen; leave it out",
        ),
        (
            config.model.train_rows != "all",
            f"model.train_rows={config.model.train_rows}",
            "the embedding is frozen; leave it out",
        ),
        (
            config.model.dropout > 0,
            f"model.dropout={config.model.dropout}",
            f"{moves}; set model.dropout=0",
        ),
        (train.neftune is not None, f"train.neftune={train.neftune}", f"{moves}; leave it out"),
        (
            config.loss.balance > 0,
            f"loss.balance={config.loss.balance}",
            "the routers are frozen; leave it out",
        ),
        (
            config.loss.router_z > 0,
            f"loss.router_z={config.loss.router_z}",
            "the routers are frozen; leave it out",
        ),
        (
            soft,
            "task.features=tokens",
            (
                "the vectors of data.columns.features are learnt below the backbone; set"
                " task.features=text"
            ),
        ),
        (
            bare,
            f"task.loss={getattr(t, 'loss', '')}",
            "its head has no weights, so that nothing would be trained; set task.head=dense",
        ),
    ):
        if wrong:
            raise ConfigError(f"train.backbone=cached excludes {option}: {why}")
