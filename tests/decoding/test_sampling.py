"""Samplers against their definitions in plain Python, on every backend."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import load
from refllm.conformance.specification import definitions
from refllm.decoding import join_memory, observe, remember, take_memory
from refllm.decoding.cuts import temperature, top_k, top_p
from refllm.decoding.sampler import Sampler
from refllm.decoding.sampling import distribution, draw, greedy, sample, uniforms

EPS = 2.0**-23
# exact eighths from a short range: ties are common, and every backend reads the same numbers
LOGITS = st.lists(st.integers(-40, 40), min_size=1, max_size=24).map(lambda n: np.array(n, dtype=np.float32) / 8)
UNIFORM = st.integers(0, 2**24 - 1).map(lambda n: n / 2**24)

SAMPLERS = {
    "greedy": Sampler(0.0),
    "temperature": Sampler(1.3),
    "top_k": Sampler(1.0, top_k=5),
    "top_p": Sampler(1.0, top_p=0.8),
    "min_p": Sampler(1.0, min_p=0.1),
    "typical_p": Sampler(1.0, typical_p=0.7),
    "epsilon": Sampler(1.0, epsilon=0.06),
    "eta": Sampler(1.0, eta=0.2),
    "repetition_penalty": Sampler(1.0, repetition_penalty=1.8),
    "presence_penalty": Sampler(1.0, presence_penalty=0.9),
    "frequency_penalty": Sampler(1.0, frequency_penalty=0.7),
    "no_repeat_ngram": Sampler(1.0, no_repeat_ngram=2),
    "logit_bias": Sampler(1.0, logit_bias={3: -1.5, 5: 2.0, 6: -np.inf}),
    "mirostat": Sampler(1.0, mirostat=(1.2, 0.1)),
    "llama2.c": Sampler(1.1, draws="llama2.c"),
    "llama2.c with top_p": Sampler(1.1, top_p=0.8, draws="llama2.c"),
    "many": Sampler(
        0.8, top_k=7, top_p=0.97, min_p=0.02, typical_p=0.98, repetition_penalty=1.2, frequency_penalty=0.2, logit_bias={1: 0.5}
    ),
}


def on(backend, values):
    return backend.xp.from_numpy(np.asarray(values, dtype=np.float32))


def one_row(backend, function, logits, *args):
    return backend.xp.to_numpy(function(on(backend, logits[None, :]), *args))[0]


def probabilities(logits):
    """softmax in float64, by its definition."""
    weights = [math.exp(x - max(logits)) for x in logits.astype(float)]
    return [w / math.fsum(weights) for w in weights]


def rounding(logits):
    """How far a float32 sum of these probabilities may lie from the exact one: every term, its exponential, and the total."""
    return EPS * (2 * len(logits) + 10 + float(np.max(np.abs(logits - np.max(logits)))))


@given(LOGITS)
def test_greedy_takes_the_lowest_id_of_the_largest_logit(backend, logits):
    assert one_row(backend, greedy, logits) == list(logits).index(max(logits))


@given(LOGITS, UNIFORM)
def test_a_draw_inverts_the_distribution_function(backend, logits, u):
    xp = backend.xp
    token = int(xp.to_numpy(draw(on(backend, logits[None, :]), on(backend, [u])))[0])
    q = probabilities(logits)
    assert math.fsum(q[:token]) - rounding(logits) <= u
    assert u < math.fsum(q[: token + 1]) + rounding(logits)


@given(LOGITS, st.integers(0, 2), UNIFORM)
def test_a_token_that_was_cut_is_never_drawn(backend, logits, cut, u):
    logits = np.where(np.arange(len(logits)) % 3 == cut, np.float32(-np.inf), logits)
    if np.all(np.isinf(logits)):
        return
    for uniform in (u, 0.0, 1 - 2.0**-24, 1.0):  # 1 is what a wider uniform may round to
        token = int(backend.xp.to_numpy(draw(on(backend, logits[None, :]), on(backend, [uniform])))[0])
        assert np.isfinite(logits[token])


def test_a_scan_that_is_not_quite_rising_never_draws_a_cut_token(monkeypatch):
    """Parallel scans round each prefix in an order of its own, so a later one may come out an ulp below an earlier."""
    numpy = load("numpy")
    logits = np.where(np.arange(64) % 2 == 0, np.float32(-np.inf), np.float32(0))
    wobble = np.where(np.arange(64) % 4 < 2, np.float32(1 - EPS), np.float32(1 + EPS))
    exact = numpy.xp.cumulative_sum
    monkeypatch.setitem(numpy.xp.__dict__, "cumulative_sum", lambda x, axis: exact(x, axis=axis) * wobble)
    edges = np.float32(np.arange(33) / 32) * np.float32([[1 - EPS], [1], [1 + EPS]])
    tokens = draw(np.broadcast_to(logits, (99, 64)), np.clip(edges, 0, 1).reshape(-1))
    assert np.all(tokens % 2 == 1)


@given(LOGITS, UNIFORM)
def test_one_kept_token_or_temperature_zero_is_greedy(backend, logits, u):
    rows, numbers = on(backend, logits[None, :]), on(backend, [u])
    first = one_row(backend, greedy, logits)
    for sampler in (Sampler(0.0), Sampler(1.0, top_k=1), Sampler(1.0, top_p=1e-6), Sampler(0.0, top_k=3, top_p=0.5)):
        assert int(backend.xp.to_numpy(sample(rows, numbers, sampler)[0])[0]) == first
    assert int(backend.xp.to_numpy(sample(rows, None, Sampler(0.0))[0])[0]) == first


@pytest.mark.filterwarnings("ignore:overflow")
def test_the_smallest_temperature_overflows_to_greedy_and_not_to_nan(backend):
    logits = np.array([[1.0, 3.0, 2.0]], dtype=np.float32)
    assert int(backend.xp.to_numpy(sample(on(backend, logits), on(backend, [0.9]), Sampler(1e-45))[0])[0]) == 1


def test_half_logits_are_summed_in_float32(backend):
    xp, n = backend.xp, 5000  # ones sum to 2048 in float16 and to 256 in bfloat16, so the upper half would never be drawn
    for dtype in {"float16", "bfloat16"} & xp.dtypes():
        logits = xp.zeros((1, n), dtype=getattr(xp, dtype))
        token = int(xp.to_numpy(draw(logits, on(backend, [0.75])))[0])
        assert abs(token - 3750) <= 2
        kept = np.isfinite(xp.to_numpy(xp.astype(top_p(logits, 0.9), xp.float32)))
        assert abs(np.sum(kept) - 4500) <= 2


def test_uniforms_depend_on_the_seed_and_the_step_and_not_on_the_batch():
    assert uniforms(3, 5, 4).dtype == np.float32
    np.testing.assert_array_equal(uniforms(3, 5, 4)[:2], uniforms(3, 5, 2))
    assert len({uniforms(seed, step, 1)[0] for seed in range(10) for step in range(10)}) == 100


def test_every_backend_draws_the_same_tokens(backend):
    rng = np.random.default_rng(0)
    logits = np.round(rng.normal(0, 3, (200, 50)) * 16).astype(np.float32) / 16
    numbers, sampler = uniforms(1, 0, 200), Sampler(0.7, top_k=20, top_p=0.95)
    reference, margin = load("numpy"), 1e-4  # of probability, far beyond what 50 terms of float32 can lose
    ours = backend.xp.to_numpy(sample(on(backend, logits), on(backend, numbers), sampler)[0])
    theirs, _ = sample(on(reference, logits), on(reference, numbers), sampler)
    for b in np.nonzero(ours != theirs)[0]:
        q = np.exp(np.float64(top_p(top_k(temperature(logits[b : b + 1], 0.7), 20), 0.95))[0])
        assert np.min(np.abs(np.cumsum(q) / np.sum(q) - numbers[b])) < margin
    assert np.mean(ours == theirs) > 0.99


def test_samplers_change_none_of_their_arguments(backend):
    logits = np.array([[3.0, 1.0, 2.0]], dtype=np.float32)
    rows, numbers = on(backend, logits), on(backend, [0.5])
    sample(rows, numbers, Sampler(0.5, 2, 0.9))
    np.testing.assert_array_equal(backend.xp.to_numpy(rows), logits)


def chi_square_limit(freedom):
    """What a chi-square of so many degrees of freedom stays below with probability 0.999.

    Wilson & Hilferty 1931, PNAS 17(12): the cube root of a chi-square over its freedom is nearly normal.
    """
    z, part = 3.0902, 2 / (9 * freedom)
    return freedom * (1 - part + z * part**0.5) ** 3


def test_the_limits_are_those_of_the_tables():
    for freedom, tabled in ((2, 13.816), (7, 24.322), (30, 59.703)):
        assert abs(chi_square_limit(freedom) / tabled - 1) < 0.03


PROMPT, TEXT = [3, 1, 6, 3, 7], [6, 3, 2, 3]


def after_a_text(backend, sampler, n, V=8):
    """The memory of n rows that have read PROMPT and written TEXT, and the definition's of one."""
    xp = backend.xp
    memory = remember(sampler, np.array([PROMPT], np.int32), None, xp, V)
    defined = definitions()["remember"](sampler, PROMPT)
    for step, token in enumerate(TEXT):
        logits = np.roll(np.linspace(-1, 1, V, dtype=np.float32), step)
        memory = observe(memory, xp.from_numpy(np.array([token], np.int32)), on(backend, logits[None]), sampler)
        if sampler.mirostat is not None:
            defined.mu = definitions()["corrected"](defined.mu, logits.tolist(), token, sampler.mirostat)
    defined.text = TEXT
    return take_memory(memory, [0] * n), defined


def defined_probabilities(logits, sampler, memory):
    """What the specification says that is drawn from, in float64."""
    if sampler.draws == "philox":
        return np.array(definitions()["distribution"](logits.tolist(), sampler, memory, None))
    p = np.array(definitions()["softmax"]([z / sampler.temperature for z in logits.tolist()]))
    if sampler.top_p is not None:
        kept = definitions()["llama2c_nucleus"](p.tolist(), sampler.top_p)
        p = np.where(np.isin(np.arange(len(p)), kept), p, 0)
    return p / np.sum(p)


@pytest.mark.parametrize("name", SAMPLERS)
def test_draws_are_as_frequent_as_their_probabilities(backend, name):
    logits = np.array([0.0, 1.0, -1.0, 2.0, 0.5, -3.0, 1.5, 0.0], dtype=np.float32)
    n, sampler = 600 if backend.name == "strict" else 4000, SAMPLERS[name]  # whose scatter is a large product
    memory, defined = after_a_text(backend, sampler, n)
    rows, numbers = on(backend, np.broadcast_to(logits, (n, 8))), on(backend, uniforms(7, 0, n))
    drawn = backend.xp.to_numpy(sample(rows, numbers, sampler, memory)[0])
    p = defined_probabilities(logits, sampler, defined)
    counts, used = np.bincount(drawn, minlength=8), p > 0
    assert np.all(counts[~used] == 0)
    chi_square = np.sum((counts[used] - n * p[used]) ** 2 / (n * p[used]))
    if np.sum(used) > 1:
        assert chi_square < chi_square_limit(np.sum(used) - 1)
    if name not in ("greedy", "temperature", "llama2.c"):
        plain = np.array(definitions()["softmax"](logits.tolist()))
        assert 4000 * np.sum((p - plain) ** 2 / plain) > 2 * chi_square_limit(7), "the option matters here"


@pytest.mark.parametrize("name", SAMPLERS)
@given(LOGITS)
def test_the_distribution_is_what_sample_draws_from(backend, name, logits):
    """The uniforms between two cumulated probabilities draw the token between them, and no others draw it."""
    sampler, xp, V = SAMPLERS[name], backend.xp, max(8, len(logits))
    logits = np.concatenate([logits, np.full(V - len(logits), -4, np.float32)])
    memory, _ = after_a_text(backend, sampler, 1, V)
    p = xp.to_numpy(distribution(on(backend, logits[None]), sampler, memory))[0].astype(np.float64)
    assert abs(np.sum(p) - 1) <= rounding(logits)
    order = np.arange(V)
    if sampler.draws == "llama2.c" and sampler.top_p is not None:
        order = np.array(sorted(range(V), key=lambda i: (-logits[i], i)))
    reached = np.concatenate([[0], np.cumsum(p[order])])
    middles = (reached[:-1] + reached[1:]) / 2
    wide = [i for i in range(V) if p[order[i]] > 4 * rounding(logits)]
    rows = on(backend, np.broadcast_to(logits, (len(wide), V)))
    repeated = take_memory(memory, [0] * len(wide))
    tokens = xp.to_numpy(sample(rows, on(backend, middles[wide]), sampler, repeated)[0])
    np.testing.assert_array_equal(tokens, order[wide])


@pytest.mark.parametrize("name", SAMPLERS)
def test_rows_of_a_batch_do_not_touch_each_other(backend, name):
    """Three ragged rows, written side by side, alone, and taken apart and joined on the way."""
    sampler, xp, rng = SAMPLERS[name], backend.xp, np.random.default_rng(5)
    prompts = np.array([[0, 0, 1, 2, 1], [0, 3, 4, 3, 4], [5, 6, 7, 6, 5]], np.int32)
    valid = np.array([[False, False, True, True, True], [False, True, True, True, True], [True] * 5])
    logits = rng.normal(0, 1.5, (6, 3, 9)).astype(np.float32)
    memory, swapped = (remember(sampler, prompts, valid, xp, 9) for _ in range(2))
    alone = [remember(sampler, prompts[b : b + 1, valid[b]], None, xp, 9) for b in range(3)]
    for step in range(6):
        numbers = uniforms(1, step, 3)
        together, memory = sample(on(backend, logits[step]), on(backend, numbers), sampler, memory)
        mixed = take_memory(join_memory([take_memory(swapped, [2]), take_memory(swapped, [0, 1])]), [1, 2, 0])
        other, swapped = sample(on(backend, logits[step]), on(backend, numbers), sampler, mixed)
        np.testing.assert_array_equal(xp.to_numpy(other), xp.to_numpy(together))
        for b in range(3):
            token, alone[b] = sample(on(backend, logits[step, b : b + 1]), on(backend, numbers[b : b + 1]), sampler, alone[b])
            assert int(xp.to_numpy(token)[0]) == int(xp.to_numpy(together)[b])


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_row_without_a_possible_token_gives_minus_one(backend, name):
    sampler, xp = SAMPLERS[name], backend.xp
    rows = np.array([[0, 1, 4], [0, np.nan, 1], [0, np.inf, 1], [0, -np.inf, 4], [-np.inf] * 3, [0, 1, 4], [9, 1, 4]], np.float32)
    allowed = np.ones((7, 3), bool)
    allowed[5] = False
    allowed[6, 0] = False
    allowed[1, 1] = False  # a NaN is one even where it may not come
    bias = Sampler(0.0) if sampler.biases else sampler
    memory = remember(bias, np.zeros((7, 1), np.int32), None, xp, 3)
    logits, may = on(backend, rows), xp.from_numpy(allowed)
    tokens, after = sample(logits, on(backend, [0.99] * 7), bias, memory, may)
    assert xp.to_numpy(tokens).tolist() == [2, -1, -1, 2, -1, -1, 2]
    p = xp.to_numpy(distribution(logits, bias, memory, may))
    np.testing.assert_array_equal(np.isnan(p), np.broadcast_to((xp.to_numpy(tokens) < 0)[:, None], p.shape))
    again, _ = sample(logits, on(backend, [0.99] * 7), bias, after, may)
    assert (xp.to_numpy(again) < 0).tolist() == (xp.to_numpy(tokens) < 0).tolist()


@given(LOGITS)
def test_a_bias_of_minus_infinity_and_a_mask_forbid_alike(backend, logits):
    V = len(logits)
    if V < 2:
        return
    xp, rows = backend.xp, on(backend, logits[None])
    allowed = np.arange(V) % 2 == 1
    biased = Sampler(0.7, logit_bias=dict.fromkeys(range(0, V, 2), -np.inf))
    masked = distribution(rows, Sampler(0.7), None, xp.from_numpy(allowed[None]))
    np.testing.assert_array_equal(xp.to_numpy(distribution(rows, biased)), xp.to_numpy(masked))
    assert np.all(xp.to_numpy(masked)[0, ~allowed] == 0)


def test_a_sampler_that_reads_the_text_asks_for_its_memory(backend):
    rows = on(backend, [[1, 2, 3]])
    for sampler in (Sampler(repetition_penalty=1.1), Sampler(mirostat=(3, 0.1)), Sampler(0, no_repeat_ngram=2)):
        for ask in (sample, lambda z, u, s: distribution(z, s)):
            with pytest.raises(ValueError, match="give it the memory that remember"):
                ask(rows, on(backend, [0.5]), sampler)


def test_the_cuts_apply_in_the_stated_order(backend):
    """Each pair keeps more, or fewer, where its two cuts change places."""
    logits = on(backend, np.log([[0.4, 0.3, 0.2, 0.1]]))
    pairs = [
        (Sampler(top_k=2, top_p=0.55), 1),  # of the two kept, the first has 4/7; top-p first would keep two
        (Sampler(top_p=0.65, epsilon=0.41), 2),  # 4/7 and 3/7; epsilon first would keep one
        (Sampler(0.5, top_p=0.5), 1),  # 0.53 when tempered; top-p first would keep two
    ]
    for sampler, n in pairs:
        assert int(np.sum(backend.xp.to_numpy(distribution(logits, sampler)) > 0)) == n
    sampler = Sampler(top_k=2, repetition_penalty=0.01)
    memory = remember(sampler, np.array([[3]], np.int32), None, backend.xp, 4)  # 0.1 becomes the likeliest before the cut
    assert (backend.xp.to_numpy(distribution(logits, sampler, memory)) > 0).tolist() == [[True, False, False, True]]


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_sampler_makes_mlx_compute_before_it_is_asked(name):
    """What MLX traces cannot be computed yet: reading a number, or waiting for one, raises there."""
    mx = pytest.importorskip("mlx.core", reason="MLX is not installed")
    backend, sampler = load("mlx"), SAMPLERS[name]
    logits, numbers = on(backend, np.random.default_rng(0).normal(0, 1, (2, 8))), on(backend, uniforms(0, 0, 2))
    memory, _ = after_a_text(backend, sampler, 2)
    allowed = backend.xp.ones((2, 8), dtype=backend.xp.bool)

    def chosen(logits, numbers, allowed):
        token, after = sample(logits, numbers, sampler, memory, allowed)
        return sample(logits, numbers, sampler, after, allowed)[0], distribution(logits, sampler, after, allowed)

    now, _ = chosen(logits, numbers, allowed)
    traced, _ = mx.compile(chosen)(logits, numbers, allowed)
    assert traced.tolist() == now.tolist()
    with pytest.raises(ValueError, match="eval"):
        mx.compile(lambda x: x if float(x[0, 0]) > 0 else -x)(logits)


@pytest.mark.oracle
@pytest.mark.parametrize("seed", range(8))
def test_the_options_work_together_in_the_order_of_transformers(seed):
    """Their list of processors, built by their generate, on our random prompts; equal in float64 where no two logits are."""
    import torch
    from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

    rng = np.random.default_rng(seed)
    chosen = {name: value for name, value in OF_TRANSFORMERS.items() if rng.random() < 0.6}
    ours = {name: chosen[theirs] for name, theirs in THEIRS.items() if theirs in chosen}
    sampler = Sampler(**ours, logit_bias={2: 1.5, 9: -0.75})
    config = GenerationConfig(do_sample=True, sequence_bias=[[[2], 1.5], [[9], -0.75]], **{"top_k": None, "top_p": None} | chosen)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=4, n_layer=1, n_head=1))
    processors = model._get_logits_processor(config, input_ids_seq_length=7, device="cpu", model_kwargs={})
    prompts, logits = rng.integers(0, 4, (16, 7)), rng.normal(0, 2, (16, 20))
    logits[:, ::7] = -np.inf
    expected = torch.softmax(processors(torch.from_numpy(prompts), torch.from_numpy(logits)), dim=-1).numpy()
    memory = remember(sampler, prompts.astype(np.int32), None, load("numpy").xp, 20)
    np.testing.assert_allclose(distribution(logits, sampler, memory), expected, rtol=1e-11, atol=1e-14)


OF_TRANSFORMERS = {
    "temperature": 0.7,
    "top_k": 11,
    "top_p": 0.93,
    "min_p": 0.02,
    "typical_p": 0.9,
    "epsilon_cutoff": 0.02,
    "eta_cutoff": 0.05,
    "repetition_penalty": 1.4,
    "no_repeat_ngram_size": 2,
}
THEIRS = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "epsilon": "epsilon_cutoff",
    "eta": "eta_cutoff",
    "repetition_penalty": "repetition_penalty",
    "no_repeat_ngram": "no_repeat_ngram_size",
}
