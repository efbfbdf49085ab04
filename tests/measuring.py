"""Numbers of a task's outputs, as an evaluation gives them, for tests of tasks."""

import dataclasses

import numpy as np

from jaxsft.evaluation import measured


def numbers_of(task, split, columns):
    """Returns the numbers of what the pass gave of a split, without the loss."""
    task = task.with_tuned(task.tune(task.row_outputs(split, columns)))
    outputs = task.row_outputs(split, columns)
    found = measured.measure(task.measures, task.config.evaluation.metrics, outputs, task.name)
    return {name: value for one in found.values() for name, value in one.numbers().items()}


def matrix_of(task, split, columns):
    """Returns the confusion matrix of a split."""
    outputs = task.row_outputs(split, columns)
    return measured.confusion(measured.measure(task.measures, (), outputs, task.name))


def scores_of(task, answers, records, where):
    """Returns the scores of generated answers."""
    outputs = task.answer_outputs(answers, records, where)
    outputs = dataclasses.replace(outputs, rows=np.arange(len(records)))
    found = measured.measure(task.answer_measures, (), outputs, task.name)
    return {name: value for one in found.values() for name, value in one.numbers().items()}
