"""Trials as jobs of a cluster: a simulated one, submitit on this machine, and Ray on this machine.

Jobs train nothing (`fake_cluster.py`); what they claim and write is what a worker does.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
from pathlib import Path
from typing import ClassVar
from unittest import mock

import pytest

from jaxsft.config.sweep_options import SweepConfig
from jaxsft.errors import ConfigError
from jaxsft.rundir import read_json, write_json
from jaxsft.sweeps import cluster_jobs, launchers, processes, submitit_cluster, worker
from jaxsft.sweeps.processes import UNKNOWN
from jaxsft.sweeps.scheduler import Grid, Scheduler, SweepLimits
from jaxsft.sweeps.sweep_plan import SweepPlan
from jaxsft.sweeps.trial_ledger import TrialLedger
from tests import tiny
from tests.sweeps import fake_cluster, sweeping
from tests.sweeps.sweeping import meanwhile, starts, states, statuses, until

SIMULATED = "tests.sweeps.test_clusters:SimulatedCluster"


class SimulatedJob:
    """A job that runs in this process when the cluster has room."""

    def __init__(self, name, work):
        self.name, self.work, self.ended, self.told = name, work, None, []

    def code(self):
        return self.ended

    def stop(self):
        self.told.append("stop")
        if self.work is not None:
            self.work, self.ended = None, UNKNOWN  # it was in the queue

    def kill(self):
        self.told.append("kill")

    def go(self):
        work, self.work = self.work, None
        self.ended = work()


class SimulatedCluster:
    """A cluster whose jobs wait until somebody lets them run.

    Attributes:
      queue: all jobs, by name; it outlives the parents.
      arrays: how many jobs each submission had.
    """

    about = "a simulated cluster"
    queue: ClassVar[dict[str, SimulatedJob]] = {}
    arrays: ClassVar[list[int]] = []
    holds = False

    def __init__(self, folder, options):
        self.options = options

    def submit(self, run, calls):
        self.arrays.append(len(calls))
        made = []
        for folder, numbers, log, home in calls:
            assert Path(log).is_absolute() and Path(home) == Path.cwd()
            program = (*sweeping.FAKE, folder, *map(str, numbers))
            job = SimulatedJob(
                f"{len(self.queue)}_{len(made)}",
                lambda program=program, log=log: sweeping.WorkerHere(program, log, {}).poll(),
            )
            self.queue[job.name] = job
            made.append(job)
        for job in made if not self.holds else ():
            job.go()
        return made

    def find(self, name):
        return self.queue.get(name)


@pytest.fixture
def simulated(place, monkeypatch):
    monkeypatch.setitem(cluster_jobs.CLUSTERS, "submitit", SIMULATED)
    monkeypatch.setattr(cluster_jobs, "RUN", "tests.sweeps.fake_cluster:run")
    for name, value in (("queue", {}), ("arrays", []), ("holds", False)):
        monkeypatch.setattr(SimulatedCluster, name, value)
    monkeypatch.setattr(cluster_jobs, "_named", lambda place: _named(place))
    return SimulatedCluster


def _named(place):
    return {SIMULATED: SimulatedCluster}.get(place, fake_cluster.run)


def parent_of(plan, cluster, slots=2, **limits):
    """A parent that runs until it is asked to stop, or has nothing to do."""
    starter = cluster_jobs.ClusterStarter(plan, cluster)
    ledger = TrialLedger(plan.folder)
    return Scheduler(
        ledger, Grid(plan.trials), slots, starter, starter.find, SweepLimits(**limits),
        wait=lambda seconds: None,
    )  # fmt: skip


def test_jobs_of_a_turn_are_one_array_and_failures_are_told(simulated, capfd):
    words = ["seed=0,10,1", "run_dir=s"]
    assert sweeping.run(words, cluster="submitit") == 1
    assert simulated.arrays == [3] and statuses("s") == ["done", "failed", "done"]
    assert "100 at a time, on a simulated cluster" in capfd.readouterr().err
    assert sweeping.run(words, cluster="submitit", failed="retry", slots=1) == 1
    assert simulated.arrays == [3, 1] and starts("s") == {0: 1, 1: 2, 2: 1}


def test_the_command_line_and_what_goes_on_later(simulated, monkeypatch):
    Path("book.txt").write_text(sweeping.LINES)
    seen = []
    whole = simulated.__init__
    monkeypatch.setattr(
        simulated,
        "__init__",
        lambda self, folder, options: seen.append(options) or whole(self, folder, options),
    )
    words = ["task=lm", "data.train=book.txt", "seed=0,10", "run_dir=s"]
    words += ["hydra/launcher=submitit", "sweep.job={slurm_partition: gpu, gpus_per_node: 1}"]
    code, _, err = tiny.jaxsft("train", "-m", *words)
    assert code == 1 and "1 of 2 trials failed: 1" in err and simulated.arrays == [2]
    # it goes on where it was planned to run, or elsewhere
    code, _, _ = tiny.jaxsft("sweep", "retry", "s", "1")
    assert code == 1 and simulated.arrays == [2, 1] and starts("s") == {0: 1, 1: 2}
    jobs = {"slurm_partition": "gpu", "gpus_per_node": 1}
    assert [(one.cluster, one.job) for one in seen] == [("submitit", jobs)] * 2


def test_a_job_that_was_lost_is_submitted_again_and_no_more_often_than_asked(simulated):
    lost = []
    go = SimulatedJob.go

    def lose(job):
        lost.append(job)
        job.work, job.ended = None, UNKNOWN

    SimulatedJob.go = lose
    try:
        assert sweeping.run(["seed=0", "run_dir=s"], cluster="submitit", retries=2) == 1
    finally:
        SimulatedJob.go = go
    assert len(lost) == 3 and statuses("s") == ["interrupted"]
    assert sweeping.run(["seed=0", "run_dir=s"], cluster="submitit") == 0
    assert states("s")[0].attempt == 4 and starts("s") == {0: 1}


def test_a_queue_is_no_time_of_a_trial_and_outlives_a_parent(simulated):
    """Two jobs wait; their parent is killed, and the next one finds them in the queue."""
    simulated.holds = True
    plan = _only_planned()
    first = parent_of(plan, simulated(None, None), timeout=1.5)
    first._clock = iter(range(1000)).__next__  # a second passes at each look
    first._fill()
    for _ in range(3):
        first._reap()
        first._expire()
    assert simulated.arrays == [2] and not any(job.told for job in simulated.queue.values())
    assert [state.status for state in states("s")] == ["leased", "leased", "planned"]
    # the first is gone; the second asks the queue
    names = [read_json(one.beside(".job"))["job"] for one in plan.trials[:2]]
    second = parent_of(plan, simulated(None, None))
    second.adopt(plan.trials)
    assert [job.handle.job.name for job in second.running] == names
    simulated.queue[names[0]].go()
    second._reap()
    assert [state.status for state in states("s")] == ["done", "leased", "planned"]
    # Ctrl-C takes the other one out of the queue
    second.stop()
    second.run()
    assert simulated.queue[names[1]].told == ["stop"]
    assert statuses("s") == ["done", "interrupted", "planned"] and simulated.arrays == [2]


def test_a_job_that_nobody_knows_of_starts_nothing_twice(simulated):
    """A parent dies between the submission and its note; both jobs run in the end."""
    simulated.holds = True
    plan = _only_planned()
    first = parent_of(plan, simulated(None, None), slots=1)
    first._fill()
    first._reap()
    plan.trials[0].beside(".job").unlink()
    second = parent_of(plan, simulated(None, None), slots=1)
    second.adopt(plan.trials)
    second.source = Grid(plan.trials[:1])
    second._fill()
    second._reap()
    old, new = simulated.queue.values()
    new.go()
    # a note of an attempt that is over counts no more
    write_json(plan.trials[0].beside(".job"), {"job": old.name, "attempt": 1})
    state = states("s")[0]
    assert (
        cluster_jobs.ClusterStarter(plan, simulated(None, None)).find(state, plan.trials[0]) is None
    )
    old.go()
    assert (old.ended, new.ended) == (0, 0) and starts("s") == {0: 1}
    assert states("s")[0].status == "done" and states("s")[0].attempt == 2


def test_trials_that_another_machine_has_leased_are_waited_for_one_by_one(simulated, monkeypatch):
    plan, ledger = _only_planned(), TrialLedger("s")
    with monkeypatch.context() as patch:
        patch.setattr(platform, "node", lambda: "elsewhere")
        for one in plan.trials[:2]:
            ledger.append("leased", one.id, one.number, 1, until=ledger.clock() + 600, slot=0)
    parent = parent_of(plan, simulated(None, None))
    parent.adopt(plan.trials)
    assert [[one.number for one in job.trials] for job in parent.running] == [[0], [1]]


def _only_planned() -> SweepPlan:
    """A sweep of three trials of which none was started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeping.sweep_parent, "run", lambda *_, **__: 0)
        assert sweeping.run(["seed=0,1,2", "run_dir=s"], cluster="submitit") == 0
    return SweepPlan.read("s")


def test_resume_takes_the_cluster_and_the_jobs_of_the_command():
    given = ("jaxsft", "train", "-m", "hydra/launcher=submitit", "sweep.job={gpus_per_node: 2}")
    plan = SweepPlan(Path("s"), given, (), None, ())
    found = cluster_jobs.planned_options(plan, SweepConfig())
    assert (found.cluster, found.job) == ("submitit", {"gpus_per_node": 2})
    found = cluster_jobs.planned_options(plan, SweepConfig(cluster="ray", job={"num_cpus": 2}))
    assert (found.cluster, found.job) == ("ray", {"num_cpus": 2})
    plan = SweepPlan(Path("s"), ("jaxsft", "train", "-m", "hydra/launcher=slots"), (), None, ())
    assert cluster_jobs.planned_options(plan, SweepConfig()) == SweepConfig()


@pytest.mark.parametrize(
    "name, told",
    [
        ("submitit_slurm", "hydra/launcher=submitit runs trials as jobs of SLURM"),
        ("submitit_local", "hydra/launcher=submitit"),
        ("joblib", "hydra/launcher=slots"),
        ("ray_aws", "hydra/launcher=ray"),
        ("rq", "hydra/launcher=ray"),
        ("loky", "hydra/launcher=slots"),
    ],
)
def test_launchers_of_other_packages_are_told_what_to_use(name, told):
    with pytest.raises(ConfigError, match=told):
        launchers.launcher(name)


def test_what_is_missing_or_wrong_is_a_sentence(place, monkeypatch):
    with pytest.raises(ConfigError, match=r"^sweep\.job: is for the jobs of a cluster"):
        sweeping.run(["seed=0", "run_dir=s"], job={"gpus_per_node": 1})
    for name in cluster_jobs.CLUSTERS:
        monkeypatch.setitem(sweeping.sys.modules, name, None)
        with pytest.raises(ConfigError, match=rf"launcher={name}: install jaxsft\[{name}\]"):
            sweeping.run(["seed=0", "run_dir=s"], cluster=name)
    assert statuses("s") == ["planned"]


# --- the libraries themselves
# --------------------------------------------------------------------------------------------------
def _interrupted_and_resumed(cluster: str, **options) -> None:
    """One is killed and comes back, one fails, one is interrupted by Ctrl-C and goes on."""
    words = ["seed=60,20,10", "run_dir=s"]

    def press():
        until(lambda: Path("s/plan.yaml").exists() and statuses("s")[1:] == ["done", "failed"])
        until(lambda: statuses("s")[0] == "started")
        os.kill(os.getpid(), signal.SIGINT)

    with meanwhile(press):
        assert sweeping.run(words, cluster=cluster, slots=3, **options) == 130
    assert statuses("s") == ["interrupted", "done", "failed"]
    assert states("s")[0].message == "was stopped by signal 15"
    assert starts("s") == {0: 1, 1: 2, 2: 1}
    log = SweepPlan.read("s").by_number(2).beside(".log").read_text()
    assert "seed 10 is a mistake of the program" in log
    Path("s/go").touch()
    assert sweeping.run(words, cluster=cluster, **options) == 1  # of the failure
    assert statuses("s") == ["done", "done", "failed"] and starts("s") == {0: 2, 1: 2, 2: 1}
    assert {state.host for state in states("s")} == {platform.node()}


@pytest.mark.slow
def test_submitit_on_this_machine(place, monkeypatch):
    pytest.importorskip("submitit", reason="needs jaxsft[submitit]")
    monkeypatch.setattr(cluster_jobs, "RUN", "tests.sweeps.fake_cluster:run")
    with pytest.raises(ConfigError, match=r"sweep\.job=.*gpus_per_nod"):
        sweeping.run(["seed=0", "run_dir=t"], cluster="submitit", job={"gpus_per_nod": 1})
    _interrupted_and_resumed("submitit", job={"cluster": "local"})


@pytest.mark.slow
def test_ray_on_this_machine(place, monkeypatch):
    ray = pytest.importorskip("ray", reason="needs jaxsft[ray]")
    monkeypatch.setattr(cluster_jobs, "RUN", "tests.sweeps.fake_cluster:run")
    try:
        with pytest.raises(ConfigError, match=r"hydra/launcher=ray: .*num_cpu"):
            sweeping.run(["seed=0", "run_dir=t"], cluster="ray", job={"num_cpu": 1})
        _interrupted_and_resumed("ray", job={"num_cpus": 0.1})
    finally:
        ray.shutdown()


def test_an_interruption_before_there_is_anything_to_save_is_no_failure(place, monkeypatch):
    def train(config):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(sweeping.importlib.import_module("tests.sweeps.fake_worker").FAKES,
                      "train_alone", train)  # fmt: skip
        assert sweeping.run(["seed=0", "run_dir=s"], retries=0) == 1
    assert statuses("s") == ["interrupted"] and worker.KILLED + signal.SIGINT == 130
    assert sweeping.run(["seed=0", "run_dir=s"]) == 0


SHIMS = {
    "srun": "exit 0",
    "sbatch": 'echo "$@" >> calls.txt; cat "${@: -1}" > script.sh; echo Submitted batch job 12',
    "scancel": 'echo scancel "$@" >> calls.txt',
    "sacct": "echo 'JobID|State|NodeList'; echo '12_0|RUNNING|node1'; echo '12_1|RUNNING|node2'",
}


def test_what_slurm_is_asked_for(place, monkeypatch):
    """Programs of SLURM that only take note; no job runs."""
    pytest.importorskip("submitit", reason="needs jaxsft[submitit]")
    (place / "bin").mkdir()
    for name, text in SHIMS.items():
        (place / "bin" / name).write_text(f"#!/bin/bash\ncd {place}\n{text}\n")
        (place / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}")
    plan = _only_planned()
    job = {"slurm_partition": "gpu", "gpus_per_node": 1, "slurm_setup": ["module load cuda"]}
    options = SweepConfig(cluster="submitit", job=job, timeout="2h")
    cluster = cluster_jobs.opened(plan, options)
    parent = parent_of(plan, cluster)
    parent._fill()
    parent._reap()
    script = Path("script.sh").read_text()
    for line in (
        "#SBATCH --array=0-1",
        "#SBATCH --no-requeue",
        "#SBATCH --partition=gpu",
        "#SBATCH --gpus-per-node=1",
        "#SBATCH --time=125",
        "#SBATCH --signal=USR2@90",
        "#SBATCH --job-name=s",
        "module load cuda",
    ):
        assert line in script, script
    jobs = [read_json(one.beside(".job"))["job"] for one in plan.trials[:2]]
    assert jobs == ["12_0", "12_1"] and len(parent.running) == 2
    # another parent finds both, and takes them out of the queue
    second = parent_of(plan, cluster_jobs.opened(plan, options))
    second.adopt(plan.trials)
    assert [one.handle.job.name for one in second.running] == jobs
    second.running[1].handle.stop()
    assert "scancel 12_1" in Path("calls.txt").read_text()


def test_ctrl_c_is_not_for_the_processes_of_submitit(tmp_path):
    """One that watches a job does not hear it, and is ended with all that it started."""
    ready = tmp_path / "ready"
    script = f"sleep 60 & echo $! > {tmp_path / 'sleeps'}; touch {ready}; wait"
    with submitit_cluster._deaf_children():
        watcher = subprocess.Popen(["sh", "-c", script])
    until(ready.exists)
    watcher.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        watcher.wait(0.2)
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    submitit_cluster.SubmititJob(mock.Mock(job_id=watcher.pid), slurm=False).kill()
    assert watcher.wait(20) == -signal.SIGKILL
    sleeps = int((tmp_path / "sleeps").read_text())
    until(lambda: processes.started_at(sleeps) is None)


def test_jobs_of_no_cluster_are_refused(place):
    pytest.importorskip("submitit", reason="needs jaxsft[submitit]")
    for job, sentence in {
        "timeout_min: x": "expected type",
        "cluster: debug": "slurm or local",
    }.items():
        name, _, value = job.partition(": ")
        with pytest.raises(ConfigError, match=sentence):
            sweeping.run(["seed=0", "run_dir=t"], cluster="submitit", job={name: value})
