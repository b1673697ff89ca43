"""How keyboards are judged, against a keyboard that is pressed key by key."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.evaluation.keystrokes import judge
from refllm.models import back_off
from refllm.models.keyboard import SPLITS, Keyboard, counted, kneser_ney, vocabulary

TEXT = ["see you tomorrow", "see you today", "the Thames", "that's the door", "see the sea"]


@pytest.fixture(scope="module")
def keyboard():
    sentences = [SPLITS["words"](line) for line in TEXT]
    words = vocabulary(sentences)
    return Keyboard(words, kneser_ney(counted(sentences, words, 3)))


WORDS = st.sampled_from(["see", "you", "tomorrow", "the", "Thames", "today", "unseen", "sea", "tea"])


@given(st.lists(st.lists(WORDS, min_size=1, max_size=4), min_size=1, max_size=3), st.integers(1, 4), st.integers(0, 9))
def test_keys_are_counted_as_they_would_be_pressed(keyboard, sentences, k, most):
    keys = alone = first = among = n = 0
    for words in sentences:
        before = ""
        for word in words[: most - n]:
            shown = [keyboard.suggest(before + word[:i], k) for i in range(len(word) + 1)]
            found = [i for i, suggestions in enumerate(shown) if word in suggestions]
            keys += min(found[0] + 1, len(word) + 1) if found else len(word) + 1
            alone += len(word) + 1
            first += shown[0][0] == word
            among += word in shown[0]
            n += 1
            before += word + " "
    report = judge(keyboard, [" ".join(words) for words in sentences], k, most)
    assert (report.typed, report.keys, report.keys_alone, report.first, report.among) == (n, keys, alone, first, among)
    assert report.savings == (1 - keys / alone if n else 0)


def test_surprise_is_that_of_all_words_and_ends_of_lines(keyboard):
    lines = ["see you, unseen!", "", "the sea"]
    report = judge(keyboard, lines, 3, 0)
    log_p = [keyboard.log_probability(line) for line in lines if line]
    assert (report.lines, report.words, report.unknown, report.characters) == (2, 5, 1, 18 + 5)
    assert report.surprise == pytest.approx(-sum(log_p), rel=1e-14)
    assert report.perplexity == pytest.approx(math.exp(-sum(log_p) / 7), rel=1e-14)
    assert report.bits_per_character == pytest.approx(-sum(log_p) / math.log(2) / 23, rel=1e-14)
    ids = keyboard.sentence(lines[0])
    unknown = back_off.log_probabilities(keyboard.table, [ids[3]], ids[:3])[0]
    assert report.perplexity_known == pytest.approx(np.exp((-sum(log_p) + unknown) / 6), rel=1e-13)


def test_a_text_without_words_and_a_keyboard_without_suggestions_are_refused(keyboard):
    with pytest.raises(ValueError, match=r"^the text has no word; a keyboard is judged by words\.$"):
        judge(keyboard, ["", " ... "], 3, 10)
    with pytest.raises(ValueError, match=r"^k=0; a keyboard suggests at least one word\.$"):
        judge(keyboard, TEXT, 0, 10)
