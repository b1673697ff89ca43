"""Training: the definition, Hugging Face's trainer, and what a trained vocabulary can do."""

import itertools
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.tokenizer import train_bpe
from refllm.tokenizer.byte_level import BYTE_ORDER
from refllm.tokenizer.train import count_words, learn_merges, merge_pair

few_letters = st.text(st.sampled_from("abc é"), max_size=40)


@given(few_letters, st.integers(0, 12))
def test_training_equals_its_definition(text, n_merges):
    counts = count_words(text)
    order = {byte: i for i, byte in enumerate(BYTE_ORDER)}
    words = [[order[byte] for byte in word.encode()] for word in counts]
    expected = definitions()["bpe_train"](words, list(counts.values()), n_merges, 256)
    assert [list(pair) for pair in learn_merges(counts, n_merges)] == expected


@given(st.lists(st.integers(0, 2), max_size=20), st.tuples(st.integers(0, 2), st.integers(0, 2)))
def test_replacing_a_pair_equals_its_definition_and_tells_what_changed(ids, pair):
    merged = list(ids)
    gone, come = merge_pair(merged, pair, 9)
    assert merged == definitions()["bpe_merged"](ids, list(pair), 9)
    counts = Counter(itertools.pairwise(ids))
    counts.subtract(gone)
    counts.update(come)
    del counts[pair]
    assert +counts == Counter(itertools.pairwise(merged))


def test_a_learned_token_encodes_to_itself(trained):
    learned = [
        id
        for id, token in trained.model.vocabulary.items()
        if len(token) > 1 and token.decode("utf-8", "ignore").encode() == token
    ]
    assert len(learned) > 700
    assert all(trained.encode(trained.decode([id])) == [id] for id in learned)


def test_the_vocabulary_is_bytes_then_merges_then_special_tokens():
    tokenizer = train_bpe("ab ab ab", 260, special_tokens=("<|endoftext|>", "<|pad|>"))
    assert [tokenizer.bytes_of(id) for id in range(256)] == [bytes([byte]) for byte in BYTE_ORDER]
    assert [tokenizer.bytes_of(id) for id in range(256, 260)] == [b"ab", b" ab", b"<|endoftext|>", b"<|pad|>"]
    assert tokenizer.eos == 258


def test_a_text_without_pairs_left_makes_a_smaller_vocabulary():
    assert train_bpe("ab", 1024).vocab_size == 258
    assert train_bpe("", 1024).vocab_size == 257


def test_documents_count_as_one_text_cut_between_words():
    assert count_words(["one two", " two"]) == count_words("one two two") == Counter({" two": 2, "one": 1})


def test_progress_counts_up_to_the_merges_asked_for():
    seen = []
    train_bpe("hello hello hello world", 260, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: train_bpe("text", 256),
            ValueError,
            r"vocab_size=256 is too small; 256 bytes and 1 special tokens need at least 257\.",
        ),
        (
            lambda: train_bpe(b"text", 300),
            TypeError,
            r"text is bytes; train_bpe needs str or an iterable of str\. Decode bytes first\.",
        ),
        (lambda: train_bpe(["a", 1], 300), TypeError, r"text holds int; train_bpe needs str or an iterable of str\."),
        (
            lambda: train_bpe("the the the", 300, special_tokens=("the",)),
            ValueError,
            r"special token 'the' is also learned from the text; choose one that is no part of a word\.",
        ),
        (
            lambda: train_bpe("text", 300, special_tokens=("<a>", "<a>")),
            ValueError,
            r"special token '<a>' is given twice\.",
        ),
        (
            lambda: train_bpe("text", 300, special_tokens=("",)),
            ValueError,
            r"a special token is empty; it needs a text of its own\.",
        ),
    ],
)
def test_a_wrong_argument_is_named_in_one_sentence(call, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        call()


@pytest.mark.oracle
@pytest.mark.parametrize("corpus", ["topics", "shakespeare", "random"])
def test_merges_are_those_of_hugging_faces_trainer(corpus, request):
    import numpy as np
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    if corpus == "topics":
        text = request.getfixturevalue("topics")[:200_000]
    elif corpus == "shakespeare":
        text = (request.getfixturevalue("data") / "tinyshakespeare.txt").read_text(encoding="utf-8")[:200_000]
    else:  # nearly every count is tied
        text = "".join(np.random.default_rng(0).choice(list("aaabcdé \n'1ß"), 4000))
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    theirs.train_from_iterator([text], trainer)
    ours = train_bpe(text, 700)
    spelled = json.loads(theirs.to_str())["model"]["merges"]
    token = ours.model.vocabulary
    from refllm.tokenizer.byte_level import to_characters

    assert [[to_characters(token[left]), to_characters(token[right])] for left, right in ours.model.pairs()] == spelled
