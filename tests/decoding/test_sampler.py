"""The options: what they refuse, and what they are equal to."""

import math

import pytest

from refllm.decoding import Mirostat, Sampler


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"temperature": -1.0}, "temperature=-1.0 cannot be; it is 0"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"temperature": math.inf}, "temperature=inf"),
        ({"top_k": 0}, "top_k=0 would keep no token"),
        ({"top_p": 0.0}, "top_p=0.0 is not a probability to reach; it must be above 0 and at most 1"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"top_p": math.nan}, "top_p=nan"),
        ({"min_p": -0.1}, "min_p=-0.1 is no share of the largest probability; it must be from 0 to 1"),
        ({"min_p": 1.1}, "min_p=1.1"),
        ({"typical_p": 0.0}, "typical_p=0.0 is not a probability to reach"),
        ({"typical_p": 1.01}, "typical_p=1.01"),
        ({"epsilon": 0.0}, "epsilon=0.0 is not a probability to cut at; it must be above 0 and below 1"),
        ({"epsilon": 1.0}, "epsilon=1.0"),
        ({"eta": -1}, "eta=-1 is not a probability to cut at"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0 cannot be; it is a positive number"),
        ({"repetition_penalty": -1.2}, "repetition_penalty=-1.2"),
        ({"presence_penalty": math.inf}, "presence_penalty=inf is not a number to take from a logit"),
        ({"frequency_penalty": math.nan}, "frequency_penalty=nan"),
        ({"no_repeat_ngram": 0}, "no_repeat_ngram=0 is no length of a run of tokens"),
        ({"logit_bias": {-1: 2.0}}, "logit_bias names token -1; ids begin at 0"),
        ({"logit_bias": {3: math.inf}}, "logit_bias adds inf to token 3; it must be a finite number, or −∞ to forbid it"),
        ({"logit_bias": {3: math.nan}}, "logit_bias adds nan to token 3"),
        ({"mirostat": (0, 0.1)}, r"mirostat=\(0, 0.1\) cannot be; its target, in bits, and its rate are positive numbers"),
        ({"mirostat": (3, math.inf)}, r"mirostat=\(3, inf\)"),
        ({"mirostat": (3, 0.1), "top_k": 4}, "mirostat makes the cut itself; leave out top_k=4"),
        ({"mirostat": (3, 0.1), "top_p": 0.5, "eta": 0.1}, "leave out top_p=0.5, eta=0.1"),
        ({"mirostat": (3, 0.1), "temperature": 0}, "mirostat steers draws, and temperature=0 draws nothing"),
        ({"draws": "mersenne"}, "draws='mersenne' names no generator; choose philox or llama2.c"),
        ({"draws": "llama2.c", "top_k": 4}, "has a temperature and a top_p only; leave out top_k=4"),
        ({"draws": "llama2.c", "presence_penalty": 1}, "leave out presence_penalty=1"),
        ({"draws": "llama2.c", "logit_bias": {1: 2.0}}, "leave out logit_bias="),
    ],
)
def test_a_sampler_refuses_what_is_no_setting(settings, says):
    with pytest.raises(ValueError, match=says):
        Sampler(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0, "top_p": 1, "top_k": 1, "min_p": 0, "typical_p": 1},
        {"min_p": 1, "epsilon": 1e-9, "eta": 0.999},
        {"presence_penalty": -2, "frequency_penalty": -0.5, "repetition_penalty": 0.5},
        {"draws": "llama2.c", "temperature": 0, "top_p": 0.9},
        {"logit_bias": {0: -math.inf}},
    ],
)
def test_a_sampler_takes_every_setting_up_to_its_limits(settings):
    Sampler(**settings)


def test_equal_samplers_are_one_key():
    pairs = [
        ({"logit_bias": {5: 1, 2: 3}}, {"logit_bias": ((2, 3.0), (5, 1.0))}),
        ({"mirostat": (3, 0.1)}, {"mirostat": Mirostat(3, 0.1)}),
        ({}, {"temperature": 1}),
    ]
    for one, other in pairs:
        assert Sampler(**one) == Sampler(**other)
        assert hash(Sampler(**one)) == hash(Sampler(**other))
    assert Sampler(logit_bias={5: 1}) != Sampler(logit_bias={5: 2})
