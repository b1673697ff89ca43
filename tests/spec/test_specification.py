"""The specification binds: pages, definitions, examples, laws and vectors against refllm, and refllm against them."""

import ast
import importlib
import inspect
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refllm.array_api import OPS, kernels, load
from refllm.array_api.contract import PRIMITIVES, STANDARD
from refllm.conformance import runners, specification, vectors
from refllm.conformance.examples import agrees, printed, run_array_example, run_example
from refllm.conformance.specification import definitions, evaluate, gradients, pages, signatures
from refllm.decoding import sampling
from refllm.decoding.generate import generate
from refllm.layers.attention import Mask
from refllm.layers.cache_blocks import dequantise, quantise
from refllm.layers.cache_rows import join
from refllm.layers.kv_cache import KVCache, Layer, advance, extend, most_blocks
from refllm.layers.rope import LinearScaling, Llama3Scaling, YarnScaling
from refllm.models import architecture
from refllm.models.model import Model
from refllm.models.parameters import count
from refllm.training import adamw, schedule
from refllm.training.config import TrainingConfig
from refllm.training.flat import arrange, pack
from refllm.training.step import State, learner, loss_and_gradients, train_step

PAGES = list(pages().values())
EXAMPLES = [example for page in PAGES for example in page.examples]
ARRAY_EXAMPLES = [example for page in PAGES for example in page.array_examples]
CASES = vectors.all_cases()
TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent


# What is drawn: multiples of 1/32, so that a failure prints short numbers


@st.composite
def numbers(draw, *shape, largest=3):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.integers(-32 * largest, 32 * largest + 1, shape) / 32


sizes = st.integers(1, 4)
leads = st.sampled_from([(1,), (2,), (1, 3)])


@st.composite
def tokens(draw, shape, V):
    return np.random.default_rng(draw(st.integers(0, 99))).integers(0, V, shape)


@st.composite
def normed(draw, vectors):
    D = draw(sizes)
    x = draw(numbers(*draw(leads), D))
    return (x, *(draw(numbers(D)) for _ in range(vectors)), draw(st.sampled_from([1e-5, 0.25, 1.0])))


@st.composite
def multiplied(draw, bias=False):
    D, F = draw(sizes), draw(sizes)
    arguments = (draw(numbers(*draw(leads), D)), draw(numbers(D, F)))
    return (*arguments, draw(numbers(F))) if bias else arguments


@st.composite
def looked_up(draw):
    V, D = draw(sizes), draw(sizes)
    return draw(tokens((*draw(leads), 3), V)), draw(numbers(V, D))


@st.composite
def one_array(draw, least_axes=0):
    shape = (*draw(leads), draw(sizes)) if least_axes else draw(leads)
    return (draw(numbers(*shape)),)


@st.composite
def gated(draw):
    D, F = draw(sizes), draw(sizes)
    return draw(numbers(*draw(leads), D)), draw(numbers(D, F)), draw(numbers(D, F)), draw(numbers(F, D))


@st.composite
def capped(draw):
    return draw(numbers(*draw(leads))), draw(st.sampled_from([0.5, 4.0]))


@st.composite
def widened(draw):
    D, F = draw(sizes), draw(sizes)
    x, activation = draw(numbers(*draw(leads), D)), draw(st.sampled_from(["gelu_tanh", "gelu_erf"]))
    return x, draw(numbers(D, F)), draw(numbers(F)), draw(numbers(F, D)), draw(numbers(D)), activation


@st.composite
def apart(draw, *shape):
    """Multiples of 1/8, no two of a row equal."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.permuted(np.broadcast_to(np.arange(shape[-1]), shape) * 3, axis=-1) / 8 + draw(numbers(*shape[:-1], 1))


@st.composite
def mixed(draw):
    D, F, E, lead = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(leads)
    experts = (draw(numbers(E, D, F)), draw(numbers(E, D, F)), draw(numbers(E, F, D)))
    return draw(numbers(*lead, D)), draw(apart(*lead, E)), *experts, draw(st.integers(1, E))


@st.composite
def balanced(draw):
    N, E = draw(sizes), draw(sizes)
    valid = np.random.default_rng(draw(st.integers(0, 99))).random(N) < 0.7 if draw(st.booleans()) else None
    return draw(apart(N, E)), valid, draw(st.integers(1, E))


@st.composite
def turned(draw):
    B, H, T, K = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(sizes), 2 * draw(st.integers(1, 2))
    angles = draw(numbers(*draw(st.sampled_from([(T,), (B, 1, T)])), K // 2))
    return draw(numbers(B, H, T, K)), np.cos(angles), np.sin(angles)


@st.composite
def attended(draw, block=False):
    B, G, R, K = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    T, past = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    S = T + past
    valid = np.random.default_rng(draw(st.integers(0, 99))).random((B, S)) < 0.7 if draw(st.booleans()) else None
    mask = Mask(past, draw(st.booleans()), draw(st.sampled_from([None, 1, 2])), valid)
    arguments = (draw(numbers(B, G * R, T, K)), draw(numbers(B, G, S, K)), draw(numbers(B, G, S, K)), mask, K**-0.5)
    softcap = draw(st.sampled_from([None, 0.5, 4.0]))
    return (*arguments, draw(st.integers(1, 4)), softcap) if block else (*arguments, softcap)


@st.composite
def dropped(draw):
    shape = draw(leads)
    uniforms = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 32, shape) / 32
    return draw(numbers(*shape)), uniforms, draw(st.sampled_from([0.0, 0.25, 0.5]))


@st.composite
def judged(draw, head=False):
    N, V, D = draw(sizes), draw(sizes), draw(sizes)
    targets = np.where(draw(tokens((N,), 4)) == 0, -100, draw(tokens((N,), V)))
    if head:
        return draw(numbers(N, D)), draw(numbers(D, V)), targets, -100, draw(st.integers(1, 5))
    return draw(numbers(N, V)), targets, -100


DRAWN = {
    "linear": multiplied(),
    "affine": multiplied(bias=True),
    "embedding": looked_up(),
    "rms_norm": normed(1),
    "layer_norm": normed(2),
    "softmax": one_array(least_axes=1),
    "gelu_erf": one_array(),
    "gelu_tanh": one_array(),
    "silu": one_array(),
    "swiglu": gated(),
    "geglu": gated(),
    "softcap": capped(),
    "mlp": widened(),
    "mixture_of_experts": mixed(),
    "load_balancing_loss": balanced(),
    "rope": turned(),
    "rope_interleaved": turned(),
    "attention": attended(),
    "blockwise_attention": attended(block=True),
    "dropout": dropped(),
    "cross_entropy": judged(),
    "linear_cross_entropy": judged(head=True),
}


def of_refllm(name):
    return getattr(importlib.import_module(runners.home(name)), name)


def assert_equal_within(found, expected, tolerance=vectors.EXACT):
    """Equal in shape, and in value to a share of the largest number, or of 1 where all are smaller."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    error, bound = np.abs(found - expected), tolerance * max(1.0, float(np.max(np.abs(expected), initial=0.0)))
    assert np.all(error <= bound), f"{found}\ndiffers by up to {np.max(error):.3g}, more than {bound:.3g}, from\n{expected}"


@pytest.fixture(params=["kernels", "plain"])
def numpy_kernels(request):
    numpy = load("numpy")
    with kernels(numpy, numpy.kernels if request.param == "kernels" else {}):
        yield


# Definitions


@pytest.mark.parametrize("name", DRAWN)
def test_a_definition_agrees_with_refllm(name):
    numpy = load("numpy")

    @given(DRAWN[name])
    def agrees(arguments):
        expected = evaluate(name, *arguments)
        for table in ({}, numpy.kernels):
            with kernels(numpy, table):
                y, _ = of_refllm(name)(*arguments)
            assert_equal_within(y, expected)

    agrees()


@pytest.mark.parametrize("name", DRAWN)
def test_the_complex_step_of_a_definition_gives_refllms_backward(name):
    numpy, f = load("numpy"), of_refllm(name)
    backward = getattr(importlib.import_module(runners.home(name)), f"{name}_backward")
    of = tuple(i for i, n in enumerate(runners.parameters(name)) if f"d{n}" in runners.differentiated(name))

    @settings(max_examples=10)  # each draw steps every number of every argument
    @given(st.data())
    def agrees(data):
        arguments = data.draw(DRAWN[name])
        dy = data.draw(numbers(*evaluate(name, *arguments).shape))
        dy = dy if dy.ndim else np.asarray(dy)
        expected = gradients(lambda *a: evaluate(name, *a), arguments, dy, of)
        for table in ({}, numpy.kernels):
            with kernels(numpy, table):
                _, saved = f(*arguments)
                found = backward(dy, saved)
            found = found if isinstance(found, tuple) else (found,)
            for ours, theirs in zip(found, expected, strict=True):
                assert_equal_within(ours, theirs)

    agrees()


def test_every_definition_with_axes_is_held_to_refllm():
    assert set(DRAWN) <= set(signatures())
    differentiable = {n for n in signatures() if hasattr(importlib.import_module(runners.home(n)), f"{n}_backward")}
    assert differentiable == set(DRAWN)


def params_drawn(name, config, seed):
    shapes = architecture(name).parameter_shapes(config)
    rng = np.random.default_rng(seed)
    return {n: rng.integers(-64, 65, shape) / 128 + (len(shape) == 1) for n, shape in shapes.items()}


LLAMA = {
    "vocab_size": 5,
    "d_model": 4,
    "n_layers": 2,
    "n_heads": 4,
    "d_head": 2,
    "d_ff": 3,
    "max_positions": 6,
    "rope_theta": 50.0,
}
GPT2 = {"vocab_size": 5, "d_model": 4, "n_layers": 2, "n_heads": 2, "d_ff": 3, "max_positions": 6}
BERT = GPT2 | {"n_types": 2}
MIXTRAL = LLAMA | {"n_experts": 4, "top_k": 2, "n_kv_heads": 2, "d_ff": 2}
GEMMA = LLAMA | {"n_kv_heads": 2, "query_pre_attn_scalar": 3, "norm_eps": 0.01}
MODELS = [
    ("bert", BERT),
    (
        "bert",
        BERT | {"n_heads": 1, "n_layers": 1, "activation": "gelu_tanh", "pooler": True, "next_sentence": True, "n_types": 1},
    ),
    ("gemma", GEMMA),
    ("gemma", GEMMA | {"window": 2, "full_layers": (1,), "attention_softcap": 0.75, "logit_softcap": 3.0}),
    ("gemma", GEMMA | {"n_layers": 1, "post_norms": False, "tied": False, "norm_eps": 0.25}),
    (
        "gemma",
        GEMMA | {"window": 2, "full_layers": (0,), "qk_norm": True, "local_rope_theta": 9.0, "rope_scaling": LinearScaling(2.0)},
    ),
    ("gpt2", GPT2),
    ("gpt2", GPT2 | {"n_heads": 1, "n_layers": 1, "activation": "gelu_erf", "norm_eps": 0.25}),
    ("llama", LLAMA | {"n_kv_heads": 2}),
    ("llama", LLAMA | {"n_kv_heads": 4, "tied": True, "window": 2, "norm_eps": 0.25}),
    ("llama", LLAMA | {"n_kv_heads": 1, "n_layers": 1, "rope_scaling": Llama3Scaling(4.0, 1.0, 4.0, 16)}),
    ("llama", LLAMA | {"n_kv_heads": 2, "window": 2, "full_layers": (1,), "qkv_bias": True, "rope_scaling": LinearScaling(2.0)}),
    ("llama", LLAMA | {"n_kv_heads": 2, "n_layers": 1, "qkv_bias": True, "o_bias": True, "ffn_bias": True}),
    ("llama", LLAMA | {"n_kv_heads": 2, "n_layers": 1, "qk_norm": True, "rope_scaling": YarnScaling(4.0, 99, 8.0, 1.0, 1.2)}),
    ("mixtral", MIXTRAL),
    ("mixtral", MIXTRAL | {"n_layers": 1, "n_experts": 3, "top_k": 1, "tied": True, "window": 2}),
]


@pytest.mark.parametrize(("name", "fields"), MODELS, ids=[f"{n}{i}" for i, (n, _) in enumerate(MODELS)])
@pytest.mark.parametrize("seed", range(2))
def test_a_models_definition_and_its_complex_step_agree_with_refllm(name, fields, seed, numpy_kernels):
    config, rng = architecture(name).Config(**fields), np.random.default_rng(seed)
    params, tokens = params_drawn(name, config, seed), rng.integers(0, config.vocab_size, (2, 4))
    dlogits = rng.integers(-64, 65, (2, 4, config.vocab_size)) / 32

    def defined(changed):
        lists = specification.plain(params | changed)
        return np.asarray([definitions()[name](lists, row, config) for row in tokens.tolist()])

    output = architecture(name).forward(params, tokens, config)
    assert_equal_within(output.logits, defined({}))
    for parameter, gradient in architecture(name).backward(dlogits, output.saved).items():
        direction = rng.integers(-64, 65, gradient.shape) / 64  # the gradient along a drawn direction, for each parameter
        moved = params[parameter] + 1j * specification.STEP * direction
        expected = np.sum(dlogits * defined({parameter: moved}).imag) / specification.STEP
        assert_equal_within(np.sum(gradient * direction), expected)


@pytest.mark.parametrize(("name", "fields"), MODELS, ids=[f"{n}{i}" for i, (n, _) in enumerate(MODELS)])
def test_a_models_table_and_count_are_those_of_its_parameters(name, fields):
    config = architecture(name).Config(**fields)
    letters = {"V": "vocab_size", "D": "d_model", "H": "n_heads", "G": "n_kv_heads", "K": "d_head", "F": "d_ff"}
    letters |= {"P": "max_positions", "L": "n_layers", "E": "n_experts"}
    letters |= {"n_types": "n_types", "head": "head", "pooler": "pooler", "next_sentence": "next_sentence"}
    letters |= {flag: flag for flag in ("tied", "qkv_bias", "o_bias", "ffn_bias", "qk_norm", "post_norms")}
    sizes = {letter: getattr(config, field, None) for letter, field in letters.items()}
    rows = specification.entries(f"models/{name}", "Parameter")
    stated = {
        row.format(i=i): eval(shape, {}, sizes)
        for row, shape in rows.items()
        for i in (range(config.n_layers) if "{i}" in row else [0])
    }
    if getattr(config, "tied", False):
        del stated["lm_head"]
    shapes = architecture(name).parameter_shapes(config)
    optional = [n for n in stated if n.endswith(("q_norm", "k_norm", "post_norm")) or (name == "llama" and n.endswith("_bias"))]
    optional += [n for n in stated if n.startswith(("pooler.", "next_sentence."))]
    for absent in [n for n in optional if n not in shapes]:
        del stated[absent]
    assert stated == shapes
    formula = definitions()[f"{name}_parameter_count"]
    assert formula(*(sizes[n] for n in inspect.signature(formula).parameters)) == count(shapes)


@given(st.data())
def test_the_optimizers_definitions_agree_with_refllm(data):
    P = data.draw(st.integers(1, 6))
    vector, grads, mean = (data.draw(numbers(P)) for _ in range(3))
    square, step, decayed = data.draw(numbers(P)) ** 2, data.draw(st.integers(1, 1000)), data.draw(st.integers(0, P))
    arguments = (vector, grads, mean, square, step, 0.01, 0.9, 0.95, 1e-3, 0.1, decayed)
    expected = definitions()["adamw_update"](*specification.plain(arguments))
    numpy = load("numpy")
    for table in ({}, numpy.kernels):
        with kernels(numpy, table):
            copies = (np.array(a) if isinstance(a, np.ndarray) else a for a in arguments)
            for found, result in zip(adamw.adamw_update(*copies), expected, strict=True):
                assert_equal_within(found, result)
            norm = adamw.global_norm(vector)
            assert_equal_within(norm, definitions()["global_norm"](vector.tolist()))
            for limit in (0.5, 100.0):
                expected_clip = definitions()["clip"](vector.tolist(), float(norm), limit)
                assert_equal_within(adamw.clip(np.array(vector), np.asarray(norm), limit), expected_clip)


@given(
    st.integers(0, 120),
    st.sampled_from(list(schedule.SCHEDULES)),
    st.integers(1, 100),
    st.integers(0, 20),
    st.sampled_from([None, 1, 7, 50]),
    st.sampled_from([0.0, 0.1, 1.0]),
)
def test_the_schedules_definition_agrees_with_refllm(step, name, steps, warmup, decay, final):
    expected = definitions()["learning_rate"](step, 0.5, name, steps, warmup, decay, final)
    settings = {"steps": steps, "warmup_steps": warmup, "decay_steps": decay, "final_fraction": final}
    assert_equal_within(schedule.learning_rate(step, peak=0.5, schedule=name, **settings), expected)


@given(st.data(), st.integers(1, 3), st.sampled_from([0.0, 0.5]))
def test_the_training_steps_definition_agrees_with_refllm(data, n_micro, limit):
    config = architecture("gpt2").Config(**GPT2)
    settings = {"context": 4, "batch": 2, "steps": 9, "learning_rate": 0.125, "warmup_steps": 2, "eps": 1e-3}
    training = TrainingConfig(**settings, accumulation=n_micro, clip=limit, dtype="float64")
    pupil = learner(architecture("gpt2"), config, training)
    vector = pack(params_drawn("gpt2", config, data.draw(st.integers(0, 99))), pupil.layout)
    mean, square, step = vector / 8, vector * vector, data.draw(st.integers(0, 8))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    batches = [(rng.integers(0, 5, (2, 4)), rng.integers(0, 5, (2, 4))) for _ in range(n_micro)]
    for _, targets in batches:
        targets[rng.random((2, 4)) < 0.4] = -100
    parts = [loss_and_gradients(vector, *batch, pupil.layout, pupil.model, config) for batch in batches]
    counts = [int(np.sum(targets != -100)) for _, targets in batches]
    given_parts = [float(loss) for loss, _ in parts], [grads.tolist() for _, grads in parts], counts
    state = specification.plain((vector, mean, square))
    updated, loss, norm = definitions()["train_step"](*state, step, *given_parts, training, pupil.layout.n_decayed)
    after, metrics = train_step(State(np.array(vector), np.array(mean), np.array(square), step), batches, pupil)
    for found, expected in zip((after.vector, after.mean, after.square), updated, strict=True):
        assert_equal_within(found, expected)
    assert_equal_within(metrics.loss, loss)
    assert_equal_within(metrics.gradient_norm, norm)


def test_the_layouts_definition_agrees_with_refllm():
    for name, fields in MODELS:
        shapes = architecture(name).parameter_shapes(architecture(name).Config(**fields))
        assert definitions()["arrange"](shapes) == list(arrange(shapes).names)


@pytest.mark.parametrize("sampler", [sampling.Sampler(0), sampling.Sampler(1.0, top_k=4), sampling.Sampler(0.5, top_p=0.9)])
def test_generation_from_the_cache_is_its_definition_without_one(sampler):
    config = architecture("llama").Config(**LLAMA | {"n_kv_heads": 2, "max_positions": 9})
    params = params_drawn("llama", config, 0)
    model, lists = Model(architecture("llama"), config, params), specification.plain(params)
    uniforms = [float(sampling.uniforms(7, step, 1)[0]) for step in range(5)]
    expected = definitions()["continued"](lambda t: definitions()["llama"](lists, t, config), [3, 1], 5, uniforms, sampler)
    assert [int(step.tokens[0]) for step in generate(model, [3, 1], 5, sampler, seed=7)] == expected


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.sampled_from([None, 1, 3]), st.integers(1, 4), st.integers(0, 2))
def test_the_caches_definition_agrees_with_refllm(pieces, window, size, slack):
    cache = KVCache((Layer(window=window),), 0, size, room=25, rows=1, slack=slack)
    for T in pieces:
        k = np.arange(cache.length, cache.length + T, dtype=np.float64).reshape((1, 1, T, 1))  # each position's key names it
        cache, keys, values, _ = extend(cache, 0, k, k, Mask(cache.length, True, window))
        seen = definitions()["positions_seen"](cache.length, T, window, 0)
        assert [x for block in keys for x in block.ravel()] == [x for block in values for x in block.ravel()] == seen
        (held,) = cache.layers
        kept = definitions()["blocks_kept"](cache.length, T, window, 0, slack, size)
        assert list(range(held.first, held.first + len(held.keys))) == kept
        cache = advance(cache, T)
    assert definitions()["most_blocks"](slack + 1, size) == most_blocks(slack + 1, size)


@given(st.data(), st.integers(1, 5))
def test_the_definition_of_eight_bits_agrees_with_refllm(data, K):
    x = data.draw(numbers(1, 1, 1, K))
    ours, theirs = quantise(x), definitions()["quantise_vector"](x.ravel().tolist())
    assert_equal_within(ours.scales.ravel(), [theirs[1]])
    ties = np.abs(np.abs(np.modf(127 * x.ravel() / max(np.max(np.abs(x)), 1e-9))[0]) - 0.5) < 1e-9  # may go either way
    assert np.all((ours.codes.ravel() == theirs[0]) | ties)
    assert_equal_within(
        dequantise(ours, x.dtype).ravel(), definitions()["dequantise_vector"](ours.codes.ravel().tolist(), theirs[1])
    )


@given(st.integers(1, 6), st.integers(1, 6))
def test_the_definition_of_a_joined_rows_start_agrees_with_refllm(length, alone):
    def cache_of(rows, T):
        cache, x = KVCache((Layer(),), 0, 2, room=12, rows=rows), np.zeros((rows, 1, T, 1))
        return advance(extend(cache, 0, x, x, Mask())[0], T)

    found = join(cache_of(2, length), 1, cache_of(1, alone)).starts.tolist()
    assert found == [0, definitions()["start_of_joined"](length, alone, 0)]


@given(attended(), st.lists(st.integers(1, 3), max_size=2), st.booleans())
def test_the_definition_of_attention_over_blocks_agrees_with_refllm(arguments, cuts, shared):
    q, k, v, *how = arguments
    keys, values = (
        [block[:1] if shared and i == 0 else block for i, block in enumerate(np.split(a, sorted(cuts), axis=2))] for a in (k, v)
    )
    keys, values = (tuple(block for block in blocks if block.shape[2]) for blocks in (keys, values))
    expected = definitions()["cached_attention"](*map(specification.plain, (q, keys, values, *how)))
    for table in ({}, load("numpy").kernels):
        with kernels(load("numpy"), table):
            assert_equal_within(of_refllm("cached_attention")(q, keys, values, *how), expected)


def test_every_op_of_refllm_is_defined_in_the_specification():
    for page in PAGES:
        if page.facts.get("Code"):
            importlib.import_module(
                "refllm." + linked(page, "Code").removeprefix("refllm/").removesuffix(".py").replace("/", ".")
            )
    ours = {name for name, f in OPS.items() if f.__module__.startswith("refllm.") and not name.endswith("_backward")}
    together = {"loss_and_gradients", "llama_blocks"}  # the model's and the loss's definitions, the model's without its head
    assert not ours - definitions().keys() - together


# Examples


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: f"{e.page}.md:{e.line}")
def test_an_example_is_true(example):
    value, stated = run_example(example), printed(example.value)
    assert agrees(value, stated), f"spec/{example.page}.md:{example.line}: {example.call} is {value}, not {example.value}"


@pytest.mark.parametrize("example", ARRAY_EXAMPLES, ids=lambda e: f"{e.page}.md:{e.line}")
def test_an_example_of_the_array_api_is_true_on_every_backend(example, backend):
    value, stated = run_array_example(example, backend.xp), printed(example.value)
    assert agrees(value, stated), f"spec/{example.page}.md:{example.line}: {example.call} is {value}, not {example.value}"


def test_every_name_of_the_array_api_has_its_meaning_and_an_example_in_the_specification():
    meanings = specification.entries("array_api")
    assert meanings == STANDARD | PRIMITIVES
    used = {
        node.id if isinstance(node, ast.Name) else node.attr
        for example in pages()["array_api"].array_examples
        for node in ast.walk(ast.parse(example.call))
        if isinstance(node, ast.Name | ast.Attribute)
    }
    assert not (STANDARD | PRIMITIVES).keys() - used


def test_every_definition_page_has_examples():
    assert not [page.name for page in PAGES if page.definitions and not page.examples]


# Laws


def names_tested_in(folder):
    return {
        node.name
        for path in folder.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }


def linked(page, fact):
    """The path, from the root of the project, that a page's table links to."""
    return page.facts[fact].partition("`")[2].partition("`")[0]


@pytest.mark.parametrize("page", [page for page in PAGES if page.laws], ids=lambda page: page.name)
def test_every_law_is_tested_where_its_page_says(page):
    folder = TESTS / page.name.partition("/")[0]
    here = names_tested_in(folder) | names_tested_in(TESTS / "spec")
    assert not [law.name for law in page.laws if f"test_{law.name}" not in here]


def test_every_test_among_the_laws_is_a_law_of_a_page():
    named = {f"test_{law.name}" for page in PAGES for law in page.laws}
    tree = ast.parse((TESTS / "spec" / "test_laws.py").read_text(encoding="utf-8"))
    assert not {n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")} - named


# One concept, one name


@pytest.mark.parametrize("page", [page for page in PAGES if "Code" in page.facts], ids=lambda page: page.name)
def test_a_page_names_its_code_its_tests_and_its_vectors(page):
    for fact in ("Code", "Tests"):
        path = linked(page, fact)
        assert (ROOT / path).is_file(), path
        assert f"]({'../' * (page.name.count('/') + 1)}{path})" in page.facts[fact]
    assert page.facts["Source"]
    for path in page.vectors:
        assert path.is_file()
        assert path.stem == page.name.rpartition("/")[2]
    if page.name.startswith("layers/"):
        assert linked(page, "Code") == f"refllm/{page.name}.py"
        assert linked(page, "Tests") == f"tests/layers/test_{page.name.removeprefix('layers/')}.py"


def test_the_readme_lists_every_page():
    text = (specification.spec_folder() / "README.md").read_text(encoding="utf-8")
    assert not [page.name for page in PAGES if page.name != "README" and f"]({page.name}.md)" not in text]


def test_the_readme_lists_the_inputs_and_outputs_of_every_op():
    text = (specification.spec_folder() / "README.md").read_text(encoding="utf-8")
    (grid,) = (grid for grid in specification.tables(text) if grid[0][0] == "Op")
    stated = {op.strip("`"): (inputs.split(), outputs.split()) for op, inputs, outputs in grid[1:]}
    assert stated.keys() == {case.op for case in CASES}
    for case in CASES:
        inputs, outputs = stated[case.op]
        assert set(case.inputs) == set(inputs)
        of_parameters = {n for p in case.inputs.get("params", ()) for n in (p, f"d{p}")}
        assert set(case.outputs) - of_parameters == set(outputs) - {"d…", "…"}


def test_vectors_are_small():
    sizes = {path.name: path.stat().st_size for path in specification.spec_folder().rglob("*.json")}
    assert sum(sizes.values()) < 1_500_000
    assert max(sizes.values()) < 100_000


# Vectors


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.op}:{c.name}")
def test_numpy_keeps_the_vectors_in_float64(case, numpy_kernels):
    shares = vectors.held(case, load("numpy"), "float64")
    assert all(share <= 1 for share in shares.values()), shares


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.op}:{c.name}")
def test_every_backend_keeps_the_vectors_in_float32(case, backend):
    shares = vectors.held(case, backend, "float32")
    assert all(share <= 1 for share in shares.values()), shares


@pytest.mark.parametrize("op", sorted({case.op for case in CASES} - {"train_step"}))
def test_no_bound_is_so_wide_that_it_proves_nothing(op):
    for case in (case for case in CASES if case.op == op):
        for name, bound in vectors.bounds(case, "float32").items():
            assert np.all(bound <= 1e-3 * max(1.0, float(np.max(np.abs(case.outputs[name]))))), (case.name, name, bound)


def test_a_wrong_a_missing_and_a_misshapen_result_are_beyond_every_bound():
    case = next(case for case in CASES if case.op == "rms_norm")
    right = {name: np.asarray(y) for name, y in case.outputs.items()}
    assert max(vectors.shares(case, right, "float32").values()) == 0
    for wrong in (np.nan * right["dx"], right["dx"] * (1 + 1e-5), right["dx"][0], None, "text"):
        assert vectors.shares(case, right | {"dx": wrong}, "float32")["dx"] > 1
    assert vectors.shares(case, {"y": right["y"]}, "float32")["dx"] == np.inf
