"""One process writes to a folder at a time, and a killed one holds nothing."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from jaxsft import runlock
from jaxsft.errors import JaxsftError
from jaxsft.runlock import RunLock


def test_lock_is_exclusive_and_given_back(tmp_path):
    with RunLock(tmp_path) as lock:
        with pytest.raises(
            JaxsftError, match=f"process {os.getpid()} on .* is writing to this run directory"
        ):
            RunLock(tmp_path)
        lock.release()
        RunLock(tmp_path).release()
    with RunLock(tmp_path):
        pass
    with pytest.raises(JaxsftError, match="cannot open"):
        RunLock(tmp_path / "missing")


def test_lock_of_a_killed_process_is_free_though_its_child_lives(tmp_path):
    code = (
        "import os, sys, time; from jaxsft.runlock import RunLock\n"
        "lock = RunLock(sys.argv[1]); child = os.fork()\n"
        "if child == 0: time.sleep(60); os._exit(0)\n"
        "time.sleep(0.2); print(child, flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True
    )
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(JaxsftError, match=f"process {holder.pid} on"):
            RunLock(tmp_path)
        holder.kill()
        holder.wait()
        RunLock(tmp_path).release()
    finally:
        holder.kill()
        holder.wait()
        os.kill(child, signal.SIGKILL)
        holder.stdout.close()


def test_no_locks_on_this_file_system(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(runlock.fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="no lock on this file system"):
        RunLock(tmp_path).release()
