"""Tokens are hidden as the specification says, the same everywhere, and a model learns to guess them."""

import dataclasses
import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm import checkpoints
from refllm.conformance.specification import definitions
from refllm.tokenizer import Tokenizer, train_bpe
from refllm.training import data, masking
from refllm.training.config import from_tables
from refllm.training.data import Corpus
from refllm.training.loop import batches, held_out_batches, train
from refllm.training.masking import Masking, hide, masking_of
from refllm.training.run import begin, first_or_last_state, reopen

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d", "e"]


def masking_with(n=12, special=(0, 9, 11), mask=9, before=(), behind=()):
    """How tokens of a small vocabulary are hidden."""
    ordinary = np.ones(n, bool)
    ordinary[list(special)] = False
    return Masking(mask, ordinary, before, behind)


def corpus(n_train=400, n_held_out=200, vocab_size=12):
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, vocab_size, n_train + n_held_out).astype(np.uint16)
    return Corpus(tokens[:n_train], tokens[n_train:], np.ones(vocab_size, np.int32))


@pytest.fixture
def word_piece(tmp_path):
    """BERT's kind of tokenizer, with a vocabulary of ten."""
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return Tokenizer.load(tmp_path / "vocab.txt")


@pytest.fixture
def masked_run(configure):
    """Makes the configuration of a small masked run."""

    def make(**training):
        return configure("bert", **{"dropout": 0.1, "accumulation": 2} | training)

    return make


# What is hidden


@given(seed=st.integers(0, 999), T=st.integers(1, 9), special=st.sets(st.integers(0, 11), max_size=12))
def test_hiding_follows_its_definition(seed, T, special):
    rng = np.random.default_rng(seed)
    how = masking_with(special=special)
    tokens, uniforms = rng.integers(0, 12, (3, T)), rng.random((3, T, 3))
    uniforms[rng.random((3, T)) < 0.3, 0] = 0.15  # a bound, and equal draws
    found = hide(tokens, uniforms, how)
    for b in range(3):
        expected = definitions()["hidden"](tokens[b].tolist(), uniforms[b].tolist(), 9, np.flatnonzero(how.ordinary).tolist())
        assert [side[b].tolist() for side in found] == list(expected)
    assert [side.dtype for side in found] == [np.int32, np.int32]


@given(seed=st.integers(0, 999))
def test_special_tokens_are_never_chosen_nor_drawn(seed):
    rng = np.random.default_rng(seed)
    how = masking_with()
    tokens = rng.integers(0, 12, (4, 9))
    hidden, targets = hide(tokens, rng.random((4, 9, 3)), how)
    special = ~how.ordinary[tokens]
    assert np.all(targets[special] == -100)
    np.testing.assert_array_equal(hidden[special], tokens[special])
    changed = hidden[(hidden != tokens) & (hidden != how.mask)]
    assert np.all(how.ordinary[changed])


def test_of_many_tokens_the_stated_shares_are_chosen_masked_drawn_and_kept():
    rng = np.random.default_rng(0)
    V, rows, T = 1000, 200, 500
    how = masking_with(V, special=(0,), mask=0)
    tokens = rng.integers(1, V, (rows, T))
    hidden, targets = hide(tokens, rng.random((rows, T, 3)), how)
    chosen = targets != -100
    np.testing.assert_array_equal(targets[chosen], tokens[chosen])
    np.testing.assert_array_equal(hidden[~chosen], tokens[~chosen])
    n = np.count_nonzero(chosen)
    shares = [n / tokens.size, np.mean(hidden[chosen] == 0), np.mean(hidden[chosen] == tokens[chosen])]
    for share, expected, of in zip(shares, (0.15, 0.8, 0.1), (tokens.size, n, n), strict=True):
        assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / of)
    drawn = hidden[chosen & (hidden != 0) & (hidden != tokens)]
    times = np.bincount(drawn, minlength=V)[1:]
    assert abs(np.sum((times - times.mean()) ** 2 / times.mean()) - V) < 5 * math.sqrt(2 * V)  # chi-squared: all alike


def test_a_window_without_a_small_draw_hides_the_smallest():
    uniforms = np.full((1, 4, 3), 0.5)
    uniforms[0, :, 0] = [0.4, 0.2, 0.3, 0.9]
    hidden, targets = hide(np.asarray([[1, 2, 3, 4]]), uniforms, masking_with())
    assert (hidden.tolist(), targets.tolist()) == ([[1, 9, 3, 4]], [[-100, 2, -100, -100]])


# Batches


@given(seed=st.integers(0, 2**64 - 1), step=st.integers(0, 10**9), k=st.integers(1, 4), rows=st.integers(1, 3))
def test_micro_batches_hide_what_the_whole_batch_hides(seed, step, k, rows):
    how = masking_with(before=(0,), behind=(11,))

    def windows(index, rows, k):
        return masking.batch(how, corpus(), seed, step, index, context=7, batch=rows, accumulation=k)

    whole, pieces = windows(0, rows * k, 1), [windows(i, rows, k) for i in range(k)]
    for part in (0, 1):
        np.testing.assert_array_equal(np.concatenate([piece[part] for piece in pieces]), whole[part])
        assert (whole[part].shape, whole[part].dtype) == ((rows * k, 7), np.int32)
    assert np.all(whole[0][:, 0] == 0)
    assert np.all(whole[0][:, -1] == 11)
    assert np.all(whole[1][:, [0, -1]] == -100)


def test_each_step_hides_otherwise_and_every_evaluation_alike():
    how, text = masking_with(), corpus()
    text = dataclasses.replace(text, train=text.train[:41])  # one window only

    def batch(seed, step):
        return masking.batch(how, text, seed, step, 0, context=40, batch=1, accumulation=1)

    np.testing.assert_array_equal(batch(1, 2)[0], batch(1, 2)[0])
    assert np.any(batch(1, 2)[1] != batch(1, 3)[1])
    assert np.any(batch(1, 2)[1] != batch(2, 2)[1])
    by_rows = [
        [
            np.concatenate(side)
            for side in zip(*masking.evaluation_batches(how, text, context=16, batch=n, windows=0), strict=True)
        ]
        for n in (1, 3, 99)
    ]
    for tokens, targets in by_rows:
        np.testing.assert_array_equal(tokens, by_rows[0][0])
        np.testing.assert_array_equal(targets, by_rows[0][1])
    plain = np.concatenate([t for t, _ in data.evaluation_batches(text, context=16, batch=4, windows=0)])
    np.testing.assert_array_equal(np.where(by_rows[0][1] == -100, by_rows[0][0], by_rows[0][1]), plain)
    assert len({tuple(row) for row in (by_rows[0][1] != -100).tolist()}) > 1


def test_every_backend_learns_from_the_same_masks(backend, tmp_path, masked_run):
    run, numpy = begin(tmp_path / "here", masked_run(), backend), begin(tmp_path / "numpy", masked_run(), "numpy")
    for step in range(2):
        for ours, theirs in zip(batches(run, step), batches(numpy, step), strict=True):
            for x, expected in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(run.backend.xp.to_numpy(x), expected)


# Vocabularies


def test_the_special_tokens_of_a_vocabulary_stand_around_and_are_not_hidden(word_piece):
    how = masking_of(word_piece, 8)
    assert (how.mask, how.before, how.behind) == (4, (2,), (3,))
    assert np.flatnonzero(how.ordinary).tolist() == [5, 6, 7, 8, 9]


def test_a_vocabulary_without_a_mask_is_refused():
    with pytest.raises(
        ValueError, match=r"the tokenizer has no mask to hide tokens with: none of its special tokens is \[MASK\]"
    ):
        masking_of(train_bpe("so many lines", 260), 8)


def test_a_context_with_no_room_for_text_is_refused(word_piece):
    masking_of(word_piece, 3)
    with pytest.raises(ValueError, match="training.context=2 has no room for text: 2 special tokens stand around it"):
        masking_of(word_piece, 2)


# Runs


def outcome(folder):
    state, best = first_or_last_state(reopen(folder, "numpy"))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    untimed = [{k: v for k, v in line.items() if k not in ("tokens_per_second", "seconds_left")} for line in lines]
    return [np.array(x) for x in state[:3]], (state.step, best, untimed)


def test_a_masked_run_stopped_and_resumed_continues_bit_for_bit(tmp_path, masked_run):
    list(train(begin(tmp_path / "whole", masked_run(), "numpy")))
    begin(tmp_path / "stopped", masked_run(), "numpy")
    for stop in (3, 1):
        steps = train(reopen(tmp_path / "stopped", "numpy"))
        for _ in range(stop):
            next(steps)
        steps.close()
    list(train(reopen(tmp_path / "stopped", "numpy")))
    (arrays, told), (others, others_told) = outcome(tmp_path / "whole"), outcome(tmp_path / "stopped")
    assert told == others_told
    for a, b in zip(arrays, others, strict=True):
        np.testing.assert_array_equal(a, b)


def test_masked_training_lowers_the_held_out_loss(tmp_path, masked_run, text_file):
    animals = ["fox", "cat", "wren", "bear", "owl", "hare"] * 12
    text_file.write_text("".join(" ".join([animal] * 60) + "\n" for animal in animals))  # a line names what is hidden in it
    settings = {"steps": 300, "evaluate_every": 150, "checkpoint_every": 300, "evaluation_windows": 0, "batch": 8}
    config = masked_run(**settings, accumulation=1, dropout=0.0)
    run = begin(tmp_path / "run", config, "numpy")
    assert (run.config.training.objective, run.tokenizer.mask) == ("masked", run.tokenizer.id_of("<|mask|>"))
    *_, last = train(run)
    targets = np.concatenate([t[t != -100] for _, t in held_out_batches(run)])
    counts = Counter(run.corpus.train.tolist())
    share = {token: (counts[token] + 1) / (len(run.corpus.train) + run.tokenizer.vocab_size) for token in set(targets.tolist())}
    by_frequency = -np.mean([math.log(share[token]) for token in targets.tolist()])
    assert last.held_out_loss < 0.5 * by_frequency
    loaded = checkpoints.load(tmp_path / "run", "numpy")
    (tokens, targets), *_ = held_out_batches(reopen(tmp_path / "run"))
    assert float(loaded.loss(tokens, targets)) < by_frequency
    assert loaded.config == run.learner.config


def test_an_evaluation_counts_hidden_tokens_alone(tmp_path, masked_run):
    run = begin(tmp_path / "run", masked_run(steps=1, evaluation_windows=5, dropout=0.0), "numpy")
    (progress,) = train(run)
    loaded = checkpoints.load(tmp_path / "run", "numpy", "float64")
    tokens, targets = (np.concatenate(side) for side in zip(*held_out_batches(run), strict=True))
    assert tokens.shape == (5, 16)
    loss = float(loaded.loss(tokens, targets))
    assert progress.held_out_loss == pytest.approx(loss, rel=1e-5)
    kept = targets[targets != -100]
    n_bytes = sum(len(run.tokenizer.bytes_of(i)) for i in kept.tolist())
    assert progress.bits_per_byte == pytest.approx(loss * len(kept) / math.log(2) / n_bytes, rel=1e-5)


def test_a_run_with_berts_own_kind_of_vocabulary_puts_its_special_tokens_around(tmp_path, masked_run, word_piece, text_file):
    text_file.write_text("a b c d e a c e b d\n" * 60)
    word_piece.save(tmp_path / "tokenizer.json")
    config = masked_run(steps=2)
    run = begin(
        tmp_path / "run", dataclasses.replace(config, data=dataclasses.replace(config.data, tokenizer=str(tmp_path))), "numpy"
    )
    list(train(run))
    tokens, targets = next(iter(batches(run, 0)))
    assert np.all((tokens[:, 0] == 2) & (tokens[:, -1] == 3))
    assert set(np.unique(targets)) <= {-100, 5, 6, 7, 8, 9}
    assert 4 in tokens


@pytest.mark.oracle
def test_transformers_fills_the_masks_of_a_run_folder_with_the_same_logits(tmp_path, masked_run, transformers_in_float64):
    import torch

    list(train(begin(tmp_path / "run", masked_run(dtype="float64"), "numpy")))
    tokenizer = transformers_in_float64.AutoTokenizer.from_pretrained(tmp_path / "run")
    assert tokenizer.mask_token == "<|mask|>"
    ours = checkpoints.load(tmp_path / "run", "numpy")
    text = "the quiet <|mask|> jumps over"
    ids = ours.tokenizer.encode(text, allowed_special="all")
    assert tokenizer(text)["input_ids"] == ids
    theirs = transformers_in_float64.AutoModelForMaskedLM.from_pretrained(tmp_path / "run", attn_implementation="eager")
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits.numpy()
    assert np.all(np.abs(ours.logits([ids]) - expected) <= 1e-12 * np.max(np.abs(expected)))


# Settings


@pytest.mark.parametrize(
    ("architecture", "objective", "sentence"),
    [
        (
            "bert",
            "causal",
            "training.objective='causal' does not fit bert, which sees what follows a token too; it must be 'masked'",
        ),
        (
            "gpt2",
            "masked",
            "training.objective='masked' does not fit gpt2, which sees only what came before; it must be 'causal'",
        ),
    ],
)
def test_an_objective_that_does_not_fit_the_architecture_is_refused(tmp_path, configure, architecture, objective, sentence):
    with pytest.raises(ValueError, match=sentence):
        begin(tmp_path / "run", configure(architecture, objective=objective), "numpy")
    assert not (tmp_path / "run").exists()


def test_an_unknown_objective_is_refused(configure):
    with pytest.raises(ValueError, match="training.objective='next' will not do; it must be one of causal, masked"):
        configure("bert", objective="next")


def test_the_architecture_decides_where_no_objective_is_set(tmp_path, configure):
    for architecture, objective in (("bert", "masked"), ("gpt2", "causal")):
        run = begin(tmp_path / architecture, configure(architecture), "numpy")
        assert (reopen(run.folder).training.objective, run.masking is None) == (objective, objective == "causal")


def test_a_model_without_a_head_cannot_be_trained_by_masking(tmp_path, configure):
    config = configure("bert")
    config = from_tables(
        {
            "model": dict(config.model) | {"head": False, "pooler": True},
            "data": dataclasses.asdict(config.data),
            "training": {"context": 16, "batch": 2, "steps": 2, "learning_rate": 1e-3},
        }
    )
    with pytest.raises(ValueError, match=r"the model has no masked-token head \(model.head\), so it cannot guess what is hidden"):
        begin(tmp_path / "run", config, "numpy")
    assert not (tmp_path / "run").exists()
