"""Continuous batching: each text is the one it gets alone, whoever comes and goes beside it."""

import importlib
import types
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import generator, load
from refllm.conformance.host_syncs import count_host_syncs
from refllm.conformance.specification import definitions, plain
from refllm.decoding import Sampler, generate, new_cache, observe, remember, uniforms
from refllm.decoding.batch import Batch
from refllm.decoding.margin import margin, sampling_slack
from refllm.decoding.prefix_cache import PrefixCache
from refllm.decoding.request import Request
from refllm.decoding.serve import serve
from refllm.layers.kv_cache import n_bytes
from refllm.models import bert, llama
from refllm.models.model import Model

GREEDY = Sampler(0.0)
SAMPLERS = [GREEDY, Sampler(1.5), Sampler(0.9, top_k=5), Sampler(1.2, repetition_penalty=1.3, frequency_penalty=0.2)]


@st.composite
def a_request(draw):
    return Request(
        prompt=draw(st.lists(st.integers(0, 22), min_size=1, max_size=6)),
        max_tokens=draw(st.integers(1, 4)),
        sampler=draw(st.sampled_from(SAMPLERS)),
        seed=draw(st.integers(0, 3)),
        row=draw(st.integers(0, 1)),
        stop_tokens=draw(st.sampled_from([(), (3,), (3, 7, 11, 13)])),
    )


def alone(model, request):
    """The tokens that `generate` gives the request, as the last of as many rows as it needs."""
    prompts = [request.prompt] * (request.row + 1)
    steps = generate(model, prompts, request.max_tokens, request.sampler, request.seed, request.stop_tokens)
    return [token for step in steps if (token := int(step.tokens[request.row])) >= 0]


def by_request(events):
    """The events of each request, in its order."""
    found = {}
    for event in events:
        found.setdefault(event.request, []).append(event)
    return found


def tokens_of(events):
    return {number: [event.token for event in theirs] for number, theirs in by_request(events).items()}


@given(st.data())
def test_a_text_is_the_one_it_gets_alone(backend, make_model, data):
    model = make_model(backend.name, widest(backend))
    requests = data.draw(st.lists(a_request(), min_size=1, max_size=3), "requests")
    rows, chunk = data.draw(st.integers(1, 2), "rows"), data.draw(st.sampled_from([None, 1, 3]), "chunk")
    events = by_request(serve(model, iter(requests), rows, chunk=chunk))
    assert sorted(events) == list(range(len(requests)))
    for number, request in enumerate(requests):
        tokens, expected = [event.token for event in events[number]], alone(model, request)
        assert tokens == expected or is_tie(make_model("numpy", "float64"), request, tokens, expected, widest(backend))
        reasons = [event.finish for event in events[number]]
        assert reasons[:-1] == [None] * (len(tokens) - 1)
        assert reasons[-1] == ("end" if tokens[-1] in request.stop_tokens else "length")


REMEMBERING = [
    Sampler(0.0, no_repeat_ngram=1),
    Sampler(0.0, repetition_penalty=3.0, presence_penalty=2.0),
    Sampler(1.5, frequency_penalty=2.0, no_repeat_ngram=2),
    Sampler(1.0, mirostat=(2.0, 0.5)),
]


@pytest.mark.parametrize("sampler", REMEMBERING, ids=str)
def test_what_a_sampler_remembers_stays_with_its_row(sampler):
    model, lengths = small(), [(3, 9), (1, 2), (4, 6), (2, 4), (1, 7), (2, 2), (5, 8)]
    requests = [
        Request([(i * 5 + j) % 23 for j in range(n)], n_tokens, sampler, row=i % 2) for i, (n, n_tokens) in enumerate(lengths)
    ]
    expected = {number: alone(model, request) for number, request in enumerate(requests)}
    assert tokens_of(serve(model, requests, 3)) == expected
    mixed = [request if i % 3 else replace(request, sampler=GREEDY) for i, request in enumerate(requests)]
    found = tokens_of(serve(model, mixed, 3))
    assert {number: found[number] for number in (1, 2, 4, 5)} == {number: expected[number] for number in (1, 2, 4, 5)}


def is_tie(exact, request, tokens, others, dtype):
    """Whether two texts part where the float64 logits leave the decision within the bound of that dtype."""
    step = next(i for i, pair in enumerate(zip(tokens, others, strict=False)) if pair[0] != pair[1])
    logits, sampler = exact.logits([[*request.prompt, *tokens[:step]]])[0, -1], request.sampler
    memory = remember(sampler, np.array([request.prompt], np.int32), None, exact.backend.xp, 23)
    for token in tokens[:step]:
        memory = observe(memory, np.array([token], np.int32), None, sampler)
    uniform = float(uniforms(request.seed, step, request.row + 1)[-1])
    return margin(logits, uniform, sampler, memory, slack=sampling_slack(logits, sampler)) <= 2 * bound(logits, dtype)[0]


@pytest.mark.parametrize("sampler", [GREEDY, Sampler(1.0, top_k=4), Sampler(0.5, top_p=0.9)])
def test_the_definition_agrees_with_refllm(sampler):
    config, rng = small().config, np.random.default_rng(0)
    params = {name: rng.integers(-64, 65, shape) / 64 for name, shape in llama.parameter_shapes(config).items()}
    requests = [
        Request(prompt, n, sampler, row=row, stop_tokens=(4,))
        for prompt, n, row in [([3, 1], 4, 0), ([2], 5, 1), ([7] * 3, 3, 0)]
    ]
    defined = [
        types.SimpleNamespace(
            prompt=request.prompt,
            max_tokens=request.max_tokens,
            uniforms=[float(uniforms(request.seed, s, request.row + 1)[-1]) for s in range(request.max_tokens)],
            sampler=sampler,
            stop_tokens=request.stop_tokens,
        )
        for request in requests
    ]
    lists = plain(params)
    expected = definitions()["served"](lambda tokens: definitions()["llama"](lists, tokens, config), defined)
    found = tokens_of(serve(Model(llama, config, params), requests, 2))
    assert [found[number] for number in range(len(requests))] == expected


def widest(backend):
    return "float64" if "float64" in backend.xp.dtypes() else "float32"


def bound(logits, dtype):
    """The error that logits: (..., V) of these models may have in a dtype, as in test_generate.py."""
    n = 2 * (8 + 8 + 8 + 16 + 16 + 16 + 8 + 8 + 12) + 8 + 8
    eps = {"float64": 2.0**-52, "float32": 2.0**-23}[dtype]
    return eps * (20 + n) * np.max(np.abs(logits), axis=-1, keepdims=True)


def small(backend="numpy", **changes):
    """A model whose weights are large enough that its texts depend on all that came before."""
    sizes = {"vocab_size": 23, "d_model": 4, "n_layers": 1, "n_heads": 1, "n_kv_heads": 1, "d_head": 4, "d_ff": 4}
    config = llama.Config(**sizes | {"max_positions": 16} | changes)
    params = {
        name: load(backend).xp.from_numpy(generator(1, "test", i).standard_normal(shape, dtype=np.float32))
        for i, (name, shape) in enumerate(llama.parameter_shapes(config).items())
    }
    return Model(llama, config, params)


def watched(model):
    """The model, and a list to which each call of it adds the shape of its tokens."""
    shapes, forward = [], model.architecture.forward

    def noting(params, tokens, *arguments, **options):
        shapes.append(tuple(tokens.shape))
        return forward(params, tokens, *arguments, **options)

    return replace(model, architecture=types.SimpleNamespace(**{**vars(model.architecture), "forward": noting})), shapes


def test_keys_and_values_may_be_kept_in_eight_bits(make_model, monkeypatch):
    module = importlib.import_module("refllm.decoding.serve")

    made, plain = [], module.new_cache
    monkeypatch.setattr(module, "new_cache", lambda *given, **named: made.append(plain(*given, **named)) or made[-1])
    model, requests = make_model("numpy"), [Request([1, 2, 3, 4][:n], 6, GREEDY) for n in (2, 4, 1)]
    together = tokens_of(serve(model, requests, 2, quantised=True))
    assert all(cache.quantised for cache in made)
    assert together == {i: tokens_of(serve(model, [request], 1, quantised=True))[0] for i, request in enumerate(requests)}


def test_a_row_that_is_free_is_taken_by_the_next_request_and_others_close_up():
    model, shapes = watched(small())
    requests = [Request([1] * n, n_tokens, GREEDY) for n, n_tokens in [(2, 4), (3, 2), (4, 4), (5, 1)]]
    events = list(serve(model, iter(requests), 2))
    prefills_and_steps = [(1, 2), (1, 3), (2, 1), (1, 4), (2, 1), (2, 1), (1, 5), (1, 1)]
    assert shapes == prefills_and_steps
    assert [event.request for event in events] == [0, 1, 0, 1, 2, 0, 2, 0, 2, 3, 2]


def test_a_long_prompt_is_read_in_chunks_between_which_the_others_go_on():
    model, shapes = watched(small())
    events = list(serve(model, iter([Request([1], 6, GREEDY), Request([1] * 7, 3, GREEDY)]), 2, chunk=3))
    assert shapes == [(1, 1), (1, 1), (1, 3), (1, 1), (1, 3), (1, 1), (1, 1), (2, 1), (2, 1)]
    assert [event.request for event in events] == [0, 0, 0, 0, 1, 0, 1, 0, 1]


def test_requests_are_read_when_a_row_is_free_for_them():
    read = []

    def requests():
        for n in range(4):
            read.append(n)
            yield Request([n + 1], 2, GREEDY)

    seen = [(event.request, len(read)) for event in serve(small(), requests(), 2)]
    assert seen == [(0, 1), (1, 2), (0, 2), (1, 2), (2, 3), (3, 4), (2, 4), (3, 4)]


def test_memory_does_not_grow_with_the_number_of_requests(make_model, monkeypatch):
    """Nor do texts suffer when the positions of all rows together pass many times over what one row may take."""
    model, bytes_held, step = make_model("numpy", "float64", max_positions=64), [], Batch.step

    def watch(batch):
        bytes_held.append(n_bytes(batch.cache))
        return step(batch)

    monkeypatch.setattr(Batch, "step", watch)
    requests = [Request([n % 23, *[1] * (n % 5)], 1 + n % 5, Sampler(1.0), seed=n) for n in range(60)]
    assert tokens_of(serve(model, requests, 3, room=10)) == {n: alone(model, request) for n, request in enumerate(requests)}
    longest = new_cache(model, 3, 10)
    assert max(bytes_held) <= n_bytes(longest) * (1 + longest.size / 10), "what it holds begins and ends within a block"
    assert max(bytes_held[:20]) == max(bytes_held[-20:])


def test_the_events_tell_log_probabilities_where_they_are_asked_for(backend, make_model):
    model, exact = make_model(backend.name), make_model("numpy", "float64")
    requests = [Request([5, i], 4, Sampler(1.5), logprobs=n) for i, n in enumerate((None, 0, 1, 3, 23))]
    events = by_request(serve(model, requests, 5))
    assert all(event.logprob is None and event.alternatives == () for event in events[0])
    for number, n in enumerate((0, 1, 3, 23), start=1):
        text = [5, number]
        for event in events[number]:
            logits = exact.logits([text])[0, -1]
            expected = logits - np.log(np.sum(np.exp(logits - logits.max()))) - logits.max()
            close = {"atol": float(4 * bound(logits, "float32")[0]), "rtol": 0}
            np.testing.assert_allclose(event.logprob, expected[event.token], **close)
            assert len(event.alternatives) == n
            if n:
                ids, nats = zip(*event.alternatives, strict=True)
                np.testing.assert_allclose(nats, np.sort(expected)[::-1][:n], **close)
                np.testing.assert_allclose(nats, expected[list(ids)], **close)
            text.append(event.token)


class Even:
    """Allows even tokens, and `n` of them."""

    def __init__(self, n):
        self.left = n

    @property
    def finished(self):
        return self.left == 0

    def allowed(self):
        if self.left < 0:
            raise ValueError("nothing is even.")
        return np.arange(23) % 2 == 0

    def advance(self, token):
        assert token % 2 == 0
        self.left -= 1


@pytest.mark.parametrize("rows", [1, 2])
def test_known_beginnings_are_not_read_again_and_change_no_text(backend, rows):
    model, shapes = watched(small(backend.name))
    prompts = [[1, 2, 3, 4], [1, 2, 3, 5, 6], [1, 2, 3, 4], [9], [1, 2, 3, 5, 6, 7], [1, 2, 3, 4, 8]]
    requests = [Request(prompt, 3, GREEDY) for prompt in prompts]
    found = tokens_of(serve(model, requests, rows, room=9, prefixes=PrefixCache(model, 10**6)))
    assert [T for _, T in shapes if T > 1] == [4, 2], "what is left of the others is one token"
    assert found == {number: alone(small(backend.name), request) for number, request in enumerate(requests)}


def test_a_constraint_holds_its_own_row_only(backend, make_model):
    model = make_model(backend.name)
    free = Request([1, 2], 8, Sampler(2.0), seed=1)
    held = Request([1, 2], 8, Sampler(2.0), seed=1, constraint=Even(5))
    events = by_request(serve(model, [free, held, free], 2))
    assert [event.token for event in events[0]] == [event.token for event in events[2]] == alone(model, free)
    assert len(events[1]) == 5
    assert all(event.token % 2 == 0 for event in events[1])
    assert events[1][-1].finish == "end"
    assert not all(event.token % 2 == 0 for event in events[0])


def test_a_constraint_that_nothing_meets_ends_its_text_with_its_sentence(make_model):
    model = make_model("numpy")
    events = by_request(serve(model, [Request([1], 3, GREEDY, constraint=Even(-1)), Request([1], 3, GREEDY)], 2))
    assert [(event.token, event.finish, event.error) for event in events[0]] == [(None, "error", "nothing is even.")]
    assert events[1][-1].finish == "length"


BAD = 22  # the token whose embedding is no number
CAREFUL = Sampler(0.0, logit_bias={BAD: -np.inf})


@pytest.fixture(params=[None, 2], ids=["full", "windowed"])
def broken(backend, request):
    """A model that fails where it reads one token, on each backend."""
    model, xp = small(backend.name, window=request.param), backend.xp
    values = np.array(xp.to_numpy(model.params["embedding"]))
    values[BAD] = np.nan
    return replace(model, params=model.params | {"embedding": xp.from_numpy(values)})


@pytest.mark.filterwarnings("ignore:invalid value")
def test_logits_that_are_no_numbers_end_their_text_and_no_other(broken):
    model = broken
    well, ill = Request([1, 2], 6, CAREFUL), Request([1, BAD], 6, GREEDY, logprobs=1)
    later = replace(well, prompt=[3, 4, 5])
    events = by_request(serve(model, [well, ill, well, ill, later], 2))
    for number in (1, 3):
        (event,) = events[number]
        assert event.finish == "error"
        assert "the logits of token 1 are not finite numbers" in event.error
    for number in (0, 2):
        assert [event.token for event in events[number]] == alone(model, well)
    assert [event.token for event in events[4]] == alone(model, later)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_numbers_that_a_failed_row_leaves_behind_do_no_harm(broken, monkeypatch):
    """Read one step behind, the row that fails at its second token goes on for one more; who follows has a shorter past."""
    monkeypatch.setitem(broken.backend.__dict__, "asynchronous", True)
    ill = Request([1, 2, 3, 4], 6, Sampler(0.0, logit_bias={BAD: 1e4}))
    long, later = Request([1, 2], 12, CAREFUL), Request([7], 9, CAREFUL)
    events = by_request(serve(broken, [long, ill, later], 2))
    assert [event.token for event in events[1]] == [BAD, None]
    assert "the logits of token 2" in events[1][-1].error
    assert [event.token for event in events[0]] == alone(broken, long)
    assert [event.token for event in events[2]] == alone(broken, later)


def test_a_request_that_cannot_be_answered_ends_with_a_sentence_and_the_others_go_on():
    good = Request([1, 2], 3, GREEDY)
    bad = [
        (replace(good, prompt=[]), "the prompt is empty"),
        (replace(good, prompt=[1] * 14), "the prompt has 14 tokens, and 3 more do not fit the model's context of 16"),
        (replace(good, max_tokens=0), "max_tokens=0 asks for no token|n_tokens=0 asks for no token"),
        (replace(good, prompt=[23]), "the prompt holds the id 23"),
        (replace(good, stop_strings=["x"]), "the model has no tokenizer"),
        (replace(good, stop_strings=[""]), "a stop string is empty|the model has no tokenizer"),
        (replace(good, logprobs=24), "logprobs=24 must be 0 … 23"),
        (replace(good, row=-1), "row=-1 is no row"),
    ]
    requests = [good, *(request for request, _ in bad), good]
    events = by_request(serve(small(), requests, 2))
    assert tokens_of(events[0])[0] == [event.token for event in events[len(bad) + 1]]
    for number, (_, says) in enumerate(bad, start=1):
        (event,) = events[number]
        assert (event.token, event.text, event.finish) == (None, "", "error")
        assert any(part in event.error for part in says.split("|")), event.error


def test_a_prompt_that_is_too_long_may_be_cut():
    model, ids = small(), list(range(1, 21))
    for overflow, kept in (("keep_end", ids[-13:]), ("keep_start", ids[:13])):
        events = list(serve(model, [Request(ids, 3, GREEDY)], 1, overflow=overflow))
        assert [event.token for event in events] == alone(model, Request(kept, 3, GREEDY))


def test_a_batch_has_no_more_room_than_it_is_given():
    requests = [Request([1] * 3, None, GREEDY), Request([1] * 9, 2, GREEDY)]
    events = by_request(serve(small(), requests, 2, room=10))
    assert len(events[0]) == 7
    assert "2 more do not fit the model's context of 10" in events[1][0].error


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rows": 0}, "rows=0 leaves no place"),
        ({"rows": 1, "chunk": 0}, "chunk=0 reads nothing"),
        ({"rows": 1, "room": 17}, "room=17 must be from 2, a prompt and a token, to the model's context of 16"),
        ({"rows": 1, "room": 1}, "room=1 must be"),
        ({"rows": 1, "overflow": "middle"}, "overflow='middle' is not a way to fit a prompt; choose one of error"),
    ],
)
def test_settings_that_leave_nothing_to_do_are_refused_at_the_call(settings, says):
    with pytest.raises(ValueError, match=says):
        serve(small(), [], **settings)


def test_a_masked_model_serves_nobody():
    model = Model.initialise("bert", bert.Config(vocab_size=5, d_model=4, n_layers=1, n_heads=1, max_positions=8, d_ff=4), seed=0)
    with pytest.raises(ValueError, match="bert is a masked model"):
        serve(model, [], 1)


def test_without_requests_there_are_no_events():
    assert list(serve(small(), [], 2)) == []


def test_the_next_step_is_begun_before_tokens_are_read_where_that_helps(monkeypatch):
    model, events = small(), []
    xp, forward = model.backend.xp, model.architecture.forward
    noted = types.SimpleNamespace(
        **{**vars(model.architecture), "forward": lambda *a, **k: events.append("forward") or forward(*a, **k)}
    )
    read = xp.to_numpy
    monkeypatch.setitem(xp.__dict__, "to_numpy", lambda x: events.append("read") or read(x))
    model = replace(model, architecture=noted)
    request = Request([1, 2], 3, GREEDY)
    list(serve(model, [request], 1))
    assert events == ["forward", "read"] * 3
    events.clear()
    monkeypatch.setitem(model.backend.__dict__, "asynchronous", True)
    list(serve(model, [request], 1))
    assert events == ["forward", "forward", "read", "forward", "read", "read"]
    events.clear()
    list(serve(model, [replace(request, constraint=Even(3))], 1))
    assert events == ["forward", "read"] * 3, "a constraint must see each token first"


def test_a_step_waits_for_the_device_once():
    with count_host_syncs() as syncs:
        model = small("strict")
        requests = [Request([1, 2, 3], 4, Sampler(0.9)), Request([4], 3, GREEDY), Request([5], 2, Sampler(1.0, min_p=0.1))]
        syncs.places.clear()
        events = list(serve(model, requests, 2))
        assert len(events) == 9
        prompts, steps = 3, 3
        assert syncs.count == prompts + steps, syncs.places


@given(st.data())
def test_reading_one_step_behind_changes_no_text(data):
    model = small()
    requests = data.draw(st.lists(a_request(), min_size=1, max_size=5))
    rows = data.draw(st.integers(1, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(model.backend.__dict__, "asynchronous", True)
        behind = tokens_of(serve(model, requests, rows))
    assert behind == tokens_of(serve(model, requests, rows))
