"""The kit is held to account in its turn: kernels that are wrong on purpose must be caught, and the right ones pass."""

import dataclasses

import numpy as np
import pytest

from refllm.array_api import OPS, kernels, load
from refllm.conformance.kit import all_checks, run
from refllm.layers import cache_rows, kv_cache
from refllm.models import sequence

CHECKS = {check.name: check for check in all_checks()}


def body(name):
    """The readable body of an op."""
    return OPS[name].reference


def rms_norm_with_another_eps(x, gain, eps):
    return body("rms_norm")(x, gain, 1e-6)


def rms_norm_backward_without_the_mean(dy, saved):
    x, gain, *rest = saved
    dx, dgain = body("rms_norm_backward")(dy, saved)
    r = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(1e-5))
    return (r * dy * gain).astype(x.dtype), dgain


def layer_norm_with_the_sample_variance(x, gain, bias, eps):
    y, saved = body("layer_norm")(x, gain, bias, eps)
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).sum(axis=-1, keepdims=True) / max(1, x.shape[-1] - 1)
    return (centred / np.sqrt(variance + np.float32(eps)) * gain + bias).astype(x.dtype), saved


def softmax_through_half_precision(x):
    e = np.exp((x - x.max(axis=-1, keepdims=True)).astype(np.float16)).astype(np.float32)
    p = (e / e.sum(axis=-1, keepdims=True)).astype(x.dtype)
    return p, p


def softmax_that_overflows(x):
    with np.errstate(over="ignore", invalid="ignore"):
        e = np.exp(x)
        p = (e / e.sum(axis=-1, keepdims=True)).astype(x.dtype)
    return p, p


def truncated(x, bits):
    """x with the last so many bits of its mantissas dropped: 13 leave TF32's precision, 16 bfloat16's."""
    mask = np.uint32((0xFFFFFFFF << bits) & 0xFFFFFFFF)
    return (np.ascontiguousarray(x, dtype=np.float32).view(np.uint32) & mask).view(np.float32)


def linear_in_tf32(x, weight):
    return (truncated(x, 13) @ truncated(weight, 13)).astype(x.dtype), (x, weight)


def linear_in_bfloat16(x, weight):
    return (truncated(x, 16) @ truncated(weight, 16)).astype(x.dtype), (x, weight)


def linear_backward_that_forgets_a_row(dy, saved):
    x, weight = saved
    dx, dweight = body("linear_backward")(dy, saved)
    rows = x.reshape(-1, x.shape[-1])
    return dx, dweight - np.outer(rows[-1], dy.reshape(-1, dy.shape[-1])[-1])


def attention_that_sees_the_next_token(q, k, v, mask, scale, softcap=None):
    return body("attention")(q, k, v, mask._replace(start=mask.start + 1), scale, softcap)


def attention_that_ignores_the_window(q, k, v, mask, scale, softcap=None):
    return body("attention")(q, k, v, mask._replace(window=None), scale, softcap)


def cached_attention_that_sees_before_a_rows_beginning(q, keys, values, mask, scale, softcap=None):
    return body("cached_attention")(q, keys, values, mask._replace(valid=None), scale, softcap)


def attention_that_ignores_the_cap(q, k, v, mask, scale, softcap=None):
    return body("attention")(q, k, v, mask, scale)


def attention_backward_without_the_scale(dy, saved):
    dq, dk, dv = body("attention_backward")(dy, saved)
    return dq * np.float32(1.01), dk, dv


def cross_entropy_over_ignored_targets(logits, targets, ignore_index=-100):
    loss, saved = body("cross_entropy")(logits, targets, ignore_index)
    counted = max(1, int((targets != ignore_index).sum()))
    return (loss * np.float32(counted / targets.size)).astype(logits.dtype), saved


def gelu_tanh_with_a_rounded_constant(x):
    y = 0.5 * x * (1 + np.tanh(0.7979 * (x + 0.044715 * x**3)))
    return y.astype(x.dtype), body("gelu_tanh")(x)[1]


def rope_turned_the_other_way(x, cos, sin):
    y, _ = body("rope")(x, cos, -sin)
    return y, body("rope")(x, cos, sin)[1]


def embedding_backward_that_keeps_the_last_of_equals(dy, saved):
    table = np.zeros_like(body("embedding_backward")(dy, saved))
    tokens = next(part for part in saved if getattr(part, "dtype", np.dtype("f4")).kind in "iu")
    table[tokens] = dy
    return table


def adamw_without_bias_correction(parameters, grads, mean, square, step, lr, beta1, beta2, eps, weight_decay, n_decayed):
    return body("adamw_update")(parameters, grads, mean, square, 10**6, lr, beta1, beta2, eps, weight_decay, n_decayed)


def adamw_that_decays_everything(parameters, grads, mean, square, step, lr, beta1, beta2, eps, weight_decay, n_decayed):
    return body("adamw_update")(parameters, grads, mean, square, step, lr, beta1, beta2, eps, weight_decay, len(parameters))


def words_that_start_at_every_space_of_a_run(points, table):
    starts = body("gpt2_word_starts")(points, table)
    return starts | (points == 32)


def llama3_words_with_four_digits(points, table, digits):
    return body("llama3_word_starts")(points, table, digits + 1)


def merging_by_the_ranks_reversed(symbols, starts, table):
    return body("merge_words")(symbols, starts, table._replace(ranks=table.ranks[::-1]))


def words_without_their_whole_tokens(data, starts, vocabulary):
    return body("encode_words")(data, starts, dataclasses.replace(vocabulary, spellings=None))


FAULTS = [
    ("rms_norm", "rms_norm", rms_norm_with_another_eps),
    ("rms_norm", "rms_norm_backward", rms_norm_backward_without_the_mean),
    ("layer_norm", "layer_norm", layer_norm_with_the_sample_variance),
    ("softmax", "softmax", softmax_through_half_precision),
    ("softmax", "softmax", softmax_that_overflows),
    ("attention", "softmax", softmax_through_half_precision),
    ("llama: logits, loss, gradients", "softmax", softmax_through_half_precision),
    ("linear", "linear", linear_in_tf32),
    ("linear", "linear", linear_in_bfloat16),
    ("linear", "linear_backward", linear_backward_that_forgets_a_row),
    ("gpt2: logits, loss, gradients", "linear", linear_in_tf32),
    ("llama: cached decoding", "linear", linear_in_tf32),
    ("llama: twenty training steps", "linear", linear_in_tf32),
    ("attention", "attention", attention_that_sees_the_next_token),
    ("attention", "attention", attention_that_ignores_the_window),
    ("attention", "attention", attention_that_ignores_the_cap),
    ("attention", "attention_backward", attention_backward_without_the_scale),
    ("cross_entropy", "cross_entropy", cross_entropy_over_ignored_targets),
    ("gelu_tanh", "gelu_tanh", gelu_tanh_with_a_rounded_constant),
    ("cached_attention", "cached_attention", cached_attention_that_sees_before_a_rows_beginning),
    ("rope", "rope", rope_turned_the_other_way),
    ("llama: cached decoding", "rope", rope_turned_the_other_way),
    ("continuous batching", "cached_attention", cached_attention_that_sees_before_a_rows_beginning),
    ("embedding", "embedding_backward", embedding_backward_that_keeps_the_last_of_equals),
    ("adamw_update", "adamw_update", adamw_without_bias_correction),
    ("adamw_update", "adamw_update", adamw_that_decays_everything),
    ("words: gpt2", "gpt2_word_starts", words_that_start_at_every_space_of_a_run),
    ("words: llama3", "llama3_word_starts", llama3_words_with_four_digits),
    ("ids: byte-level BPE, gpt2", "merge_words", merging_by_the_ranks_reversed),
    ("ids: byte-level BPE, whole words", "encode_words", words_without_their_whole_tokens),
]


@pytest.mark.parametrize(("check", "op", "fault"), FAULTS, ids=lambda part: getattr(part, "__name__", None))
def test_a_planted_fault_is_caught(check, op, fault):
    numpy = load("numpy")
    with kernels(numpy, {op: fault}):
        row = run(CHECKS[check], numpy, examples=30, shrink=False)
    assert row.failure, f"{fault.__name__} stayed within the bounds: worst {row.worst:.2f} of them in {row.cases} cases"
    assert "times its bound" in row.failure or "but the definition gives" in row.failure, row.failure


def window_that_drops_a_block_too_early(cache, held, wanted):
    return BEHIND(cache, held, min(wanted + 1, cache.length) if held.window else wanted)


def blocks_that_are_not_copied_before_a_write(cache, held, slot):
    return held if held.keys[slot].shape[0] == cache.rows else COPIED(cache, held, slot)


def padding_that_moves_no_beginning(cache, valid, xp, B, T):
    return PADDED(cache, None, xp, B, T)


def row_that_begins_a_position_too_early(cache, b, start, known, like):
    return BEGINNING(cache, b, start - 1, known - 1, like)


BEHIND, COPIED, PADDED, BEGINNING = kv_cache.behind, kv_cache.copied, sequence._with_padding, cache_rows._beginning
CACHE_FAULTS = [
    (kv_cache, "behind", window_that_drops_a_block_too_early),
    (kv_cache, "copied", blocks_that_are_not_copied_before_a_write),
    (sequence, "_with_padding", padding_that_moves_no_beginning),
    (cache_rows, "_beginning", row_that_begins_a_position_too_early),
]


@pytest.mark.parametrize(("module", "name", "fault"), CACHE_FAULTS, ids=[fault.__name__ for *_, fault in CACHE_FAULTS])
def test_a_fault_planted_in_the_cache_is_caught(module, name, fault, monkeypatch):
    monkeypatch.setattr(module, name, fault)
    row = run(CHECKS["llama: cached decoding"], load("numpy"), examples=60, shrink=False)
    assert row.failure, f"{fault.__name__} stayed within the bounds: worst {row.worst:.2f} of them in {row.cases} cases"


def test_a_result_that_is_not_a_number_is_caught():
    numpy = load("numpy")

    def nan_softmax(x):
        p, saved = body("softmax")(x)
        return p * np.float32("nan"), saved

    with kernels(numpy, {"softmax": nan_softmax}):
        assert "inf times its bound" in run(CHECKS["softmax"], numpy, shrink=False).failure


def test_the_bodies_themselves_pass_the_checks_that_catch_the_faults():
    numpy = load("numpy")
    for name in sorted({check for check, _, _ in FAULTS} - {"llama: twenty training steps"}):
        assert not run(CHECKS[name], numpy, plain=True, examples=5).failure
