"""Fine-tunes a small model on a bilingual instruction data set that is made on the spot, scores it
on held-out prompts and writes a report.

  jaxsft demo [run_dir=DIR] [any option of jaxsft train]

Two minutes on two cores, offline. The data is an ordinary JSONL file, `DIR/data.jsonl`.
"""

from __future__ import annotations

import json
from pathlib import Path

from jaxsft import rundir
from jaxsft.commands import hydra_app
from jaxsft.commands.train import run as train
from jaxsft.config.schema import Config
from jaxsft.data import synthetic
from jaxsft.errors import JaxsftError

ROWS = 6000


def main(arguments: list[str]) -> int:
    given = {a.partition("=")[0]: a.partition("=")[2] for a in arguments}
    run_dir = rundir.create(given.get("run_dir") or None, stem="demo")
    data = run_dir / "data.jsonl"
    if not data.exists():
        synthetic.write(data, seed=0, rows=ROWS)
    print(f"{ROWS:,} instructions in English and Chinese: {data}\n")
    own = [f"data.path={data}", "data.fractions=[0.9,0.05,0.05]", f"run_dir={run_dir}"]
    return hydra_app.run(
        ["experiment=demo", *own, *(a for a in arguments if not a.startswith("run_dir="))], run
    )


def run(config: Config) -> int:
    if code := train(config):
        return code
    run_dir = Path(config.run_dir)
    check_held_out(run_dir)
    lines = rundir.read_jsonl(run_dir / "predictions" / "test.jsonl")
    print("\nten held-out prompts:")
    for line in lines[:: max(len(lines) // 10, 1)][:10]:
        mark = "right" if line["correct"] else f"wrong, expected {line['reference']}"
        print(f"  {line['prompt']} -> {line['prediction']}   ({mark})")
    score = rundir.number(rundir.read_json(run_dir / "result.json")["test/exact_match"])
    print(f"\nexact match on {len(lines)} held-out prompts: {score:.3f}")
    print("\ntry next:")
    print(f'  jaxsft generate run={run_dir} prompt="{lines[0]["prompt"]}"')
    print(
        "  jaxsft train task=chat data.path=FILE.jsonl          on your own prompts and"
        " completions, or messages"
    )
    print(
        "  jaxsft train -m experiment=demo data.path="
        + str(run_dir / "data.jsonl")
        + " optim=adamw,muon   an ablation of two optimizers"
    )
    return 0


def check_held_out(run_dir: Path) -> None:
    """Raises JaxsftError where a prompt of the test set is in the training set or repeated."""
    prompts = [row["prompt"] for row in rundir.read_jsonl(run_dir / "data.jsonl")]
    leaks = json.loads((run_dir / "ledger.json").read_text(encoding="utf-8"))["test"][
        "also_in_train"
    ]
    if leaks or len(set(prompts)) != len(prompts):
        raise JaxsftError(
            f"{run_dir / 'data.jsonl'}: {leaks} test rows are in the training set,"
            f" {len(prompts) - len(set(prompts))} prompts are repeated"
        )
