"""Kinds of text: what they are called, and what can be predicted of them."""

import numpy as np
import pytest

from refllm.lab.materials.text_kinds import KINDS, LETTERS, PERIOD, Source, sources, whole_words

SOURCE = Source(("the", "cat", "saw", "a", "dog", "and", "went", "home"), " abcdefghijklmnopqrstuvwxyz0123456789")


def drawn(kind, seed=0, length=40):
    return SOURCE.draw(kind, np.random.default_rng(seed), length)


@pytest.mark.parametrize("seed", range(5))
def test_kinds_of_text_are_what_they_are_called(seed):
    texts = {kind: drawn(kind, seed) for kind in KINDS}
    assert list(texts) == ["random letters", "shuffled words", "text", "repetition", "counting"]
    assert set(texts["random letters"]) <= set(LETTERS)
    numbers = [int(word) for word in texts["counting"].split()]
    assert np.diff(numbers).tolist() == [1] * (len(numbers) - 1)
    assert 0 <= numbers[0] < 5000
    assert f" {texts['text']} " in " " + " ".join(SOURCE.words * 3) + " "
    assert sorted(texts["shuffled words"].split()) == sorted(texts["text"].split())
    assert texts["repetition"][PERIOD:] == texts["repetition"][:-PERIOD]
    assert texts["repetition"][:PERIOD] == texts["text"][:PERIOD]
    assert len(texts["repetition"]) == len(texts["text"]) == len(texts["shuffled words"])


def test_shuffling_changes_the_order_and_passages_begin_anywhere():
    assert any(drawn("shuffled words", seed) != drawn("text", seed) for seed in range(5))
    assert {drawn("text", seed).split()[0] for seed in range(100)} == set(SOURCE.words)


def test_texts_are_as_long_as_whole_words_allow():
    assert {len(drawn("random letters", seed)) for seed in range(5)} == {40}
    for seed in range(5):
        for kind in ("text", "counting"):
            words = len(drawn(kind, seed).split())
            longer = drawn(kind, seed, 60).split()[: words + 1]
            assert len(" ".join(longer[:words])) <= 40 < len(" ".join(longer))


@pytest.mark.parametrize(
    ("words", "length", "text"),
    [
        (["ab", "c", "de"], 7, "ab c de"),
        (["ab", "c", "de"], 6, "ab c"),
        (["ab", "c", "de"], 4, "ab c"),
        (["ab", "c"], 3, "ab"),
        (["ab", "c"], 2, "ab"),
        (["abcde"], 2, "ab"),
    ],
)
def test_words_are_kept_whole_but_a_first_one_that_is_too_long(words, length, text):
    assert whole_words(words, length) == text


def test_random_letters_are_equally_likely():
    text = SOURCE.draw("random letters", np.random.default_rng(0), 27_000)
    counts = np.array([text.count(c) for c in LETTERS])
    assert (np.abs(counts - 1000) < 5 * np.sqrt(1000)).all()


def test_texts_become_ids_behind_a_space():
    assert SOURCE.ids("ab0") == [0, 1, 2, 27]


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "words.txt"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_no_line_is_both_learned_from_and_asked_about(file):
    learned, asked = sources(file("".join(f"zeile{i} grüß\u4e00{i}\n" for i in range(200))), 20)
    assert set(learned.words) & set(asked.words) == set()
    assert len(learned.words) + len(asked.words) == 400
    assert learned.symbols == asked.symbols == "".join(sorted({*LETTERS, *"0123456789üß\u4e00"}))


def test_a_text_of_more_characters_than_a_byte_can_name_is_read(file):
    learned, _ = sources(file("".join(chr(0x4E00 + i % 900) * 3 + "\n" for i in range(3000))), 20)
    assert len(learned.symbols) == 900 + 37
    assert max(learned.ids(chr(0x4E00 + 899))) == 936


def test_characters_of_the_held_out_part_only_have_ids_too(file):
    learned, asked = sources(file("".join(chr(0x4E00 + i) * 3 + "\n" for i in range(200))), 20)
    assert not set("".join(learned.words)) & set("".join(asked.words))
    assert learned.symbols == asked.symbols
    assert len(asked.symbols) == 200 + 37


def test_a_part_shorter_than_one_text_is_an_error(file):
    path = file("a few words\n" * 30)
    held_out = sources(path, 20)[1]
    fits = len(" ".join(held_out.words))
    assert sources(path, fits)[1] == held_out
    with pytest.raises(ValueError, match=f"words.txt is too short for texts of {fits + 1} characters.* one has {fits}.* smaller"):
        sources(path, fits + 1)
