"""Sweeps: many trainings, planned before the first starts, kept account of, and gone on with after
whatever ended them. Only `worker.py` imports JAX, in the process of a trial.
"""
