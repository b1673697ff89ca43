"""Training: other trainers' merges, texts from files and iterables, and what a trained vocabulary can do."""

import json
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer import Tokenizer, train_bpe
from refllm.tokenizer import train as training
from refllm.tokenizer.byte_level import BYTE_ORDER, to_characters
from refllm.tokenizer.train import PATTERNS, TIES, count_words


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


def test_the_vocabulary_is_as_large_as_asked_with_its_special_tokens():
    text = "a vocabulary of any size has room for the bytes and the special tokens too"
    assert [train_bpe(text, n, ("<a>", "<b>")).vocab_size for n in (258, 259, 280)] == [258, 259, 280]


def test_a_text_without_pairs_left_makes_a_smaller_vocabulary():
    assert train_bpe("ab", 1024).vocab_size == 258
    assert train_bpe("", 1024).vocab_size == 257


def test_documents_count_as_one_text_cut_between_words():
    assert count_words(["one two", " two"]) == count_words("one two two") == Counter({" two": 2, "one": 1})


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
        (
            lambda: train_bpe("text", 300, ties="last"),
            ValueError,
            r"ties='last' is not known; choose one of smallest, smallest_by_value, first\.",
        ),
        (
            lambda: train_bpe("text", 300, pattern=r"(a"),
            ValueError,
            r"the pattern '\(a' is not one that Python's re can run: missing \), unterminated subpattern at position 0\.",
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


# -- texts --------------------------------------------------------------------------------------------------------------


@given(text=st.text(st.sampled_from("ab é\n\r'1中😀"), max_size=60), block=st.integers(1, 9), chunk=st.integers(1, 9))
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_file_read_in_pieces_counts_as_one_text(pattern, text, block, chunk, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "pieces.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "BLOCK", block)
        patch.setattr("refllm.tokenizer.words.pretokenize.CHUNK", chunk)
        pieces = count_words(path, pattern)
    assert list(pieces.items()) == list(count_words(text, pattern).items()), "in the order of their first occurrence"
    assert sum(len(word) * count for word, count in pieces.items()) == len(text)


def test_ends_of_lines_are_learned_as_they_are(tmp_path):
    (tmp_path / "dos.txt").write_bytes(b"a\r\nb\r\n" * 9)
    assert count_words(tmp_path / "dos.txt") == {"a": 9, "\r": 17, "\n": 17, "b": 9, "\r\n": 1}


def test_a_lone_surrogate_is_learned_as_it_is_encoded():
    assert count_words("a\ud800") == count_words("a\ufffd")


def test_files_documents_and_generators_teach_the_same(tmp_path):
    text = "one two three two one, two twos\n" * 5
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    expected = train_bpe([text, text], 280).model.pairs()
    assert train_bpe([tmp_path / "a.txt", text], 280).model.pairs() == expected
    assert train_bpe((document for document in (text, tmp_path / "a.txt")), 280).model.pairs() == expected


@pytest.mark.parametrize(("data", "at"), [(b"ab\xffc", 2), (b"ab\xe4\xb8", 2), ("äö".encode()[:3] + b"x", 2)])
@pytest.mark.parametrize("block", [1, 2, 3, 1000])
def test_a_file_that_is_no_utf8_is_refused_with_the_byte(data, at, block, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "BLOCK", block)
    path = tmp_path / "image.png"
    path.write_bytes(data)
    with pytest.raises(
        ValueError, match=rf"^{re.escape(str(path))} is not UTF-8 text \(byte {at}\); convert it, or leave it out\.$"
    ):
        train_bpe(path, 300)


def test_counting_tells_the_bytes_up_to_all_of_them(tmp_path):
    text = "süße Wörter " * 40_000
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    for source in (text, tmp_path / "a.txt", [text[:12], text[12:]]):
        seen = []
        count_words(source, counting=seen.append)
        assert seen == sorted(seen)
        assert len(seen) > 1
        assert seen[-1] == len(text.encode())


# -- patterns and rules -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("ties", TIES)
def test_a_trained_tokenizer_is_lossless_and_saved_whole(pattern, ties, tmp_path):
    text = "It's 2024 — naïve cafés, 12345 🙂 they'LL  \n\n x = y[1] " * 3
    tokenizer = train_bpe(text, 320, pattern=pattern, ties=ties)
    ids = tokenizer.encode(text)
    assert len(ids) < len(text.encode()) / 2
    assert tokenizer.decode(ids) == text
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert again.encode(text) == ids
    assert again.model.pattern == tokenizer.model.pattern == PATTERNS[pattern]


def test_a_pattern_of_ones_own_cuts_the_words():
    assert count_words("ab12 cd", r"\p{L}+|\p{N}") == {"ab": 1, "1": 1, "2": 1, " ": 1, "cd": 1}
    assert train_bpe("ab12 cd", 300, pattern=r"\p{L}+|\p{N}").vocab_size == 259


def test_of_several_patterns_each_cuts_what_the_one_before_leaves():
    patterns = (r"\p{N}", r"\p{L}+")
    assert count_words("ab12 cd", patterns) == {"ab": 1, "1": 1, "2": 1, " ": 1, "cd": 1}
    assert train_bpe("ab12 cd", 300, pattern=patterns).model.pattern == patterns


def test_the_bytes_are_numbered_as_the_rule_says():
    for ties, first in (("smallest", ord("!")), ("smallest_by_value", 0), ("first", 0)):
        assert train_bpe("", 257, ties=ties).bytes_of(0) == bytes([first])


def test_the_rules_part_where_pairs_are_equally_frequent():
    learned = {ties: train_bpe("zy  zy ba", 257, (), ties=ties).bytes_of(256) for ties in TIES}
    assert learned == {"smallest": b"zy", "smallest_by_value": b"zy", "first": b"zy"}
    learned = {ties: train_bpe("zy ba", 257, (), ties=ties).bytes_of(256) for ties in TIES}
    assert learned == {"smallest": b"ba", "smallest_by_value": b" b", "first": b"zy"}


# -- other trainers -----------------------------------------------------------------------------------------------------


@pytest.fixture
def texts(request):
    """A text by name: prose, verse, or letters drawn so that nearly every count is tied."""
    import numpy as np

    def text(name):
        if name == "prose":
            return request.getfixturevalue("topics")[:200_000]
        if name == "verse":
            return (request.getfixturevalue("data") / "tinyshakespeare.txt").read_text(encoding="utf-8")[:200_000]
        return "".join(np.random.default_rng(0).choice(list("aaabcdé \n'1ß"), 4000))

    return text


def tokens_of(tokenizer):
    return [tokenizer.bytes_of(id) for id in range(tokenizer.vocab_size)]


@pytest.mark.oracle
@pytest.mark.parametrize("corpus", ["prose", "verse", "random"])
def test_merges_are_those_of_hugging_faces_trainer(corpus, texts):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    theirs.train_from_iterator([texts(corpus)], trainer)
    ours = train_bpe(texts(corpus), 700)
    spelled = [tuple(pair) for pair in json.loads(theirs.to_str())["model"]["merges"]]
    token = ours.model.vocabulary
    assert [(to_characters(token[left]), to_characters(token[right])) for left, right in ours.model.pairs()] == spelled


@pytest.mark.oracle
@pytest.mark.parametrize("corpus", ["prose", "verse", "random"])
@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "o200k"])
def test_tokens_are_those_of_rustbpe(corpus, pattern, texts):
    rustbpe = pytest.importorskip("rustbpe", reason="needs nanochat's trainer: pip install rustbpe")
    theirs = rustbpe.Tokenizer()
    theirs.train_from_iterator([texts(corpus)], 700, pattern=PATTERNS[pattern])
    ours = train_bpe(texts(corpus), 700, (), pattern=pattern, ties="smallest_by_value")
    assert tokens_of(ours) == [bytes(token) for token, _ in sorted(theirs.get_mergeable_ranks(), key=lambda item: item[1])]


@pytest.mark.oracle
@pytest.mark.parametrize("corpus", ["prose", "verse", "random"])
@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "none"])
def test_tokens_are_those_of_tiktokens_educational_trainer(corpus, pattern, texts):
    from tiktoken import _educational as educational

    text = texts(corpus)[:6000]
    theirs = educational.bpe_train(text, 316, r"(?s:.+)" if pattern == "none" else PATTERNS[pattern], visualise=None)
    ours = train_bpe(text, 316, (), pattern=pattern, ties="first")
    assert tokens_of(ours) == sorted(theirs, key=theirs.__getitem__)
