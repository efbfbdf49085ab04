"""The errors that a user can mend. The command line prints each as one line and exits 1; anything
else is a bug and keeps its traceback.
"""


class JaxsftError(Exception):
    """A problem that the user can mend. Its message names what was found, what was expected, and
    the override that relaxes it.
    """


class ConfigError(JaxsftError):
    """An option is unknown, has an impossible value, or contradicts another one."""


class DataError(JaxsftError):
    """A file, a row or a label is not what the task needs. The message starts with `file:line`."""


class CheckpointError(JaxsftError):
    """A checkpoint is missing, damaged, or belongs to another model."""


def first_line(error: BaseException) -> str:
    """Returns the first line of a library's message, to stand inside ours; its kind without one."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
