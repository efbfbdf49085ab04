"""Listens to what JAX compiles."""

from __future__ import annotations

import contextlib
import logging
import re

import jax


class Compiled(logging.Handler):
    """The names of all programs that JAX compiles."""

    def __init__(self):
        super().__init__()
        self.names = []

    def emit(self, record):
        if found := re.match(r"Compiling (?:jit\()?([\w<>]+)\)? ", record.getMessage()):
            self.names.append(found[1])


@contextlib.contextmanager
def compilations():
    handler, log = Compiled(), logging.getLogger("jax._src.interpreters.pxla")
    before = log.propagate, log.disabled, log.level
    log.addHandler(handler)
    log.propagate, log.disabled = False, False  # a command line that ran before has turned it off
    log.setLevel(logging.DEBUG)
    try:
        with jax.log_compiles():
            yield handler.names
    finally:
        log.removeHandler(handler)
        log.propagate, log.disabled = before[:2]
        log.setLevel(before[2])
