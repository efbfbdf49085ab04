"""docs/coming_from.md: options of TRL, Axolotl, LLaMA-Factory and others, and what they are here,
from the table that the hints are made of.
"""

from __future__ import annotations

from jaxsft.config import foreign

COMMANDS = (
    (
        "`SFTTrainer(model, args, train_dataset=...).train()`",
        "`jaxsft.train(...)` with the options of the command line: [Python](python.md)",
    ),
    (
        "`trl sft --model_name_or_path M --dataset_name D`",
        "`jaxsft train task=chat model.pretrained=FOLDER data.train=FILE`",
    ),
    (
        "`axolotl train config.yml`, `llamafactory-cli train config.yaml`",
        (
            "a YAML file in a folder of your own, `jaxsft train --config-dir DIR experiment=NAME`:"
            " [Training](training.md)"
        ),
    ),
    ("`axolotl preprocess`, `--debug`", "`jaxsft check`, which shows every token that is trained"),
    ("`llamafactory-cli chat`", "`jaxsft generate run=RUN`"),
    ("`axolotl merge-lora`, `llamafactory-cli export`", "`jaxsft export run=RUN to=FOLDER`"),
)
BEGINNING = """# Coming from TRL, Axolotl, LLaMA-Factory

Written by `tools/docs/coming_from.py` from `jaxsft/config/foreign.py`; `make docs` writes it again.

| there | here |
|---|---|
"""
END = """
A name of these tables in place of ours is an error that names ours:
`jaxsft train num_train_epochs=3` says `did you mean train.duration=3epochs?`.
[What is not there](out_of_scope.md) says what has no counterpart.
"""


def page() -> str:
    out = [BEGINNING + "\n".join(f"| {there} | {here} |" for there, here in COMMANDS), END]
    for title, entries in foreign.TABLE.items():
        out += [f"## {title}", "", "| elsewhere | here | |", "|---|---|---|"]
        for entry in entries:
            names = ", ".join(f"`{name}`" for name in entry.names.split())
            ours = f"`{entry.ours}`".replace("|", "\\|") if entry.ours else "none"
            out.append(f"| {names} | {ours} | {entry.note} |")
        out.append("")
    return "\n".join(out).rstrip() + "\n"
