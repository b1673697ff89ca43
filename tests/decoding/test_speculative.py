"""Speculation: the distribution and the greedy text of the model alone, whoever drafts; and caches that forget the refused."""

import itertools
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import generator, namespace
from refllm.conformance.specification import definitions
from refllm.decoding import Sampler, generate, new_cache
from refllm.decoding import drafts as drafts_module
from refllm.decoding import speculative as speculative_module
from refllm.decoding.drafts import DraftModel, PromptLookup
from refllm.decoding.memory import remember
from refllm.decoding.sampling import distribution, observe
from refllm.decoding.speculative import Burst, guessed, speculate, speculated, totals
from refllm.models import bert, llama
from refllm.models.model import Model
from refllm.models.sequence import Output, advance

from .test_generate import bound, full_logits, widest

GREEDY = Sampler(0.0)
PROMPTS = st.lists(st.integers(0, 22), min_size=1, max_size=6)


def moved(model, amount, seed=0):
    """A model of the same sizes, more or less like the given one: a draft that is right more or less often."""
    xp = model.backend.xp
    params = {
        name: value + xp.from_numpy(amount * generator(seed, "moved", i).standard_normal(tuple(value.shape)), dtype=value.dtype)
        for i, (name, value) in enumerate(model.params.items())
    }
    return Model(model.architecture, model.config, params, model.tokenizer)


def drafts(model):
    """Every kind of draft, good and bad."""
    by_model = st.builds(lambda amount, n: DraftModel(moved(model, amount), n), st.sampled_from([0, 0.05, 1]), st.integers(1, 5))
    return st.one_of(by_model, st.builds(PromptLookup, st.integers(1, 3), st.integers(1, 5)))


def text_of(bursts):
    return [int(token) for burst in bursts for token in burst.tokens]


# One round, against its definition


@st.composite
def rounds(draw):
    """p, q, a draft and uniforms, all of which float32 holds exactly, and products of two of them too."""
    rng, V, k = np.random.default_rng(draw(st.integers(0, 2**32))), draw(st.integers(1, 5)), draw(st.integers(0, 4))

    def distributions(n):
        return np.stack([rng.multinomial(8, rng.dirichlet(np.full(V, 0.5))) for _ in range(n)]) / 8

    p, q = distributions(k + 1), distributions(k + 1)[:k]
    drafted = [int(rng.choice(np.flatnonzero(row))) for row in q]
    return p, q, drafted, rng.integers(0, 8, k) / 8, rng.integers(0, 8, k + 1) / 8


def on(backend, *arrays):
    dtypes = {"f": np.float32, "i": np.int32}
    return [backend.xp.from_numpy(np.asarray(a, dtype=dtypes[np.asarray(a).dtype.kind])) for a in arrays]


@given(rounds())
def test_a_rounds_definition_agrees_with_refllm(backend, drawn):
    p, q, drafted, chances, uniforms = drawn
    expected = definitions()["speculated"](*(x.tolist() for x in (p, q)), drafted, chances.tolist(), uniforms.tolist())
    given_ids = np.asarray(drafted, dtype=np.int32)
    n, token = map(backend.xp.to_numpy, speculated(*on(backend, p, q, given_ids, chances, uniforms)))
    assert [*drafted[: int(n)], int(token)] == expected


@given(st.data(), st.integers(0, 5))
def test_guessing_agrees_with_its_definition(backend, data, k):
    chosen, drafted = (data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)) for n in (k + 1, k))
    arrays = on(backend, np.asarray(chosen, dtype=np.int32), np.asarray(drafted, dtype=np.int32))
    n, token = map(backend.xp.to_numpy, guessed(*arrays))
    assert [*drafted[: int(n)], int(token)] == definitions()["guessed"](chosen, drafted)


def by_refllm(p, q, drafted, chances, uniforms):
    n, token = speculated(*map(np.asarray, (p, q, drafted, chances, uniforms)))
    return [*drafted[: int(n)], int(token)]


def intervals(edges):
    """The middle and the length of every interval into which numbers cut 0 … 1."""
    edges = sorted({0.0, 1.0, *(min(1.0, float(e)) for e in edges)})
    return [((a + b) / 2, b - a) for a, b in itertools.pairwise(edges)]


def probabilities(round_, p_of, q_of, V, k):
    """The probability of all that a round may write, summed over drafts and over intervals of the uniforms that decide alike."""
    found = {}
    for drafted in itertools.product(range(V), repeat=k):
        p, q = ([f(drafted[:i]) for i in range(k + extra)] for f, extra in ((p_of, 1), (q_of, 0)))
        rests = [np.maximum(a - b, 0) for a, b in zip(p[:k], q, strict=True)] + [p[k]]
        pieces = [intervals([p[i][x] / q[i][x]]) if q[i][x] else [] for i, x in enumerate(drafted)]  # of the chances
        pieces += [intervals(np.cumsum(rest) / np.sum(rest)) for rest in rests]  # of the uniforms
        for choice in itertools.product(*pieces):
            middles, lengths = zip(*choice, strict=True)
            tokens = tuple(round_([r.tolist() for r in p], [r.tolist() for r in q], list(drafted), middles[:k], middles[k:]))
            drawn = np.prod([q[i][x] for i, x in enumerate(drafted)])
            found[tokens] = found.get(tokens, 0.0) + drawn * np.prod(lengths)
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("whose", ["definition", "refllm"])
def test_speculation_leaves_the_targets_distribution_as_it_is(whose, seed):
    V, k = 3, 2
    tables = [np.random.default_rng([seed, which]).dirichlet(np.full(V, 0.4), size=(V + 1, V + 1)) for which in range(2)]
    tables[1][0, 0] = [0, 0.5, 0.5]  # a token that is never drafted

    def conditional(table):
        return lambda past: table[tuple(([0, 0] + [x + 1 for x in past])[-2:])]

    p_of, q_of = map(conditional, tables)
    found = probabilities(definitions()["speculated"] if whose == "definition" else by_refllm, p_of, q_of, V, k)
    assert abs(sum(found.values()) - 1) < 1e-12

    def by_target(tokens, start=0):
        return np.prod([p_of(tokens[:i])[tokens[i]] for i in range(start, len(tokens))])

    for text in itertools.product(range(V), repeat=k + 1):  # what a round leaves open, the target goes on to write
        total = sum(found.get(text[:n], 0.0) * by_target(text, n) for n in range(1, k + 2))
        assert abs(total - by_target(text)) < 1e-12


# Whole texts


def chain(table):
    """A model whose logits depend on the last token only: table (V, V)."""
    xp, V = namespace(table), table.shape[0]

    def forward(params, tokens, config, cache, *, valid=None, last=None):
        return Output(xp.take(params["embedding"], tokens[0, -last:], axis=0)[None, ...], advance(cache, tokens.shape[1]), None)

    config = llama.Config(V, 2, 1, 1, 1, 2, 2, max_positions=32)
    return Model(SimpleNamespace(forward=forward, __name__="chain"), config, {"embedding": table})


@pytest.mark.parametrize(
    "sampler", [Sampler(), Sampler(1.3, repetition_penalty=1.6, frequency_penalty=-0.7), Sampler(mirostat=(1.2, 0.4))]
)
def test_speculated_text_has_the_targets_distribution(sampler):
    rng, V, length, n = np.random.default_rng(3), 3, 3, 800
    table = rng.normal(size=(V, V)).astype(np.float32) / 2
    model, draft = chain(table), chain(table + np.asarray([2, 0, 0], np.float32))  # so that more than one token is left to draw
    counts = dict.fromkeys(itertools.product(range(V), repeat=length), 0)
    for seed in range(n):
        counts[tuple(text_of(speculate(model, DraftModel(draft, 2), [0], length, sampler, seed)))] += 1

    def probability(text):
        memory, p = remember(sampler, np.zeros((1, 1), np.int32), None, model.backend.xp, V), 1.0
        for before, token in zip((0, *text), text, strict=False):
            logits = model.params["embedding"][before : before + 1]
            p *= float(distribution(logits, sampler, memory)[0, token])
            memory = observe(memory, np.asarray([token], np.int32), logits, sampler)
        return p

    expected = {text: n * probability(text) for text in counts}
    assert all(counts[text] == 0 for text in counts if expected[text] == 0)
    common = [text for text in counts if expected[text] >= 5]
    rare = [text for text in counts if 0 < expected[text] < 5]
    cells = [(counts[text], expected[text]) for text in common]
    cells += [(sum(counts[text] for text in rare), sum(expected[text] for text in rare))] if rare else []
    chi_square, degrees = sum((c - e) ** 2 / e for c, e in cells), len(cells) - 1
    assert degrees >= 3
    limit = degrees * (1 - 2 / (9 * degrees) + 3.09 * (2 / (9 * degrees)) ** 0.5) ** 3  # probability 0.999, Wilson & Hilferty
    assert chi_square < limit, "the seeds are fixed"


@given(st.data())
def test_greedy_speculation_is_the_targets_greedy_text(backend, make_model, data):
    model, prompt = make_model(backend.name), data.draw(PROMPTS, "prompt")
    chosen = text_of(speculate(model, data.draw(drafts(model), "draft"), prompt, 8, GREEDY, seed=0))
    logits = full_logits(make_model, prompt + chosen)[len(prompt) - 1 : -1]
    margins = np.max(logits, axis=-1) - logits[np.arange(8), chosen]
    assert np.all(margins <= 2 * bound(logits, "float32")[:, 0])


SAMPLERS = [GREEDY, Sampler(), Sampler(0.8, top_k=9, top_p=0.9, repetition_penalty=1.3), Sampler(mirostat=(3.0, 0.2))]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_certain_draft_changes_no_token_that_is_drawn(backend, make_model, sampler):
    model, prompt = make_model(backend.name), [3, 1, 3, 1]
    for seed in range(3):
        alone = [int(step.tokens[0]) for step in generate(model, prompt, 12, sampler, seed)]
        assert text_of(speculate(model, PromptLookup(2, 3), prompt, 12, sampler, seed)) == alone


def watched(model, calls):
    """A model that notes which tokens each call continues, and the logits that it gives."""
    read = []

    def forward(params, tokens, config, cache, **options):
        del read[cache.length :]
        read.extend(model.backend.xp.to_numpy(tokens)[0].tolist())
        output = model.architecture.forward(params, tokens, config, cache, **options)
        calls.append((list(read), model.backend.xp.to_numpy(output.logits)[0]))
        return output

    return Model(SimpleNamespace(**vars(model.architecture) | {"forward": forward}), model.config, model.params)


@given(st.data())
def test_what_speculation_reads_equals_the_full_forward(backend, make_model, data):
    dtype = widest(backend)
    model, judged, drafting = make_model(backend.name, dtype), [], []
    draft = DraftModel(watched(model, drafting), data.draw(st.integers(1, 4), "n"))
    target = watched(moved(model, 0.1), judged)
    sampler = data.draw(st.sampled_from([GREEDY, Sampler()]), "sampler")
    prompt = data.draw(PROMPTS, "prompt")
    seed, size = data.draw(st.integers(0, 9), "seed"), data.draw(st.integers(1, 3), "size of a block")
    with pytest.MonkeyPatch.context() as patch:
        for module in (drafts_module, speculative_module):
            patch.setattr(module, "new_cache", partial(new_cache, size=size))
        list(speculate(target, draft, prompt, 6, sampler, seed))
    exact = make_model("numpy", "float64")
    for calls, reference in ((judged, moved(exact, 0.1)), (drafting, exact)):
        for tokens, logits in calls:
            expected = reference.logits([tokens])[0][len(tokens) - len(logits) :]
            assert np.all(np.abs(logits - expected) <= bound(expected, dtype))


def test_a_draft_that_is_the_target_is_always_accepted(backend, make_model):
    model = make_model(backend.name)
    for sampler in SAMPLERS:
        bursts = list(speculate(model, DraftModel(model, 3), [1, 2], 12, sampler, seed=0))
        assert [(len(b.tokens), b.drafted, b.accepted) for b in bursts] == [(4, 3, 3)] * 3, sampler


def test_the_totals_are_sums_over_the_forwards_of_the_target(make_model):
    model, calls = make_model("numpy"), []
    bursts = list(speculate(watched(model, calls), PromptLookup(1, 4), [1, 2, 1], 13, GREEDY, seed=0))
    found = totals(bursts)
    assert found.forwards == len(calls) == len(bursts)
    assert found.tokens == 13 == found.accepted + found.forwards
    assert found.drafted == sum(len(logits) - 1 for _, logits in calls)
    assert found.seconds == sum(burst.seconds for burst in bursts)
    assert totals([Burst(np.zeros(2, np.int32), 3, 1, 0.5)]) == (2, 3, 1, 1, 0.5)


@given(st.integers(1, 12), st.integers(1, 9))
def test_no_more_tokens_come_than_are_asked_for(make_model, n_tokens, n):
    model = make_model("numpy")
    for draft in (DraftModel(model, n), PromptLookup(2, n)):
        assert len(text_of(speculate(model, draft, [1, 2, 1], n_tokens, GREEDY, seed=0))) == n_tokens


def test_a_text_ends_at_a_stop_token_in_the_middle_of_a_draft(make_model):
    model = make_model("numpy")
    free = text_of(speculate(model, DraftModel(model, 5), [1, 2], 12, Sampler(2.0), seed=0))
    for stop in set(free):
        found = text_of(speculate(model, DraftModel(model, 5), [1, 2], 12, Sampler(2.0), seed=0, stop={stop}))
        assert found == free[: free.index(stop) + 1]


def test_a_text_goes_on_where_the_drafts_context_ends(make_model):
    model, short = make_model("numpy"), make_model("numpy", max_positions=6)
    if "positions" in short.params:
        short.params.update(positions=model.params["positions"][:6])
    alone = [int(step.tokens[0]) for step in generate(model, [3, 1, 4], 12, GREEDY, seed=0)]
    bursts = list(speculate(model, DraftModel(short, 3), [3, 1, 4], 12, GREEDY, seed=0))
    assert text_of(bursts) == alone
    assert bursts[0].drafted == 3
    assert bursts[-1].drafted == 0
    assert next(speculate(model, DraftModel(short, 3), [3, 1, 4, 1, 5], 9, GREEDY, seed=0)).drafted == 2


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("sampler", [GREEDY, Sampler()])
def test_logits_that_are_no_numbers_are_told_and_whose_they_are(backend, make_model, sampler):
    sound = make_model(backend.name)
    broken = Model(sound.architecture, sound.config, {n: v * float("nan") for n, v in sound.params.items()})
    for draft in (DraftModel(sound, 2), PromptLookup(1, 2)):
        with pytest.raises(ValueError, match=r"^the logits of token 1 are not finite numbers"):
            list(speculate(broken, draft, [1, 2, 1], 4, sampler, seed=0))
    with pytest.raises(ValueError, match="the draft's logits are not finite numbers"):
        list(speculate(sound, DraftModel(broken, 2), [1, 2, 1], 4, sampler, seed=0))


@pytest.mark.parametrize(
    ("prompt", "n_tokens", "says"),
    [
        ([], 1, "the prompt is empty"),
        ([1], 0, "n_tokens=0 asks for no token"),
        ([1] * 10, 7, "the prompt has 10 tokens, and 7 more do not fit the model's context of 16"),
        ([1, 23], 1, "holds the id 23"),
    ],
)
def test_a_wrong_prompt_is_refused_at_the_call(make_model, prompt, n_tokens, says):
    with pytest.raises(ValueError, match=says):
        speculate(make_model("numpy"), PromptLookup(1, 1), prompt, n_tokens, GREEDY, seed=0)


def test_a_masked_model_does_not_speculate():
    config = bert.Config(vocab_size=5, d_model=4, n_layers=1, n_heads=1, max_positions=8, d_ff=4)
    with pytest.raises(ValueError, match="does not continue a text"):
        speculate(Model.initialise("bert", config, seed=0), PromptLookup(1, 1), [1, 2], 3, GREEDY, seed=0)
