"""How many pairs a sentence is."""

import copy

import numpy as np
import pytest

from refllm.lab.experiment import conduct
from refllm.lab.experiments import pairs
from refllm.lab.materials import corpus
from refllm.tokenizer import train_bpe


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text("I love street food. They love street music, and I love food.\n" * 40)
    return path


@pytest.fixture(scope="module")
def result(text, tmp_path_factory):
    settings = pairs.Settings(tokenizers=("bytes", "characters", "bpe-270", "bpe-290", "words"), text=str(text))
    return conduct(pairs, settings, tmp_path_factory.mktemp("lab"), report=lambda line: None)


def test_a_sentence_of_five_words_and_signs_is_six_pairs():
    found = pairs.pairs(pairs.words("I love street food."))
    assert len(found) == 6
    assert found[0] == (("[begin]",), "I")
    assert found[2] == (("[begin]", "I", "love"), "street")
    assert found[5] == (("[begin]", "I", "love", "street", "food", "."), "[end]")


def test_where_no_space_parts_words_a_character_is_one():
    assert pairs.words("今日は、ハト two dogs") == ["今", "日", "は", "、", "ハ", "ト", "two", "dogs"]


def test_larger_vocabularies_make_fewer_pairs_of_a_sentence(result):
    rows = {row["tokenizer"]: row for row in result["tables"]["sentence"]}
    assert (rows["bytes"]["pairs"], rows["words"]["pairs"]) == (20, 6)
    assert 6 <= rows["bpe-290"]["pairs"] < rows["bpe-270"]["pairs"] < 20
    for row in rows.values():
        assert row["pairs"] == row["tokens"] + 1
        assert row["bytes_per_token"] == 19 / row["tokens"]
        assert row["cut"].replace("|", "").replace(" ", "") == "Ilovestreetfood."


def test_every_language_is_cut_by_every_tokenizer(result):
    rows = result["tables"]["languages"]
    tokenizers = ("bytes", "characters", "bpe-270", "bpe-290", "words")
    assert [(row["language"], row["tokenizer"]) for row in rows] == [(text, name) for text in pairs.TEXTS for name in tokenizers]
    for row in rows:
        text = pairs.TEXTS[row["language"]]
        if row["tokenizer"] == "bytes":
            assert row["tokens"] == len(text.encode())
        if row["tokenizer"] == "characters":
            assert row["tokens"] == len(text)
        assert row["bytes_per_token"] == pytest.approx(len(text.encode()) / row["tokens"])


def test_bytes_that_are_no_character_can_be_read():
    spell, size = pairs.tokenizer("bytes", pairs.Settings())
    assert (spell("aé"), size) == (["a", "\\xc3", "\\xa9"], 256)


def test_bpe_learns_from_the_first_bytes_of_the_part_that_is_not_held_out(tmp_path):
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("éàüâîô"), 5)) for _ in range(300)]
    (tmp_path / "text.txt").write_text("\n".join(words), encoding="utf-8")
    learned_from = corpus.load(tmp_path / "text.txt", as_bytes=True).train.tobytes()
    for n_bytes in (101, 102, 103, 10**6):  # some of them amid a character
        split, _ = pairs.tokenizer("bpe-300", pairs.Settings(text=str(tmp_path / "text.txt"), n_bytes=n_bytes))
        known = train_bpe(learned_from[:n_bytes].decode(errors="ignore"), 300)
        text = " ".join(words[:40])
        assert "".join(split(text)) == text
        assert len(split(text)) == len(known.encode(text))


def test_special_tokens_in_a_text_are_text(text):
    split, _ = pairs.tokenizer("bpe-300", pairs.Settings(text=str(text)))
    assert "".join(split("<|endoftext|>")) == "<|endoftext|>"


def test_a_tokenizer_can_be_a_file(tmp_path):
    train_bpe("ab ab ab", 258).save(tmp_path / "tokenizer.json")
    spell, size = pairs.tokenizer(str(tmp_path / "tokenizer.json"), pairs.Settings())
    assert (spell("ab"), size) == (["ab"], 258)


def test_a_name_that_is_no_tokenizer_is_an_error():
    with pytest.raises(ValueError, match="'syllables' is no tokenizer; name bytes, characters, words, bpe-N, or"):
        pairs.tokenizer("syllables", pairs.Settings())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sentence": " "}, "sentence=' ' has no word"),
        ({"n_bytes": 0}, "n_bytes=0 must be"),
        ({"tokenizers": ()}, "no tokenizer is given; name bytes"),
        ({"tokenizers": ("bytes", "words", "bytes")}, "'bytes' is given twice"),
    ],
)
def test_settings_without_a_sentence_or_tokenizers_are_an_error(change, says):
    with pytest.raises(ValueError, match=says):
        pairs.Settings(**change)


def judged(result, sizes, counts):
    """The finding of tokenizers with vocabularies of these sizes, whose sentence has so many tokens."""
    rows = [
        {"tokenizer": f"t{i}", "vocab_size": size, "tokens": count, "pairs": count + 1}
        for i, (size, count) in enumerate(zip(sizes, counts, strict=True))
    ]
    languages = [
        {"tokenizer": f"t{i}", "language": language, "bytes_per_token": i + n}
        for i in range(len(sizes))
        for n, language in enumerate(pairs.TEXTS)
    ]
    found = {"tables": {"sentence": rows, "languages": languages}}
    return pairs.CLAIMS[0].judge({"pairs": found})


@pytest.mark.parametrize(
    ("sizes", "counts", "verdict"),
    [
        ((100, 200, 300), (9, 12, 5), "holds"),
        ((300, None, 100), (5, 2, 9), "holds"),
        ((100, 300, 200), (5, 6, 4), "fails"),
        ((100, 300, 200), (5, 5, 4), "undecidable at this scale"),
        ((100, 100), (5, 4), "undecidable at this scale"),
        ((None, None), (5, 4), "undecidable at this scale"),
        ((100,), (5,), "undecidable at this scale"),
    ],
)
def test_the_claim_is_judged_by_the_largest_and_the_smallest_vocabulary(result, sizes, counts, verdict):
    finding = judged(result, sizes, counts)
    assert finding.verdict == verdict
    if any(sizes):
        largest = max(range(len(sizes)), key=lambda i: sizes[i] or 0)
        assert (finding.value, finding.unit) == (counts[largest] + 1, f"pairs with t{largest}") or sizes == (100, 100)


def test_the_claim_fails_where_pairs_are_not_one_more_than_tokens(result):
    for row in range(5):
        found = copy.deepcopy(result)
        assert pairs.CLAIMS[0].judge({"pairs": found}).verdict == "holds"
        found["tables"]["sentence"][row]["pairs"] += 1
        assert pairs.CLAIMS[0].judge({"pairs": found}).verdict == "fails"


def test_the_finding_names_the_languages_with_the_shortest_and_the_longest_tokens(result):
    why = judged(result, (100, 300), (9, 5)).why
    assert "Pairs of the sentence: t0 10, t1 6; with t1 a token is 1.0 bytes of English and 9.0 of Python." in why
