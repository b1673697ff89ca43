"""Measuring tokenizers: the sums hold, and scripts are told apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer import Tokenizer
from refllm.tokenizer.compare import SCRIPTS, Share, measured, scripts_of_points, shares, total

text_of_scripts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(st.data())
def test_the_shares_of_the_scripts_add_up_to_the_text(gpt2, hard_text, data):
    text = data.draw(hard_text)
    found = measured(gpt2, text)
    assert found.n_tokens == len(gpt2.encode(text, disallowed_special=()))
    assert found.n_bytes == len(text.encode()) == sum(share.n_bytes for share in found.scripts.values())
    assert sum(share.n_tokens for share in found.scripts.values()) == pytest.approx(found.n_tokens)


@given(st.lists(st.tuples(text_of_scripts, st.integers(1, 5)), max_size=6))
def test_a_token_is_shared_among_scripts_by_its_bytes(drawn):
    text = "".join(piece for piece, _ in drawn)
    n_bytes, script_of = len(text.encode()), scripts_of_points()
    lengths = np.array([min(4, n_bytes - start) for start in range(0, n_bytes, 4)], np.int64)  # tokens of four bytes
    expected = {}
    place = 0
    for character in text:
        for _ in character.encode():
            before = expected.get(name := SCRIPTS[script_of[ord(character)]], (0, 0.0))
            expected[name] = (before[0] + 1, before[1] + 1 / lengths[place // 4])
            place += 1
    found = shares(text, lengths)
    assert {name: share.n_bytes for name, share in found.items()} == {name: n for name, (n, _) in expected.items()}
    for name, (_, n_tokens) in expected.items():
        assert found[name].n_tokens == pytest.approx(n_tokens)


@pytest.mark.parametrize(
    ("script", "characters"),
    [
        ("Latin", "azAZéßøǅﬂꜢＡ"),
        ("Greek", "αΩἀ"),
        ("Cyrillic", "дЯѣꙮ"),
        ("Hebrew", "את"),
        ("Arabic", "شمﻼ"),
        ("Indic", "किத"),
        ("Thai and Lao", "กຂ"),
        ("Georgian", "ა"),
        ("Hangul", "한ㄱᄀ"),
        ("Kana", "かカｶ"),
        ("Han", "中文々𠀀"),
        ("other letters", "ᚠ𐐀\u0301"),
        ("digits", "09½²٣Ⅷ"),
        ("spaces", " \n\t\u3000\x85"),
        ("emoji", "😀🇩🏽☀\ufe0f\u200d"),
        ("signs", ".,!?€…、×÷\x00"),
    ],
)
def test_characters_belong_to_their_script(script, characters):
    assert {character: SCRIPTS[scripts_of_points()[ord(character)]] for character in characters} == dict.fromkeys(
        characters, script
    )


def test_texts_together_measure_as_one_text(gpt2):
    texts = ["One\n", "два\n", ""]
    together = total([measured(gpt2, text) for text in texts])
    assert together == measured(gpt2, "".join(texts))
    assert together.bytes_per_token == pytest.approx(len("One\nдва\n".encode()) / together.n_tokens)
    assert together.characters_per_token == pytest.approx(8 / together.n_tokens)
    assert together.scripts["Latin"] == Share(3, 3 / len("One"))


def test_no_text_has_no_tokens_and_no_scripts(gpt2):
    found = measured(gpt2, "")
    assert (found.n_bytes, found.n_tokens, found.bytes_per_token, found.scripts) == (0, 0, 0, {})


def test_special_tokens_in_a_text_are_ordinary_text(gpt2):
    assert measured(gpt2, "<|endoftext|>").n_tokens == len(gpt2.encode("<|endoftext|>", disallowed_special=())) > 1


def test_the_prefix_of_sentencepiece_is_no_part_of_the_text(llama2):
    found = measured(llama2, "the, the")
    assert found.scripts == {"Latin": Share(6, 1.75), "spaces": Share(1, 0.25), "signs": Share(1, 1)}
    found = measured(llama2, "中")
    assert (found.n_tokens, found.scripts) == (2, {"Han": Share(3, 1)}), "the first token is the prefix alone"


def test_what_the_vocabulary_cannot_write_is_counted_and_no_scripts_are_told(gpt2, tmp_path):
    (tmp_path / "vocab.txt").write_text("the\ncat\n[UNK]\n[CLS]\n[SEP]\n[PAD]\n[MASK]\n", encoding="utf-8")
    found = measured(Tokenizer.load(tmp_path), "the dog, the cat")
    assert (found.n_tokens, found.n_unknown, found.scripts) == (5, 2, {})
    assert total([found, measured(gpt2, "the")]).scripts == {}


def test_a_lone_surrogate_is_measured_as_it_is_encoded(gpt2):
    assert measured(gpt2, "a\ud800") == measured(gpt2, "a\ufffd")
