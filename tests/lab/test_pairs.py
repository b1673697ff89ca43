"""How many pairs a sentence is."""

import copy

import pytest

from refllm.lab import pairs
from refllm.lab.experiment import conduct


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
    assert pairs.words("今日は、two dogs") == ["今", "日", "は", "、", "two", "dogs"]


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
    assert len(rows) == 5 * len(pairs.TEXTS)
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


def test_a_tokenizer_can_be_a_file(tmp_path):
    from refllm.tokenizer import train_bpe

    train_bpe("ab ab ab", 258).save(tmp_path / "tokenizer.json")
    spell, size = pairs.tokenizer(str(tmp_path / "tokenizer.json"), pairs.Settings())
    assert (spell("ab"), size) == (["ab"], 258)


def test_a_name_that_is_no_tokenizer_is_an_error():
    with pytest.raises(ValueError, match="'syllables' is no tokenizer; name bytes, characters, words"):
        pairs.tokenizer("syllables", pairs.Settings())


def verdict(result, place, **change):
    found = copy.deepcopy(result)
    found["tables"]["sentence"][place] |= change
    return pairs.CLAIMS[0].judge({"pairs": found})


def test_the_claim_is_judged_by_the_sentence(result):
    assert verdict(result, 0).verdict == "holds"
    assert verdict(result, 0).unit == "pairs with bpe-290"
    assert verdict(result, 3, pairs=20, tokens=19).verdict == "fails"
    assert verdict(result, 4, pairs=7).verdict == "fails"
    only = {"tables": {"sentence": [row for row in result["tables"]["sentence"] if row["tokenizer"] in ("bytes", "words")]}}
    assert verdict(only, 0).verdict == "undecidable at this scale"
