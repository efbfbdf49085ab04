"""`manifest.json`: what a run was made with."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import math
import platform
import sys
import time
from pathlib import Path
from typing import Any

import jax

import jaxsft
from jaxsft import invocation, plugins, rundir, seal
from jaxsft.config import compose
from jaxsft.config.schema import Config
from jaxsft.data import hub
from jaxsft.errors import ConfigError

VERSION = jaxsft.__version__
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "hydra-core",
    "numpy",
    "tokenizers",
)


def manifest(parts: Any, data: dict[str, str]) -> dict[str, Any]:
    """Returns the manifest of a run: with what code, data and machine it is made.

    It has versions, devices, command, start, host, git revision, hashes of data, tokenizer, task
    state and config, and commits of what came from the hub.
    """
    return {
        "versions": {
            "jaxsft": VERSION,
            "python": platform.python_version(),
            **{p: importlib.metadata.version(p) for p in PACKAGES},
        },
        "platform": platform.platform(),
        "processes": jax.process_count(),
        "devices": [f"{d.platform}:{d.id} {d.device_kind}" for d in parts.mesh.devices.flat],
        "command": invocation.command(parts.config.run_dir),
        "started": _moment(time.time()),
        "host": platform.node(),
        "git": invocation.git_revision(),
        "parameters": {"total": _count(parts.specs), "trainable": _count(parts.program.specs)},
        "data": data,
        "tokenizer": parts.tokenizer.digest,
        "task": rundir.sha256_json(parts.task.state),
        "config": config_hash(parts.config),
        **(
            {}
            if parts.vectors is None
            else {"vectors": {"rows": len(parts.vectors.rows), "words": parts.vectors.words}}
        ),
        **({"plugins": theirs} if (theirs := _plugins(parts.config)) else {}),
        "hub": hub.commits(compose.flat(compose.to_dict(parts.config))),
    }


def _plugins(config: Config) -> list[dict[str, Any]]:
    """Returns the plug-ins that a run uses.

    Its options name some; its data and its pretrained model may need others.
    """
    for kind, names in {
        "tasks": [config.task.name],
        "losses": [getattr(config.task, "loss", "")],
        "metrics": config.evaluation.metrics,
        "optimizers": [config.optim.name],
        "schedules": [config.schedule.name],
    }.items():
        for name in names:
            plugins.note(kind, name)
    return plugins.used()


def named(run_dir: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Returns the manifest with what stays for the life of a run.

    That is the name that its steps carry (`run`, new where the run is), and the ids under which
    trackers know it (`trackers`).
    """
    path = run_dir / seal.MANIFEST
    if not path.exists() or not (run_dir / seal.CONFIG).exists():
        return facts | {"run": seal.name_of(facts)}
    return (
        facts
        | {"trackers": {}}
        | {k: v for k, v in seal.read(run_dir).items() if k in ("run", "trackers")}
    )


def check_config(run_dir: Path, config: Config) -> None:
    """Raises ConfigError where the directory belongs to another config."""
    path = run_dir / "config.yaml"
    if not path.exists():
        if others := [
            name
            for name in ("checkpoints", "metrics.jsonl", "predictions", "result.json")
            if (run_dir / name).exists()
        ]:
            raise ConfigError(
                f"run_dir={run_dir} holds {others[0]} of something else: a run has a config.yaml"
                " too; choose another run_dir="
            )
        return
    before, now = (compose.flat(compose.to_dict(c)) for c in (compose.read(path), config))
    # the data decide about it
    metric = ["evaluation.metric"] if config.evaluation.metric == "auto" else []
    open_keys = (*compose.CHANGEABLE, *metric)
    changed = [
        k
        for k in sorted(before.keys() | now.keys())
        if before.get(k) != now.get(k) and not k.startswith(open_keys)
    ]
    if changed:
        k = changed[0]
        raise ConfigError(
            f"run_dir={run_dir} holds a run with {k}={before.get(k)}, this one has"
            f" {k}={now.get(k)}; choose another run_dir="
        )


def kept(run_dir: Path, asked: Config, config: Config) -> Config:
    """Returns the config of a run that goes on, with the precision that the run began with.

    What `precision=auto` came to at the start stays, whatever this machine would choose.
    """
    path = run_dir / "config.yaml"
    if asked.precision != "auto" or not path.exists():
        return config
    before = compose.read(path).precision
    if before in ("auto", config.precision):
        return config
    origins = (*config.origins, ("precision", "as the run began"))
    return dataclasses.replace(config, precision=before, origins=origins)


def check_unchanged(run_dir: Path, place: str | Path, facts: dict[str, Any]) -> None:
    """Raises ConfigError where data, tokenizer or template are not those the run started with."""
    path = run_dir / "manifest.json"
    if not path.exists():
        return
    before = rundir.read_json(path)
    if not isinstance(before, dict) or not isinstance(before.get("data"), dict):
        raise ConfigError(
            f"{path}: not the manifest of a run (it does not say what data the run was started"
            " with); choose another run_dir="
        )
    changed = [
        f"the data of {k}"
        for k in sorted(facts["data"].keys() | before["data"].keys())
        if before["data"].get(k) != facts["data"].get(k)
    ]
    parts = {
        "tokenizer": "the tokenizer",
        "task": "the template or the labels",
        "hub": "a file of the hub",
    }
    changed += [
        what for key, what in parts.items() if (before.get(key) or None) != (facts.get(key) or None)
    ]
    if changed:
        raise ConfigError(
            f"run_dir={place}: {', '.join(changed)} changed since; choose another run_dir="
        )


def add_session(run_dir: Path, began: float, first: int, last: int, mesh: Any, trials: int) -> None:
    """Adds a line to `times.jsonl` about the work of this process on the run.

    It says when, from which step to which, how long, where, with how much memory, and with how many
    `trials` together: time and memory are those of all of them.
    """
    if jax.process_index() != 0:
        return
    facts = {
        "started": _moment(began),
        "seconds": round(time.time() - began, 1),
        "first_step": first,
        "last_step": last,
        "host": platform.node(),
        "peak_host_bytes": _peak_of_process(),
        "peak_device_bytes": _peak_of_devices(mesh),
        "trials": trials if trials > 1 else None,
    }
    with rundir.JsonLines(run_dir / "times.jsonl") as lines:
        lines.append({key: value for key, value in facts.items() if value is not None})


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _peak_of_process() -> int | None:
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )
    return None


def _peak_of_devices(mesh: Any) -> int | None:
    """Returns the most bytes that one device held; None where devices do not count, as on CPU."""
    counted = [
        (device.memory_stats() or {}).get("peak_bytes_in_use") for device in mesh.local_devices
    ]
    return max((count for count in counted if count), default=None)


def _count(specs: Any) -> int:
    return sum(math.prod(s.shape) for s in jax.tree.leaves(specs))


def config_hash(config: Config) -> str:
    """Returns the SHA-256 of the options that make a run what it is.

    Where the run lies and how long it goes are left out (`compose.CHANGEABLE`).
    """
    values = compose.flat(compose.to_dict(config))
    return rundir.sha256_json(
        {k: v for k, v in values.items() if not k.startswith(compose.CHANGEABLE)}
    )
