"""Remembered words."""

from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer import remembered
from refllm.tokenizer.remembered import RememberedWords


def spell(word):
    return map(ord, word)


@given(st.lists(st.text(max_size=4)))
def test_a_remembered_word_has_the_ids_it_had_at_first(words):
    ids = RememberedWords(spell)
    assert [ids[word] for word in words] == [tuple(spell(word)) for word in words]


def test_a_word_is_worked_out_once():
    asked = []
    ids = RememberedWords(lambda word: asked.append(word) or spell(word))
    assert ids["ab"] == ids["ab"] == (97, 98)
    assert asked == ["ab"]


def test_forgetting_words_changes_no_id(monkeypatch):
    monkeypatch.setattr(remembered, "MOST_WORDS", 3)
    monkeypatch.setattr(remembered, "LONGEST_WORD", 4)
    ids = RememberedWords(spell)
    words = ["a", "b", "longer", "c", "d", "a", "longer"]
    assert [ids[word] for word in words] == [tuple(spell(word)) for word in words]
    assert set(ids) == {"d", "a"}


def test_known_words_are_never_worked_out_nor_forgotten(monkeypatch):
    monkeypatch.setattr(remembered, "MOST_WORDS", 2)
    ids = RememberedWords(spell, {"known": (7,)})
    for word in ("known", "a", "b", "c", "known"):
        assert ids[word] == ((7,) if word == "known" else tuple(spell(word)))
    assert set(ids) == {"known", "c"}
