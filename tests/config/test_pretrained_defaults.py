"""A run from a pretrained model has the defaults of fine-tuning, unless somebody asked for
others."""

import dataclasses

import pytest

from jaxsft.config import overrides, pretrained_defaults
from jaxsft.config.environment import StartingModel
from jaxsft.training.banner import recipe

BERT, LLAMA = (
    StartingModel("encoder", 768, {"model.dropout": 0.1}),
    StartingModel("decoder", 4096, {"model.dropout": 0.0}),
)


def applied(source, *given, task="classify"):
    config = overrides.composed(
        [f"task={task}", "data.path=rows.csv", "model.pretrained=folder", *given]
    )
    return pretrained_defaults.apply(config, source)


@pytest.mark.parametrize(
    "source, given, rate",
    [
        (BERT, (), 5e-5),
        (LLAMA, (), 2e-5),
        (StartingModel("encoder-decoder", 1024, {"model.dropout": 0.1}), (), 5e-5),
        (
            StartingModel("encoder", 384, {"model.dropout": 0.1}),
            (),
            2e-4,
        ),  # half as wide, four times the rate
        (
            StartingModel("decoder", 64, {"model.dropout": 0.0}),
            (),
            1e-3,
        ),  # at most what a model from scratch takes
        (LLAMA, ("adapter=lora",), 2e-4),
        (LLAMA, ("adapter=dora",), 2e-4),
        (StartingModel("decoder", 64, {"model.dropout": 0.0}), ("adapter=ia3",), 3e-3),
        (LLAMA, ("optim=adam",), 2e-5),
        (LLAMA, ("optim=sgd",), 1e-2),  # the rates are those of Adam
        (LLAMA, ("optim.learning_rate=1e-3",), 1e-3),
        (LLAMA, ("train.backbone=cached",), 1e-3),  # of a head that starts from scratch
    ],
)
def test_the_rate_is_that_of_fine_tuning(source, given, rate):
    assert applied(source, *given).optim.learning_rate == pytest.approx(rate)


def test_regularisation_and_duration_are_those_of_fine_tuning():
    config = applied(BERT)
    assert (config.model.dropout, config.loss.label_smoothing, config.train.duration) == (
        0.1,
        0,
        "3epochs",
    )
    smoothed = BERT._replace(regularised={"loss.label_smoothing": 0.2})
    assert applied(smoothed).loss.label_smoothing == 0.2
    assert applied(BERT, "train.backbone=cached").model.dropout == 0
    given = applied(
        BERT,
        "train.batch_size=16",
        "model.dropout=0.3",
        "loss.label_smoothing=0.1",
        "train.duration=7epochs",
        "optim.learning_rate=1e-3",
    )
    assert given.origins == () and (given.model.dropout, given.train.duration) == (0.3, "7epochs")


def test_rows_stay_divisible_by_the_micro_batches():
    assert (
        applied(BERT).train.batch_size == applied(BERT, "train.accumulate=4").train.batch_size == 8
    )
    assert applied(BERT, "train.accumulate=16").train.batch_size == 16


def test_an_experiment_is_an_answer():
    config = applied(BERT, "debug=overfit")
    assert (config.model.dropout, config.train.duration) == (0, "200steps")
    assert {name for name, _ in config.origins} == {"optim.learning_rate", "train.batch_size"}


def test_a_config_made_by_hand_stays():
    config = overrides.composed(["task=classify", "data.path=rows.csv", "model.pretrained=folder"])
    by_hand = dataclasses.replace(config, unasked=())
    assert pretrained_defaults.apply(by_hand, BERT) == by_hand


@pytest.mark.parametrize(
    "values, dropout",
    [
        ({"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3}, 0.2),
        ({"dropout": 0.1}, 0.1),
        ({"dropout_rate": 0}, 0),
        ({"resid_pdrop": None}, 0),
        ({"dropout": "a lot"}, 0),
        ({}, 0),
    ],
)
def test_dropout_is_read_from_the_config_of_the_source(values, dropout):
    assert pretrained_defaults.dropout_of(values) == dropout


def test_the_banner_tells_the_rate_and_its_reason():
    text = "\n".join(recipe(applied(StartingModel("encoder", 384, {"model.dropout": 0.1}))))
    assert (
        "adamw, learning rate 0.0002 (a pretrained encoder of width 384; 5e-05 from 768 on), cosine"
        " with 5% warm-up" in text
    )
    assert "dropout 0.1 (as the source)" in text
    assert "learning rate 0.003, cosine" in "\n".join(
        recipe(applied(BERT, "optim.learning_rate=3e-3"))
    )
