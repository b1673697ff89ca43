"""The phone keyboard: words, the beginning of one, and what is suggested."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.models import back_off
from refllm.models.keyboard import BOS, EOS, SPECIAL, SPLITS, UNK, Keyboard, counted, kneser_ney, stream, vocabulary

LINES = [
    "See you tomorrow",
    "see you today",
    "see you to the door",
    "The Thames",
    "don't go",
    "that's the door",
    "see you tomorrow",
]


def made(lines, order=3, least=1, split="words"):
    sentences = [SPLITS[split](line) for line in lines]
    words = vocabulary(sentences, least)
    return Keyboard(words, kneser_ney(counted(sentences, words, order)), split)


@pytest.fixture(scope="module")
def keyboard():
    return made(LINES)


def test_a_vocabulary_has_the_frequent_words_in_the_order_of_their_counts():
    sentences = [["b", "a", "b", "</s>"], ["c", "a", "<unk>"]]
    assert vocabulary(sentences) == [*SPECIAL, "a", "b", "c"]
    assert vocabulary(sentences, least=2) == [*SPECIAL, "a", "b"]
    assert vocabulary(sentences, most=4) == [*SPECIAL, "a"]


def test_a_stream_holds_each_sentence_between_its_ends_and_unknown_words_as_unk():
    words = [*SPECIAL, "a"]
    assert stream([["a", "x", "</s>"], []], words).tolist() == [1, 3, 0, 0, 2, 1, 2]


@pytest.mark.parametrize(
    ("text", "words", "prefix"),
    [
        ("", [BOS], ""),
        ("see you ", [BOS, "see", "you"], ""),
        ("see you to", [BOS, "see", "you"], "to"),
        ("see you, to", [BOS, "see", "you"], "to"),
        ("see you.", [BOS, "see", "you"], ""),
        ("don'", [BOS], "don'"),
        ("don't", [BOS], "don't"),
        ("old lines\nsee \u2063", [BOS, "see"], ""),
        ("qwerty th", [BOS, UNK], "th"),
        ("<s> s", [BOS, UNK], "s"),
    ],
)
def test_what_is_typed_is_words_and_the_beginning_of_one(keyboard, text, words, prefix):
    ids, typed = keyboard.typed(text)
    assert ([keyboard.words[id] for id in ids], typed) == (words, prefix)


def test_the_names_of_special_words_are_unknown_words():
    keyboard = made(["a b"], split="spaces")
    assert [keyboard.words[id] for id in keyboard.sentence("<s> a </s>")] == [BOS, UNK, "a", UNK, EOS]


def test_words_by_spaces_keep_their_punctuation():
    keyboard = made(["see you, then.", "see you, then."], split="spaces")
    assert keyboard.suggest("see ", 1) == ["you,"]
    assert keyboard.typed("see you,")[1] == "you,"


def test_the_keyboard_ends_words_that_are_begun_in_either_case(keyboard):
    assert keyboard.suggest("see you to") == ["tomorrow", "to", "today"]  # equals as in the vocabulary
    assert keyboard.suggest("TH")[0] in ("The", "the", "that's")
    assert {*keyboard.suggest("th", 9)} == {"The", "the", "Thames", "that's"} == {*keyboard.suggest("TH", 9)}
    assert keyboard.suggest("xyz") == []
    assert keyboard.suggest("don") == ["don't"]


@given(
    st.lists(st.sampled_from([*LINES[0].split(), "the", "The", "door", "xyz"]), max_size=4),
    st.sampled_from(["", "t", "th", "see", "D", "z"]),
)
def test_suggestions_are_the_most_probable_words_that_begin_so(keyboard, words, prefix):
    context = [keyboard.ids[BOS], *keyboard.encode(words)]
    log_p = {
        word: back_off.log_probabilities(keyboard.table, [id], context)[0]
        for word, id in keyboard.ids.items()
        if word not in SPECIAL and word.casefold().startswith(prefix.casefold())
    }
    got = keyboard.suggest(" ".join([*words, prefix]))
    best = sorted(log_p.values(), reverse=True)[:3]
    assert np.all(np.abs(np.array([log_p[word] for word in got]) - best) <= 1e-13 * np.abs(best))


def test_special_words_are_never_suggested(keyboard):
    assert {*keyboard.suggest("see you ", 1000)} == {*keyboard.words} - {*SPECIAL}


def test_a_line_is_scored_with_its_end(keyboard):
    ids = [keyboard.ids[word] for word in (BOS, "see", "you", UNK, EOS)]
    expected = sum(np.log(10) * back_off.log10_distribution(keyboard.table, ids[:i])[ids[i]] for i in range(1, 5))
    assert keyboard.log_probability("see you, qwerty!") == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda k: Keyboard(k.words[1:], k.table), "the vocabulary lacks <unk>; a keyboard needs <unk>, <s>, </s> and a word .*"),
        (lambda k: Keyboard([*k.words, "x"], k.table), r"the vocabulary has 17 different words for 16 ids; .*"),
        (lambda k: Keyboard(k.words, k.table._replace(begin=None)), r"sentences of the model begin with id None; .* <s>, 1\."),
        (lambda k: Keyboard(k.words, k.table, "letters"), r"split='letters' is not known; choose one of words, spaces\."),
        (lambda k: k.suggest("see", 0), r"k=0; a keyboard suggests at least one word\."),
    ],
)
def test_what_makes_no_keyboard_is_named(keyboard, change, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        change(keyboard)
