"""Several trials of one session: one program, the batches of all, and each is its solo run."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest

from jaxsft.config import schema
from jaxsft.errors import ConfigError
from jaxsft.optim.rules.adamw import AdamW
from jaxsft.training import loop, recorder, setup
from jaxsft.training.session import Session
from tests import tiny

RATES = (1e-2, 3e-3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny.data(tmp_path_factory.mktemp("data"))


def config(files, folder, rate, **groups):
    evaluation = {"every": "4steps", "generate": "never", "patience": 1 if rate == RATES[1] else 9}
    return tiny.config(
        files,
        folder,
        "classify",
        optim=AdamW(learning_rate=rate),
        evaluation=evaluation,
        **groups,
    )


def trained_together(configs) -> list:
    """Trains the configs as trials of one session."""
    configs = [setup.resolve(one) for one in configs]
    with contextlib.ExitStack() as stack:
        records = [stack.enter_context(recorder.opened(one, one))[0] for one in configs]
        session = Session(configs[0])
        trials = [session.trial()]
        for one in configs[1:]:
            metric = dataclasses.replace(one.evaluation, metric=session.config.evaluation.metric)
            trials.append(session.trial(dataclasses.replace(one, evaluation=metric)))
        for trial, one in zip(trials, records, strict=True):
            stack.enter_context(contextlib.closing(one))
            assert one.open(session, trial) is None
            one.resume()
        session.compile(trials[0])
        for one in records:
            one.announce()
        return loop.run(session, trials, records)


def test_trials_of_a_session_are_their_solo_runs(files, tmp_path):
    """To the bit, also where one of them stops early; and each run directory is one by itself."""
    for rate in RATES:
        loop.train(config(files, tmp_path / "solo" / str(rate), rate))
    configs = [config(files, tmp_path / "together" / str(rate), rate) for rate in RATES]
    results = trained_together(configs)
    for rate, result in zip(RATES, results, strict=True):
        alone = tiny.outcome(tmp_path / "solo" / str(rate))
        assert tiny.outcome(tmp_path / "together" / str(rate)) == alone
        assert result.numbers == alone["result"]
    # complete for the command too
    again = loop.train(configs[1])
    assert again.numbers == results[1].numbers


@pytest.mark.parametrize(
    "groups, told",
    [
        ({"seeds": {"data": 7}}, "seeds.data: trials of one session share it"),
        ({"train": {"duration": "5steps", "batch_size": 4}}, "train.duration: trials of one"),
        ({"model": {"dropout": 0.0}}, "model.dropout: turns a part of the step on or off"),
    ],
    ids=["other batches", "other clock", "other program"],
)
def test_a_trial_of_another_program_is_refused(files, tmp_path, groups, told):
    session = Session(setup.resolve(config(files, tmp_path / "run", RATES[0])))
    changes = {
        name: dataclasses.replace(getattr(session.config, name), **values)
        for name, values in groups.items()
    }
    with pytest.raises(ConfigError, match=told):
        session.trial(dataclasses.replace(session.config, **changes))
    assert isinstance(session.config, schema.Config)
