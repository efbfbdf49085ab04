"""task=regress from file to file: the checkpoint is chosen by a metric of one of several
targets."""

from jaxsft.rundir import read_json, read_jsonl
from tests import tiny


def test_the_best_checkpoint_is_that_of_one_target(tmp_path):  # guards E8
    """By its lowest error, not its highest; a name that is not there is refused, with those that
    are.
    """
    rows = [{"text": f"{i % 5} {i % 7}", "x": i % 5, "y": i % 7} for i in range(30)]
    train, held = (
        tiny.write_lines(tmp_path / "train.jsonl", rows[:20]),
        tiny.write_lines(tmp_path / "held.jsonl", rows[20:]),
    )
    options = [
        *tiny.MODEL,
        "mesh.data=1",
        "precision=fp32",
        "optim.learning_rate=0.03",
        "schedule=constant",
    ]
    given = [
        "task=regress",
        f"data.train={train}",
        f"data.validation={held}",
        "data.columns.targets=[x, y]",
        *options,
    ]
    code, out, err = tiny.jaxsft(
        "train", *given, f"run_dir={tmp_path / 'none'}", "evaluation.metric=validation/rmse_z"
    )
    assert (
        code == 1
        and not out
        and "evaluation.metric=validation/rmse_z: unknown" in err
        and "validation/rmse_y" in err
        and err.count("\n") == 1
    )
    often = (
        "train.duration=6steps",
        "evaluation.every=1steps",
        "checkpoint.every=1steps",
        "evaluation.metric=validation/rmse_y",
    )
    code, _, err = tiny.jaxsft("train", *given, *often, f"run_dir={tmp_path / 'run'}")
    assert code == 0, err
    lines = [
        line
        for line in read_jsonl(tmp_path / "run" / "metrics.jsonl")
        if line["kind"] == "validation"
    ]
    best = lambda name, choose: choose(lines, key=lambda line: line[name])["step"]
    result = read_json(tmp_path / "run" / "result.json")
    assert result["train/best_step"] == best("rmse_y", min) != best("rmse_y", max)
    assert result["validation/rmse_y"] == min(line["rmse_y"] for line in lines)
