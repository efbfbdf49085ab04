"""Scalars for TensorBoard, written with tensorboardX: no TensorFlow and no PyTorch.

The event writer under `SummaryWriter` is used, not `SummaryWriter` itself: that one writes from a
thread, which dies silently on a full disk and then blocks the training loop; it opens a new file
after `close`; and it turns every Chinese letter of a name into `_`.
"""

import itertools
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxsft.errors import JaxsftError
from jaxsft.rundir import number

FLUSH_SECONDS = 10.0
_files = itertools.count()


class TensorBoard:
    """An event file of one run. A resumed run writes a second one, and TensorBoard drops what the
    first holds from `purge_step` on.
    """

    def __init__(self, directory: str | Path, purge_step: int | None = None):
        """Starts a new event file in `directory`; an older one is never written over.

        Args:
            directory: the run's `tensorboard/`, made if missing.
            purge_step: the first step that a resumed run writes again; None for a new run.

        Raises:
            JaxsftError: the directory cannot be written.
        """
        # imported late: most commands write no events
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._directory, self._flushed = Path(directory), 0.0
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            # The name holds only the second: a run that was resumed at once would replace the file
            # of the run before it.
            self._writer = EventsWriter(
                str(self._directory / "events"), f".{os.getpid()}.{time.time_ns()}.{next(_files)}"
            )
        except OSError as error:
            raise self._trouble(error) from error
        if purge_step is not None:
            restart = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(self._event(wall_time=time.time(), step=purge_step, session_log=restart))

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Adds numbers by name at `step`, NaN and infinities too.

        They reach the disk within about ten seconds.

        Raises:
            DataError: a value is no number (see `rundir.number`).
            JaxsftError: the file cannot be written, or `close` was called.
        """
        summary = self._summary(
            value=[
                self._summary.Value(tag=name, simple_value=number(value))
                for name, value in values.items()
            ]
        )
        self._write(self._event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        """Writes what is buffered and closes the file; a second call does nothing."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
        except OSError as error:
            raise self._trouble(error) from error

    def _write(self, event: Any) -> None:
        if self._writer is None:
            raise JaxsftError(f"{self._directory}: the TensorBoard file is closed")
        try:
            self._writer.write_event(event)
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                self._writer.flush()
                self._flushed = time.monotonic()
        except OSError as error:
            raise self._trouble(error) from error

    def _trouble(self, error: OSError) -> JaxsftError:
        return JaxsftError(
            f"{self._directory}: cannot write TensorBoard events ({error.strerror or error})"
        )
