"""llama2.c's checkpoints: a real trained model, held to a plain transcription of its reference program and to its known text."""

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm import checkpoints
from refllm.checkpoints import llama2c
from refllm.checkpoints.llama2c import MAGIC, halves_from_pairs, pairs_from_halves
from refllm.decoding import Sampler, generate, new_cache
from refllm.evaluation import token_log_probabilities
from refllm.models import llama
from refllm.models.model import Model

BOS = 1
TEXT = """\
Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. \
She wanted to play with it, but it was too high.
Lily's mom said, "Lily, let's go to the park." Lily was sad and didn't know what to do. She said, "I want to play with your \
ball, but I can't find it."
Lily was sad and didn't know what to do. She said, "I'm sorry, Lily. I didn't know what to do."
Lily didn't want to help her mom, so she"""


@pytest.fixture(scope="module")
def path(data):
    return data / "stories260K.bin"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("llama2c")


@pytest.fixture(scope="module")
def pieces(data):
    """The bytes of each token of tok512.bin: after its first number, a score, a length and that many bytes for each."""
    stored, place, pieces = (data / "tok512.bin").read_bytes(), 4, []
    while place < len(stored):
        _, length = struct.unpack_from("<fi", stored, place)
        pieces.append(stored[place + 8 : place + 8 + length])
        place += 8 + length
    return [bytes([int(p[3:5], 16)]) if len(p) == 6 and p.startswith(b"<0x") else p for p in pieces]


def as_written_in_c(path, tokens):
    """Logits of every position, (T, V), in float64, by llama2.c's own order of weights and pairs of features."""
    raw = path.read_bytes()
    dim, hidden, n_layers, n_heads, n_kv_heads, vocab, _ = struct.unpack_from("<7i", raw)
    weights, place = np.frombuffer(raw, "<f4", offset=28).astype(np.float64), 0

    def take(*shape):
        nonlocal place
        place += int(np.prod(shape))
        return weights[place - int(np.prod(shape)) : place].reshape(shape)

    K, L = dim // n_heads, n_layers
    embedding, norm1, wq = take(vocab, dim), take(L, dim), take(L, dim, dim)
    wk, wv, wo = take(L, n_kv_heads * K, dim), take(L, n_kv_heads * K, dim), take(L, dim, dim)
    norm2, w1, w2, w3, norm = take(L, dim), take(L, hidden, dim), take(L, dim, hidden), take(L, hidden, dim), take(dim)

    def rms(x, gain):
        return x / np.sqrt(np.mean(x * x) + 1e-5) * gain

    def turned(x, position):
        """Each pair (2i, 2i+1) as a complex number, times exp(i · angle)."""
        angles = position * 10_000.0 ** (-2 * np.arange(K // 2) / K)
        pairs = x.reshape(-1, K // 2, 2)
        pairs = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angles)
        return np.stack([pairs.real, pairs.imag], axis=-1).reshape(-1, K)

    keys, values, logits = np.zeros((L, len(tokens), n_kv_heads, K)), np.zeros((L, len(tokens), n_kv_heads, K)), []
    for t, token in enumerate(tokens):
        x = embedding[token]
        for i in range(L):
            h = rms(x, norm1[i])
            q, keys[i, t], values[i, t] = turned(wq[i] @ h, t), turned(wk[i] @ h, t), (wv[i] @ h).reshape(-1, K)
            heard = []
            for head in range(n_heads):
                of = head // (n_heads // n_kv_heads)
                e = np.exp(keys[i, : t + 1, of] @ q[head] / np.sqrt(K))
                heard.append(e / np.sum(e) @ values[i, : t + 1, of])
            x = x + wo[i] @ np.concatenate(heard)
            h = rms(x, norm2[i])
            gate = w1[i] @ h
            x = x + w2[i] @ (gate / (1 + np.exp(-gate)) * (w3[i] @ h))
        logits.append(embedding @ rms(x, norm))
    return np.asarray(logits)


def test_logits_of_the_trained_model_are_those_of_its_reference_program(path):
    model = checkpoints.load(path, "numpy", dtype="float64")
    assert model.n_parameters == 260_032
    tokens = [BOS, 403, 407, 261, 378, 417, 5, 310, 500, 77]
    expected = as_written_in_c(path, tokens)
    assert np.all(np.abs(model.logits([tokens])[0] - expected) <= 1e-12 * np.max(np.abs(expected)))


def test_the_trained_model_tells_the_known_story(path, pieces, backend):
    model = checkpoints.load(path, backend)
    steps = generate(model, [BOS], 200, Sampler(temperature=0), seed=0)
    assert b"".join(pieces[int(step.tokens[0])] for step in steps).decode().removeprefix(" ") == TEXT


def test_the_mean_loss_on_its_own_story_is_that_of_its_reference_program(path):
    model = checkpoints.load(path, "numpy", dtype="float64")
    story = [BOS, *(int(step.tokens[0]) for step in generate(model, [BOS], 200, Sampler(temperature=0), seed=0))]
    logits = as_written_in_c(path, story[:-1])
    expected = np.mean(np.log(np.sum(np.exp(logits), axis=-1)) - logits[np.arange(200), story[1:]])
    assert abs(float(model.loss([story[:-1]], [story[1:]])) - expected) <= 1e-9
    assert abs(-np.mean(token_log_probabilities(model, [story])) - expected) <= 1e-9
    assert 0.3 < expected < 0.5  # nats per token


def test_the_story_read_at_once_predicts_itself(path, pieces):
    model = checkpoints.load(path, "numpy")
    tokens, cache, token = [], new_cache(model, 1, 200), np.asarray([[BOS]])
    for _ in range(200):
        logits, cache, *_ = llama.forward(model.params, token, model.config, cache)
        token = np.argmax(logits[:, -1:], axis=-1)
        tokens.append(int(token[0, 0]))
    logits = model.logits([[BOS, *tokens[:-1]]])[0]
    gap = np.diff(np.sort(logits, axis=-1)[:, -2:])[:, 0]
    assert 0.0041 < np.min(gap) < 0.0043  # how narrowly the closest of 200 decisions falls
    assert np.argmax(logits, axis=-1).tolist() == tokens


def test_a_checkpoint_that_is_converted_is_the_same_model(path, tmp_path):
    model = checkpoints.load(path, "numpy")
    checkpoints.save(tmp_path, model)
    converted = checkpoints.load(tmp_path, "numpy")
    assert converted.config == model.config
    for n, p in model.params.items():
        np.testing.assert_array_equal(converted.params[n], p)


def write(path, config, kinds):
    """A checkpoint of llama2.c: its seven numbers, then weights counting up from zero."""
    sizes = (config.d_model, config.d_ff, config.n_layers, config.n_heads, config.n_kv_heads)
    head = struct.pack("<7i", *sizes, config.vocab_size if config.tied else -config.vocab_size, config.max_positions)
    path.write_bytes(head + np.arange(kinds, dtype="<f4").tobytes())


SMALL = llama.Config(vocab_size=3, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1, d_head=4, d_ff=5, max_positions=6)


def test_a_head_of_its_own_lies_at_the_end_of_the_file(tmp_path):
    numbers = Model.initialise("llama", SMALL, 0, "numpy").n_parameters + 2 * 6 * 2  # and two tables of rotary angles
    write(tmp_path / "m.bin", SMALL, numbers)
    model = checkpoints.load(tmp_path / "m.bin", "numpy")
    assert model.config == SMALL
    np.testing.assert_array_equal(model.params["lm_head"].T.reshape(-1), np.arange(numbers - 24, numbers))
    np.testing.assert_array_equal(model.params["embedding"].reshape(-1), np.arange(24))


def test_pairs_become_halves_head_by_head():
    rows = np.arange(12)[:, None]  # two heads of six features
    assert halves_from_pairs(rows, 2)[:, 0].tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]


def test_a_model_of_123_layers_is_not_taken_for_a_file_that_has_a_brace_there(folder):
    config = replace(SMALL, n_layers=ord("{"), tied=True)
    write_version_0(folder / "x.bin", config, weights_of(config, np.random.default_rng(0)))
    assert checkpoints.load(folder / "x.bin").config == config


def test_halves_become_the_pairs_they_came_from():
    rows = np.arange(24).reshape(12, 2)
    assert pairs_from_halves(rows[[0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]], 2).tolist() == rows.tolist()
    np.testing.assert_array_equal(halves_from_pairs(pairs_from_halves(rows, 3), 3), rows)


def weights_of(config, rng):
    """Random weights by the names of llama2.c, (L, out, in), each (out, in)."""
    c, K = config, config.d_head
    shapes = {"tok": (c.vocab_size, c.d_model), "att_norm": (c.n_layers, c.d_model), "wq": (c.n_layers, c.n_heads * K, c.d_model)}
    shapes |= {"wk": (c.n_layers, c.n_kv_heads * K, c.d_model), "wv": (c.n_layers, c.n_kv_heads * K, c.d_model)}
    shapes |= {"wo": (c.n_layers, c.d_model, c.n_heads * K), "ffn_norm": (c.n_layers, c.d_model)}
    shapes |= {
        "w1": (c.n_layers, c.d_ff, c.d_model),
        "w2": (c.n_layers, c.d_model, c.d_ff),
        "w3": (c.n_layers, c.d_ff, c.d_model),
    }
    shapes |= {"norm": (c.d_model,), "freqs": (2, c.max_positions, K // 2)} | (
        {} if c.tied else {"out": (c.vocab_size, c.d_model)}
    )
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def sizes_of(config, version):
    c = config
    vocab_size = c.vocab_size if c.tied or version else -c.vocab_size
    return struct.pack("<7i", c.d_model, c.d_ff, c.n_layers, c.n_heads, c.n_kv_heads, vocab_size, c.max_positions)


def write_version_0(path, config, w):
    path.write_bytes(sizes_of(config, 0) + b"".join(a.tobytes() for a in w.values()))


MATRICES = ("tok", "wq", "wk", "wv", "wo", "w1", "w2", "w3", "out")


def write_version_1(path, config, w):
    head = struct.pack("<Ii", MAGIC, 1) + sizes_of(config, 1) + bytes([config.tied])
    ordered = [w[name] for name in ("att_norm", "ffn_norm", "norm", *MATRICES) if name in w]
    path.write_bytes(head.ljust(256, b"\0") + b"".join(a.tobytes() for a in ordered))


def write_version_2(path, config, w, group):
    """The matrices as int8 and scales; returns the weights that the file then holds."""
    head = struct.pack("<Ii", MAGIC, 2) + sizes_of(config, 2) + bytes([config.tied]) + struct.pack("<i", group)
    parts, held = [w[name].tobytes() for name in ("att_norm", "ffn_norm", "norm")], dict(w)
    for name in MATRICES:
        if name not in w:
            continue
        stacked = w[name] if w[name].ndim == 3 else w[name][None]
        rows = stacked.reshape(len(stacked), -1, group)
        scales = np.max(np.abs(rows), axis=-1) / np.float32(127)
        numbers = np.round(rows / scales[..., None]).astype(np.int8)
        parts += [part.tobytes() for layer in zip(numbers, scales, strict=True) for part in layer]
        held[name] = (numbers * scales[..., None]).reshape(w[name].shape)
    path.write_bytes(head.ljust(256, b"\0") + b"".join(parts))
    return held


def assert_same_parameters(path, other, expected=None):
    model, like = checkpoints.load(path, "numpy"), checkpoints.load(other, "numpy")
    assert model.config == like.config == (expected or like.config)
    for name, p in like.params.items():
        np.testing.assert_array_equal(model.params[name], p, err_msg=name)


@pytest.mark.parametrize("tied", [True, False])
@given(seed=st.integers(0, 2**32 - 1))
def test_the_three_versions_of_one_model_are_read_alike(folder, tied, seed):
    config = replace(SMALL, d_ff=6, tied=tied)
    w = weights_of(config, np.random.default_rng(seed))
    write_version_0(folder / "0.bin", config, w)
    write_version_1(folder / "1.bin", config, w)
    assert_same_parameters(folder / "1.bin", folder / "0.bin", config)
    for group in (2, 8):
        write_version_0(folder / "0.bin", config, write_version_2(folder / "2.bin", config, w, group))
        assert_same_parameters(folder / "2.bin", folder / "0.bin", config)


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_is_written_as_it_was_read(folder, data, tied):
    config = replace(SMALL, tied=tied)
    w = weights_of(config, np.random.default_rng(0))
    angles = np.outer(np.arange(6), [1, 0.01])
    w["freqs"] = np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    write_version_0(folder / "0.bin", config, w)
    llama2c.write_model(folder / "again.bin", checkpoints.load(folder / "0.bin", "numpy"))
    assert (folder / "again.bin").read_bytes() == (folder / "0.bin").read_bytes()


def test_the_story_model_is_written_as_it_was_read_up_to_the_rounding_of_angles(path, folder, backend):
    llama2c.write_model(folder / "again.bin", checkpoints.load(path, backend))
    before, after = (np.frombuffer(file.read_bytes(), "<f4") for file in (path, folder / "again.bin"))
    same = before.view(np.uint32) == after.view(np.uint32)
    assert np.all(same[: -2 * 512 * 4])
    assert np.all(np.abs(after - before)[-2 * 512 * 4 :] <= 512 * np.finfo(np.float32).eps)  # theirs are of float32 angles


@pytest.mark.parametrize(
    "change", [{"rope_theta": 500_000.0}, {"norm_eps": 1e-6}, {"qkv_bias": True}, {"d_head": 6}, {"window": 2}]
)
def test_a_model_that_llama2c_does_not_compute_is_refused_with_a_sentence(folder, change):
    with pytest.raises(ValueError, match=r"llama2.c has no model like Config\(.*: it computes a Llama with rope_theta=10000.0"):
        llama2c.write_model(folder / "no.bin", Model.initialise("llama", replace(SMALL, **change), 0, "numpy"))
    assert not (folder / "no.bin").exists()


def test_scales_at_the_end_of_the_file_are_refused_with_a_sentence(folder):
    config = replace(SMALL, vocab_size=300, d_ff=6, tied=True)
    write_version_2(folder / "2.bin", config, weights_of(config, np.random.default_rng(0)), 2)
    raw = bytearray((folder / "2.bin").read_bytes())
    raw[256 + 160 + 2400 : 256 + 160 + 4800] = raw[256 + 160 : 256 + 160 + 2400]  # more of the numbers instead
    (folder / "2.bin").write_bytes(raw)
    with pytest.raises(ValueError, match=r"2.bin has no scales where they should lie: an early export.py of llama2.c"):
        checkpoints.load(folder / "2.bin")


def test_the_tokenizer_beside_a_checkpoint_is_read_if_it_is_the_models_own(path, data, folder):
    (folder / "stories.bin").write_bytes(path.read_bytes())
    (folder / "tokenizer.bin").write_bytes((data / "tok512.bin").read_bytes())
    assert checkpoints.load(folder / "stories.bin").tokenizer.encode("Once upon a time") == [403, 407, 261, 378]
    write_version_0(folder / "other.bin", SMALL, weights_of(SMALL, np.random.default_rng(0)))
    with pytest.warns(UserWarning, match=r"without its tokenizer: .*tokenizer.bin has 512 tokens, the model 3."):
        assert checkpoints.load(folder / "other.bin").tokenizer is None
    (folder / "tokenizer.bin").unlink()


@given(drawn=st.data())
def test_a_damaged_header_is_refused_with_a_sentence_or_is_that_of_another_model(folder, drawn):
    version = drawn.draw(st.sampled_from([0, 1, 2]))
    w = weights_of(replace(SMALL, d_ff=6, tied=True), np.random.default_rng(0))
    write = (write_version_0, write_version_1, lambda *what: write_version_2(*what, 2))[version]
    write(folder / "x.bin", replace(SMALL, d_ff=6, tied=True), w)
    raw = bytearray((folder / "x.bin").read_bytes())
    place = drawn.draw(st.integers(0, 27 if version == 0 else 41))
    raw[place : place + 4] = struct.pack("<i", drawn.draw(st.one_of(st.integers(-9, 99), st.integers(-(2**31), 2**31 - 1))))
    (folder / "x.bin").write_bytes(raw[: drawn.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))])
    refused = None
    try:
        assert {p.dtype for p in checkpoints.load(folder / "x.bin", "numpy").params.values()} == {np.dtype("float32")}
    except ValueError as error:
        refused = str(error)
    assert refused is None or "x.bin" in refused


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"m.bin is not a llama2.c checkpoint: its first numbers, \(0, 0, 0, 0, 0, 0, 0\), are no sizes of a model."),
        (
            struct.pack("<7i", 8, 5, -2, 2, 1, 3, 6),
            r"m.bin is not a llama2.c checkpoint: its first numbers, \(8, 5, -2, 2, 1, 3, 6\)",
        ),
        (
            struct.pack("<7i", 8, 5, 2, 3, 1, 3, 6),
            r"m.bin is not a llama2.c checkpoint: its first numbers, \(8, 5, 2, 3, 1, 3, 6\)",
        ),
        (
            struct.pack("<7i", 8, 5, 2, 4, 3, 3, 6),
            "m.bin is not a llama2.c checkpoint: n_heads=4 query heads cannot share n_kv_heads=3",
        ),
        (struct.pack("<Ii", MAGIC, 3), "m.bin is a llama2.c checkpoint of version 3; versions 0, 1 and 2 can be read."),
        (struct.pack("<Ii7i", MAGIC, 1, 8, 5, 2, 2, 1, 3, 6), r"m.bin has 36 bytes, but its sizes Config\(.*\) need \d+"),
        (
            struct.pack("<Ii7i?i", MAGIC, 2, 8, 5, 2, 2, 1, 3, 6, True, 7),
            r"m.bin has groups of 7 numbers, into which embedding of shape",
        ),
        (
            struct.pack("<Ii7i?i", MAGIC, 2, 8, 5, 2, 2, 1, 3, 6, True, 0),
            "m.bin has groups of 0 numbers, into which embedding of shape",
        ),
        (
            struct.pack("<7i", *[2**30] * 3, 2**10, 2**10, 2**30, 2**30),
            r"m.bin has 28 bytes, but its sizes Config\(.*\) need \d+",
        ),
        (struct.pack("<7i", 8, 5, 2, 2, 1, 3, 6) + bytes(100), r"m.bin has 128 bytes, but its sizes Config\(.*\) need \d+"),
        (struct.pack("<7i", 8, 5, 2, 2, 1, 3, 6) + bytes(101), r"m.bin has 129 bytes, but its sizes Config\(.*\) need \d+"),
    ],
)
def test_another_file_is_refused_with_a_sentence(tmp_path, content, sentence):
    (tmp_path / "m.bin").write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        checkpoints.load(tmp_path / "m.bin")
