"""The event file holds the numbers that were logged, NaN and Chinese names too, and a resumed run
marks where it starts over.
"""

import errno
import math
import struct
import sys

import pytest

from jaxsft.errors import DataError, JaxsftError
from jaxsft.training.tensorboard import TensorBoard


def events(path):
    """Read the records of an event file: length, checksum, event, checksum."""
    from tensorboardX.proto import event_pb2

    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        found.append(event_pb2.Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return found


def scalars(path):
    return {
        (value.tag, event.step): value.simple_value
        for event in events(path)
        for value in event.summary.value
    }


def test_values_are_read_back(tmp_path):
    board = TensorBoard(tmp_path / "tensorboard")
    board.scalars(1, {"train/loss": 2.5, "validation/准确率": 0.75, "validation/标签": 0.5})
    board.scalars(2, {"train/loss": math.nan, "train/norm": "Infinity", "train/tokens": 3})
    board.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    read = scalars(path)
    assert (
        read["train/loss", 1] == 2.5
        and read["validation/准确率", 1] == 0.75
        and read["validation/标签", 1] == 0.5
    )
    assert (
        math.isnan(read["train/loss", 2])
        and read["train/norm", 2] == math.inf
        and read["train/tokens", 2] == 3
    )
    assert len(read) == 6


def test_resume_purges_and_keeps_the_first_file(tmp_path):
    from tensorboardX.proto import event_pb2

    first = TensorBoard(tmp_path)
    first.scalars(1, {"loss": 1.0})
    first.close()
    second = TensorBoard(tmp_path, purge_step=1)  # within the same second
    second.scalars(1, {"loss": 0.5})
    second.close()
    files = sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert sorted(scalars(path)["loss", 1] for path in files) == [0.5, 1.0]
    starts = [
        event
        for path in files
        for event in events(path)
        if event.session_log.status == event_pb2.SessionLog.START
    ]
    assert [event.step for event in starts] == [1]


def test_errors_and_close(tmp_path, monkeypatch):
    board = TensorBoard(tmp_path)
    with pytest.raises(DataError, match="expected a number"):
        board.scalars(1, {"loss": "low"})

    def full(event):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(JaxsftError, match="No space left"):
        patch.setattr(board._writer, "write_event", full)
        board.scalars(1, {"loss": 1.0})
    board.close()
    board.close()
    with pytest.raises(JaxsftError, match="closed"):
        board.scalars(2, {"loss": 1.0})
    with pytest.raises(JaxsftError, match="cannot write"):
        TensorBoard(__file__)


def test_imports_neither_tensorflow_nor_torch(tmp_path):
    TensorBoard(tmp_path).close()
    assert not {"tensorflow", "torch"} & set(sys.modules)
