"""docs/stages.md: every stage of `jaxsft prepare`, from its class: what it does, which rows it
sees, its options.
"""

from __future__ import annotations

import inspect

from jaxsft.prepare import stages
from jaxsft.prepare.stage import Stage
from tools.docs import options

ON = {
    "each": "every split by itself",
    "all": "all splits at once",
    "train": "the training split only; the others pass untouched",
}


def page() -> str:
    out = [
        "# Stages",
        "",
        (
            "Written by `tools/docs/stages.py` from the classes in `jaxsft/prepare/stages/`; `make"
            " docs` writes it again. How they are put together: [Prepare a data set](prepare.md)."
        ),
        "",
    ]
    for name in stages.STAGES:
        cls = stages.get(name)
        out += [f"## {name}", "", inspect.cleandoc(cls.__doc__), "", _facts(cls), ""]
        rows = options.items(cls, skip=("context",))
        out += [*(rows if len(rows) > 2 else ["No options."]), ""]
    return "\n".join(out).rstrip() + "\n"


def _facts(cls: type[Stage]) -> str:
    streams = cls.rows is Stage.rows and cls.on != "all" and not cls.learns
    facts = [f"Works on {ON[cls.on]}"]
    facts += ["learns from the training rows"] if cls.learns else []
    facts += ["takes one row at a time" if streams else "needs to see all rows"]
    facts += ["over `workers` processes"] if cls.slow and streams else []
    facts += (
        [
            "`predict` repeats it on new rows"
            + (", unless it drops or marks them" if isinstance(cls.replayed, property) else "")
        ]
        if cls.replayed
        else []
    )
    return "; ".join(facts) + "."
