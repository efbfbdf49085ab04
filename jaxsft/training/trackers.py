"""Experiment trackers behind one protocol: Weights & Biases, MLflow, Trackio. The first process of
a run writes.

Each works without a network: W&B is offline unless it is logged in, MLflow and Trackio keep a local
database. Where a tool is set up to send elsewhere (WANDB_MODE, MLFLOW_TRACKING_URI,
TRACKIO_SPACE_ID ...), it does. The id under which it knows the run stands in `manifest.json`, so
that a resumed run goes on in the same place. A tracker that fails is told once and named there; the
run goes on, and `metrics.jsonl` has every number.
"""

from __future__ import annotations

import contextlib
import contextvars
import netrc
import os
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse

from jaxsft import rundir
from jaxsft.config import compose
from jaxsft.config.schema import Config


class Tracker(Protocol):
    """One tool. Any exception of it is caught by `Trackers`."""

    def start(self, run_dir: Path, config: Config, resume: str | None) -> str:
        """Begins a run, or goes on with the one of this id. Returns: its id."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes numbers by name at a step; a resumed run may give a step again."""

    def finish(self, numbers: Mapping[str, float], ok: bool) -> None:
        """Writes the numbers of `result.json`; `ok` False: the run was stopped or failed."""


class Trackers:
    """Those of `trackers.use`, told together."""

    def __init__(self, run_dir: Path, config: Config):
        self._manifest, self._live = run_dir / "manifest.json", {}
        known = rundir.read_json(self._manifest).get("trackers", {}) if config.trackers.use else {}
        for name in config.trackers.use:
            self._live[name] = KINDS[name]()
            before = known.get(name, {}).get("id")
            given = self._attempt(name, "start", lambda t: t.start(run_dir, config, before))
            if given is not None:
                self._note(name, id=given, failed=None)  # what an earlier attempt failed at is over

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name in list(self._live):
            self._attempt(name, f"step {step}", lambda t: t.scalars(step, values))

    def finish(self, numbers: Mapping[str, float], ok: bool) -> None:
        """Ends all of them; a second call does nothing."""
        for name in list(self._live):
            self._attempt(name, "finish", lambda t: t.finish(numbers, ok))
        self._live.clear()

    def close(self) -> None:
        self.finish({}, ok=False)

    def _attempt(self, name: str, when: str, call: Callable[[Tracker], Any]) -> Any:
        try:
            # they greet; the standard output is for the numbers of the run
            with contextlib.redirect_stdout(sys.stderr):
                return call(self._live[name])
        except Exception as error:  # whatever a tool raises, it must not end a training
            del self._live[name]
            text = f"{when}: {type(error).__name__}: {' '.join(str(error).split())}"[:500]
            print(
                f"trackers.use=[{name}] failed and gets no further numbers ({text}); metrics.jsonl"
                " has all of them",
                file=sys.stderr,
                flush=True,
            )
            self._note(name, failed=text)
            return None

    def _note(self, name: str, **facts: str | None) -> None:
        """Notes facts of a tracker in the manifest, such as its id of the run.

        Removes those that are None.
        """
        content = rundir.read_json(self._manifest)
        known = content.setdefault("trackers", {}).get(name, {}) | facts
        content["trackers"][name] = {
            key: value for key, value in known.items() if value is not None
        }
        rundir.write_json(self._manifest, content)


def _name(run_dir: Path, config: Config) -> str:
    return config.trackers.name or run_dir.resolve().name


class WandB:
    """Weights & Biases. Offline runs lie in RUN/wandb; `wandb sync` sends them."""

    def start(self, run_dir: Path, config: Config, resume: str | None) -> str:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read at the import
        import wandb

        mode = (
            None
            if os.environ.get("WANDB_MODE") or self._logged_in(wandb.setup().settings.base_url)
            else "offline"
        )
        self._run = wandb.init(
            project=config.trackers.project,
            name=_name(run_dir, config),
            dir=str(run_dir),
            id=resume or secrets.token_hex(4),
            # offline, the same id is what joins them when they are synced
            resume="allow" if mode is None else None,
            config=compose.to_dict(config),
            allow_val_change=True,
            mode=mode,
            reinit="create_new",  # a run that the user has open in this process stays his
            settings=wandb.Settings(
                silent=True, console="off", save_code=False, disable_code=True, disable_git=True
            ),
        )
        # Its own step only grows; a resumed run gives some steps again.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        return self._run.id

    @staticmethod
    def _logged_in(base_url: str) -> bool:
        if os.environ.get("WANDB_API_KEY"):
            return True
        try:
            found = netrc.netrc(os.environ.get("NETRC") or Path("~/.netrc").expanduser())
        except (OSError, netrc.NetrcParseError):
            return False
        return found.authenticators(urlparse(base_url).hostname or "") is not None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def finish(self, numbers: Mapping[str, float], ok: bool) -> None:
        self._run.summary.update(dict(numbers))
        self._run.finish(exit_code=0 if ok else 1)


class MLflow:
    """MLflow's client: no global active run. The store is MLFLOW_TRACKING_URI, or MLflow's own
    default (mlflow.db in the working directory).
    """

    def start(self, run_dir: Path, config: Config, resume: str | None) -> str:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric, self._client = Metric, MlflowClient()
        if resume:
            self._client.update_run(resume, status="RUNNING")
            self._id = resume
            return resume
        found = self._client.get_experiment_by_name(config.trackers.project)
        experiment = (
            found.experiment_id
            if found
            else self._client.create_experiment(config.trackers.project)
        )
        self._id = self._client.create_run(
            experiment, run_name=_name(run_dir, config), tags={"run_dir": str(run_dir.resolve())}
        ).info.run_id
        # its limit
        params = [
            Param(key, str(value)[:6000])
            for key, value in compose.flat(compose.to_dict(config)).items()
        ]
        for i in range(0, len(params), 100):  # of a request
            self._client.log_batch(self._id, params=params[i : i + 100])
        return self._id

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self._client.log_batch(
            self._id,
            metrics=[self._metric(name, value, now, step) for name, value in values.items()],
        )

    def finish(self, numbers: Mapping[str, float], ok: bool) -> None:
        values = {f"result/{name}": rundir.number(value) for name, value in numbers.items()}
        self.scalars(int(numbers.get("train/steps", 0)), values)
        self._client.set_terminated(self._id, "FINISHED" if ok else "KILLED")


class Trackio:
    """Trackio; its database is in TRACKIO_DIR, or in the user's cache. A run is known by its name,
    so that one gets a suffix of its own.

    Trackio keeps the current run in a context variable, and a new one ends it: ours lives in a
    context of its own, so the user's goes on.
    """

    def start(self, run_dir: Path, config: Config, resume: str | None) -> str:
        import trackio

        name = resume or f"{_name(run_dir, config)}-{secrets.token_hex(2)}"
        values = compose.flat(compose.to_dict(config))
        with _warnings_raised("trackio"):
            how = {
                "resume": "allow" if resume else "never",
                "embed": False,
                "auto_log_gpu": False,
                "auto_log_cpu": False,
            }
            self._context = contextvars.Context()
            self._run = self._context.run(
                trackio.init, config.trackers.project, name, config=values, **how
            )
        self._end = trackio.finish
        return name

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        with _warnings_raised("trackio"):
            self._context.run(self._run.log, dict(values), step=step)

    def finish(self, numbers: Mapping[str, float], ok: bool) -> None:
        with _warnings_raised("trackio"):
            if numbers:
                values = {f"result/{name}": rundir.number(value) for name, value in numbers.items()}
                self._context.run(self._run.log, values, step=int(numbers.get("train/steps", 0)))
            self._context.run(self._end)


@contextlib.contextmanager
def _warnings_raised(source: str) -> Iterator[None]:
    """Raises warnings that name `source` as RuntimeError when the block ends; shows the others.

    Trackio tells of its failures in no other way.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if source in str(warning.message).lower():
            raise RuntimeError(str(warning.message))
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


KINDS: dict[str, Callable[[], Tracker]] = {"wandb": WandB, "mlflow": MLflow, "trackio": Trackio}
