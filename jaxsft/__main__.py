"""Runs `python -m jaxsft`."""

from jaxsft.cli import script

script()
