"""What counts as the same model: bf16's noise does, another model or half of one does not."""

import random
from typing import Any

import pytest

from services.worker.served_check import ServedDiffers, check_served, distance
from services.worker.spec import ServedCheck

TOLERANCE = 0.15


class Serving:
    """Answers each check with what ``serve`` makes of its trained and base log-probabilities."""

    def __init__(self, checks, serve):
        self._checks, self._serve = checks, serve

    def prompt_logprobs(self, _model, token_ids):
        check = next(check for check in self._checks if check.token_ids == tuple(token_ids))
        pairs = zip(check.adapter_logprobs, check.base_logprobs, strict=True)
        return [-9.0] * (check.answer_start - 1) + [self._serve(t, b) for t, b in pairs]


def checks_of(draw, change, unlikely):
    """Eight rows of mixed length; training made likely tokens likelier by ``change``.

    A share of ``unlikely`` tokens the trained model did not expect: values it never gets right.
    """
    rows = []
    for number in range(8):
        answer = 3 + 5 * number
        sure = [draw.random() >= unlikely for _ in range(answer)]
        trained = [-draw.uniform(0.01, 0.3) if s else -draw.uniform(7, 12) for s in sure]
        base = [t - draw.uniform(0.5, 1.5) * change for t in trained]
        rows.append(
            ServedCheck(
                token_ids=(number, *range(100, 103 + answer)),
                answer_start=4,
                adapter_logprobs=trained,
                base_logprobs=base,
            )
        )
    return rows


def verdict(serve, *, change=2.0, unlikely=0.3, seed=0):
    checks = checks_of(random.Random(seed), change, unlikely)
    serving: Any = Serving(checks, serve)
    return check_served(serving, "ad", checks, TOLERANCE)


def noise(draw, logprob):
    """bf16's rounding as it was seen: a hundredth at likely tokens, up to ±1.5 at unlikely ones."""
    return logprob + draw.uniform(-1, 1) * (0.02 if logprob > -1 else 1.5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("change", [0.05, 0.3, 2.0])
def test_noise_at_unlikely_tokens_fails_no_adapter(seed, change):
    draw = random.Random(seed)
    found = verdict(lambda t, _b: noise(draw, t), change=change, seed=seed)
    assert found["served_to_trained"] < TOLERANCE / 3
    plain = checks_of(random.Random(seed), change, 0.3)
    tokens = [t for check in plain for t in check.adapter_logprobs]
    assert sum(abs(noise(draw, t) - t) for t in tokens) / len(tokens) > TOLERANCE


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("change", [0.2, 1.0, 4.0])
def test_the_base_model_in_the_adapters_place_is_found(seed, change):
    draw = random.Random(seed)
    with pytest.raises(ServedDiffers):
        verdict(lambda _t, b: noise(draw, b), change=change, seed=seed)


@pytest.mark.parametrize("seed", range(5))
def test_another_tenants_adapter_is_found_also_where_it_is_surer(seed):
    draw = random.Random(seed)
    for serve in (lambda _t, b: b - draw.uniform(0, 3), lambda *_: -draw.uniform(0, 3)):
        with pytest.raises(ServedDiffers):
            verdict(serve, seed=seed)


@pytest.mark.parametrize(("share", "change"), [(0.6, 0.25), (0.5, 0.4), (0.7, 1.0), (0.9, 2.0)])
def test_an_adapter_without_a_part_of_its_weights_is_found(share, change):
    with pytest.raises(ServedDiffers):
        verdict(lambda t, b: b + share * (t - b), change=change)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_number_that_is_none_is_no_agreement(value):
    with pytest.raises(ServedDiffers):
        verdict(lambda *_: value)


def test_a_sure_disagreement_weighs_more_than_an_unlikely_one():
    assert distance([-0.1, -9.0], [-0.1, -7.0]) < 0.01
    assert distance([-0.1, -9.0], [-1.1, -9.0]) > 0.9
    assert distance([-0.1], [-5.0]) == pytest.approx(distance([-5.0], [-0.1]))
