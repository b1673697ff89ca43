"""Changes of a text before it is cut, and where its characters come from."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer.formats.hugging_face_normalizers import describe_normalizer, read_normalizer
from refllm.tokenizer.normalizers import Form, Lowercase, Normalizer, Prepend, Replace, Strip, begins_anew, places

STEPS = [
    *map(Form, ("NFC", "NFD", "NFKC", "NFKD")),
    *(Lowercase(), Prepend("é "), Strip(True, False), Strip(True, True)),
    *(Replace(" ", False, "__"), Replace("the", False, ""), Replace(r"\s+", True, " "), Replace("\u0301", False, "x")),
]
# What joins and reorders: marks of several classes, jamo, vowels that are no marks, compatibility characters
MARKS = st.text(
    st.sampled_from("aeσΣİﬁⅧ가\u1100\u1161\u11a8\u0301\u0323\u0345\u09c7\u09be\u0cc6\u0cc2\u0cd5ｶﾞ\u212b\U00011347\U0001133e")
)


@given(data=st.data(), steps=st.lists(st.sampled_from(STEPS), max_size=3))
def test_an_aligned_text_is_the_normalized_text(hard_text, data, steps):
    text = data.draw(hard_text | MARKS)
    normalizer = Normalizer(tuple(steps))
    changed, spans = normalizer.aligned(text)
    assert changed == normalizer.apply(text)
    assert len(spans) == len(changed)
    assert all(0 <= start <= end <= len(text) for start, end in spans)
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in zip(spans, spans[1:], strict=False))


@given(form=st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]), first=MARKS, second=MARKS)
def test_a_form_never_reaches_over_a_character_that_begins_anew(form, first, second):
    if second and begins_anew(second[0]):
        joined = unicodedata.normalize(form, first + second)
        assert joined == unicodedata.normalize(form, first) + unicodedata.normalize(form, second)


@pytest.mark.parametrize(
    ("step", "text", "changed", "spans"),
    [
        (Form("NFC"), "xe\u0301y", "xéy", [(0, 1), (1, 3), (3, 4)]),
        (Form("NFKC"), "aﬁ", "afi", [(0, 1), (1, 2), (1, 2)]),
        (Form("NFD"), "é", "e\u0301", [(0, 1), (0, 1)]),
        (Form("NFD"), "e\u0301", "e\u0301", [(0, 1), (1, 2)]),
        (Form("NFC"), "\u1100\u1161\u11a8.", "각.", [(0, 3), (3, 4)]),
        (Form("NFC"), "\u09c7\u09be", "\u09cb", [(0, 2)]),
        (Lowercase(), "ΑΣ İ", "ασ i\u0307", [(0, 1), (1, 2), (2, 3), (3, 4), (3, 4)]),
        (Replace("b", False, "xy"), "abc", "axyc", [(0, 1), (1, 2), (1, 2), (2, 3)]),
        (Replace("b+", True, ""), "abbc", "ac", [(0, 1), (3, 4)]),
        (Prepend("_ "), "ab", "_ ab", [(0, 1), (0, 1), (0, 1), (1, 2)]),
        (Prepend("_"), "", "", []),
        (Strip(True, True), " \x85a b\x1c ", "a b\x1c", [(2, 3), (3, 4), (4, 5), (5, 6)]),
        (Strip(False, True), " a ", " a", [(0, 1), (1, 2)]),
        (Strip(True, True), "  ", "", []),
    ],
)
def test_each_step_says_where_characters_come_from(step, text, changed, spans):
    assert Normalizer((step,)).aligned(text) == (changed, spans)
    assert Normalizer((step,)).apply(text) == changed


def test_steps_follow_each_other():
    normalizer = Normalizer((Replace("a", False, "bb"), Replace("b", False, "c")))
    assert normalizer.aligned("ab") == ("ccc", [(0, 1), (0, 1), (1, 2)])
    assert Normalizer((Replace("a", False, ""), Prepend("x"))).aligned("a") == ("", [])


def test_a_pattern_is_found_wherever_it_stands():
    assert list(places("a.", False, "a.aba.")) == [(0, 2), (4, 6)]
    assert list(places("a.", True, "éa.aba.")) == [(1, 3), (3, 5), (5, 7)]


@pytest.mark.oracle
@given(data=st.data(), steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=3))
def test_texts_are_normalized_as_in_tokenizers(hard_text, data, steps):
    from tokenizers import Tokenizer, models

    text = "".join(filter(as_old_as_both, data.draw(hard_text | MARKS)))
    theirs = Tokenizer(models.BPE())
    document = json.loads(theirs.to_str()) | {"normalizer": describe_normalizer(Normalizer(tuple(steps)))}
    assert Normalizer(tuple(steps)).apply(text) == Tokenizer.from_str(json.dumps(document)).normalizer.normalize_str(text)


@pytest.mark.oracle
@pytest.mark.parametrize("step", STEPS[:5], ids=lambda step: "".join(map(str, step)) or "lower case")
def test_every_character_that_both_know_is_normalized_as_in_tokenizers(step):
    from tokenizers import normalizers

    theirs = getattr(normalizers, getattr(step, "form", "Lowercase"))()
    points = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    differ = set()
    for i in range(0, len(points), 4096):
        characters = list(map(chr, points[i : i + 4096]))
        together = "\n".join(characters)  # with a newline between, none changes another
        if step.apply(together) != theirs.normalize_str(together):
            differ |= {ord(c) for c in characters if step.apply(c) != theirs.normalize_str(c)}
    assert differ <= (NEWER if isinstance(step, Form) else {p for p in points if unicodedata.category(chr(p)) == "Cn"})


# Characters with a decomposition that Unicode has had since 12.1 or later; the tables of tokenizers 0.23 do not know them.
NEWER = {
    0x32FF,
    *range(0xA7F1, 0xA7F5),
    0xAB69,
    *range(0x10780, 0x107C0),
    0x11938,
    0x1F16C,
    *range(0x1E030, 0x1E070),
    *range(0x1FBF0, 0x1FBFA),
}
NEWER |= {*range(0x105C0, 0x10600), *range(0x11380, 0x11400), *range(0x16120, 0x1612A), *range(0x16D40, 0x16D80)}
NEWER |= set(range(0x1CC00, 0x1CD00))


def as_old_as_both(character):
    """Whether a character is in the oldest Unicode that Python has, 3.2, so that every later one changes it alike."""
    return unicodedata.ucd_3_2_0.category(character) != "Cn"


def test_normalizers_are_read_as_they_are_described():
    for normalizer in (None, Normalizer(STEPS[:1]), Normalizer(tuple(STEPS))):
        described = describe_normalizer(normalizer)
        assert read_normalizer(described) == (normalizer and Normalizer(tuple(normalizer.steps)))
    nested = {"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": [{"type": "NFC"}]}, {"type": "Lowercase"}]}
    assert read_normalizer(nested) == Normalizer((Form("NFC"), Lowercase()))
    assert read_normalizer({"type": "Sequence", "normalizers": []}) is None
