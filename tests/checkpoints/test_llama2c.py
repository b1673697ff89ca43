"""llama2.c's checkpoints: a real trained model, held to a plain transcription of its reference program and to its known text."""

import struct

import numpy as np
import pytest

from refllm import checkpoints
from refllm.checkpoints.llama2c import halves_from_pairs
from refllm.decoding import Sampler, generate, new_cache
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


def test_the_trained_model_tells_the_known_story(path, pieces):
    model = checkpoints.load(path, "numpy")
    steps = generate(model, [BOS], 200, Sampler(temperature=0), seed=0)
    assert b"".join(pieces[int(step.tokens[0])] for step in steps).decode().removeprefix(" ") == TEXT


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


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "m.bin is not a llama2.c checkpoint of version 0; export the model with `--version 0`"),
        (struct.pack("<7i", 0x616B3432, 1, 64, 172, 5, 8, 4), "m.bin is not a llama2.c checkpoint of version 0"),
        (struct.pack("<7i", 8, 5, -2, 2, 1, 3, 6), "m.bin is not a llama2.c checkpoint of version 0"),
        (struct.pack("<7i", 8, 5, 2, 2, 1, 3, 6) + bytes(100), r"m.bin has 128 bytes, but its sizes Config\(.*\) need \d+"),
        (struct.pack("<7i", 8, 5, 2, 2, 1, 3, 6) + bytes(101), r"m.bin has 129 bytes, but its sizes Config\(.*\) need \d+"),
    ],
)
def test_another_file_is_refused_with_a_sentence(tmp_path, content, sentence):
    (tmp_path / "m.bin").write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        checkpoints.load(tmp_path / "m.bin")
