"""The ledger of a sweep as a file: what it says, torn lines, many writers, a full disk."""

from __future__ import annotations

import errno
import multiprocessing
import os

import pytest

from jaxsft.errors import DataError, JaxsftError
from jaxsft.rundir import read_jsonl
from jaxsft.sweeps import trial_ledger
from jaxsft.sweeps.trial_ledger import TrialLedger, fold


def test_a_line_has_what_was_agreed_on(tmp_path):
    ledger = TrialLedger(tmp_path, lambda: 1.8e9)
    ledger.append("leased", "a" * 64, 3, 1, until=1.8e9 + 600, slot=0)
    (row,) = read_jsonl(tmp_path / "ledger.jsonl")
    assert row == {
        "time": "2027-01-15T08:00:00.000Z",
        "event": "leased",
        "trial": "a" * 64,
        "number": 3,
        "attempt": 1,
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "until": 1.8e9 + 600,
        "slot": 0,
    }


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_torn_line_is_not_read_and_goes_when_the_next_is_written(cut, tmp_path):
    ledger = TrialLedger(tmp_path)
    ledger.append("planned", "a", 0, 0)
    ledger.append("planned", "b", 1, 0)
    content = ledger.path.read_bytes()
    ledger.path.write_bytes(content[:-cut])
    again = TrialLedger(tmp_path)
    assert list(again.states()) == ["a"]
    again.append("planned", "c", 2, 0)
    assert list(again.states()) == list(TrialLedger(tmp_path).states()) == ["a", "c"]


def test_a_damaged_line_in_the_middle_is_a_sentence(tmp_path):
    ledger = TrialLedger(tmp_path)
    ledger.append("planned", "a", 0, 0)
    for line, told in (
        ("{", "not a JSON object"),
        ("[]", "found list"),
        ('{"event": "flew"}', "has no 'time'"),
    ):
        path = tmp_path / "ledger.jsonl"
        before = path.read_bytes()
        path.write_bytes(line.encode() + b"\n" + before)
        with pytest.raises(DataError, match=rf"ledger\.jsonl:1: .*{told}"):
            TrialLedger(tmp_path).states()
        path.write_bytes(before)


def _write(folder, name, count):
    ledger = TrialLedger(folder)
    for attempt in range(count):
        ledger.append("leased", name, 0, attempt)


def test_many_processes_write_whole_lines(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_write, args=(tmp_path, str(i), 30)) for i in range(3)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    events = TrialLedger(tmp_path).events()
    assert len(events) == 90
    for i in range(3):
        assert [e.attempt for e in events if e.trial == str(i)] == list(range(30))


def test_an_attempt_is_claimed_once(tmp_path):
    ledger, other = TrialLedger(tmp_path), TrialLedger(tmp_path)
    assert not ledger.claim("a", 1, "x")  # nobody planned it
    ledger.append("planned", "a", 0, 0)
    assert not ledger.claim("a", 0, "x")
    ledger.append("leased", "a", 0, 1)
    assert other.claim("a", 1, "x") and not ledger.claim("a", 1, "y")
    ledger.append("interrupted", "a", 0, 1)
    ledger.append("leased", "a", 0, 2)
    assert not other.claim("a", 1, "x") and other.claim("a", 2, "z")


def test_what_an_old_attempt_says_counts_no_more(tmp_path):
    ledger = TrialLedger(tmp_path)
    for event, attempt in (("planned", 0), ("leased", 1), ("started", 1), ("interrupted", 1)):
        ledger.append(event, "a", 0, attempt)
    ledger.append("leased", "a", 0, 2)
    ledger.append("failed", "a", 0, 1, kind="error", message="late")
    ledger.append("metric", "a", 0, 1, name="validation/loss", value=1.0, step=3)
    state = ledger.states()["a"]
    assert state.status == "leased" and state.value is None
    ledger.append("done", "a", 0, 2, run_dir="jobs/x", metric="validation/loss", value="NaN")
    ledger.append("failed", "a", 0, 2, kind="error")
    state = ledger.states()["a"]
    assert state.status == "done" and state.value != state.value
    ledger.append("superseded", "a", 0, 2, by="b")
    assert ledger.states()["a"].status == "superseded" and ledger.states()["a"].by == "b"
    assert fold(ledger.events())["a"].run_dir == "jobs/x"


def test_a_full_disk_leaves_the_lines_before_it(tmp_path, monkeypatch):
    ledger = TrialLedger(tmp_path)
    ledger.append("planned", "a", 0, 0)
    before = ledger.path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(trial_ledger.os, "fsync", full)
    with pytest.raises(JaxsftError, match=r"ledger\.jsonl: cannot write \(No space left"):
        ledger.append("leased", "a", 0, 1)
    monkeypatch.undo()
    # what was not on the disk for certain may stand there; no half of it does
    assert ledger.path.read_bytes().startswith(before)
    assert ledger.path.read_bytes().endswith(b"\n")
