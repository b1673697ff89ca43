"""Unigram in a tokenizer.json."""

import base64
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer import Tokenizer
from refllm.tokenizer.character_map import CharacterMap
from refllm.tokenizer.normalizers import Normalizer
from refllm.tokenizer.sentence_piece_normalizer import SentencePieceNormalizer
from refllm.tokenizer.unigram import Unigram

METASPACE = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
SPLIT = {"type": "WhitespaceSplit"}
VOCAB = [["</s>", 0.0], ["<unk>", 0.0], ["\u2581", -2.0], ["\u2581ab", -3.5], ["a", -1.25], ["b", -2.5], ["ab", -2.75]]
SPECIAL = [{"id": 0, "content": "</s>", "special": True}, {"id": 1, "content": "<unk>", "special": True}]
T5 = {
    "added_tokens": SPECIAL,
    "normalizer": None,
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [SPLIT, METASPACE]},
    "decoder": METASPACE,
    "model": {"type": "Unigram", "unk_id": 1, "vocab": VOCAB},
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("unigram") / "tokenizer.json"


def loaded(path, **parts):
    path.write_text(json.dumps(T5 | parts), encoding="utf-8")
    return Tokenizer.load(path)


def test_t5s_kind_of_file_is_read(path):
    tokenizer = loaded(path)
    assert tokenizer.encode("ab  b\nabx") == [3, 2, 5, 3, 1]
    assert tokenizer.decode([3, 2, 5]) == "ab b"
    assert tokenizer.encode_with_offsets("ab  xx") == ([3, 2, 1], [(0, 2), (4, 5), (4, 6)])
    assert (tokenizer.eos, tokenizer.special_tokens, tokenizer.vocab_size) == (0, {"</s>", "<unk>"}, 7)
    assert tokenizer.model.unknown_score == -13.5


@pytest.mark.parametrize(
    ("pre_tokenizer", "ids"),
    [
        (METASPACE, [3, 2, 3, 0, 3]),
        (METASPACE | {"prepend_scheme": "first"}, [3, 2, 3, 0, 6]),
        (METASPACE | {"prepend_scheme": "never"}, [6, 2, 3, 0, 6]),
        ({"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": False}, [6, 2, 3, 0, 6]),
        ({"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": True}, [3, 2, 3, 0, 3]),
    ],
)
def test_the_schemes_of_metaspace_are_read(path, pre_tokenizer, ids):
    assert loaded(path, pre_tokenizer=pre_tokenizer).encode("ab  ab</s>ab", allowed_special="all") == ids


def test_pieces_across_spaces_need_text_that_is_not_split(path):
    model = T5["model"] | {"vocab": [*VOCAB, ["b\u2581a", -1.0]]}
    assert loaded(path, model=model, pre_tokenizer=METASPACE | {"split": False}).encode("ab ab") == [2, 4, 7, 5]
    assert loaded(path, model=model, pre_tokenizer=METASPACE).encode("ab ab") == [3, 3]


def test_the_map_of_characters_is_read_and_written(path, charsmap):
    data = charsmap({"A": "a", "e\u0301": "ab"})
    part = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}
    steps = [{"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}, part]
    for normalizer, text in ((part, "Ae\u0301"), ({"type": "Sequence", "normalizers": steps}, "Á\u0301B")):
        tokenizer = loaded(path, normalizer=normalizer)
        tokenizer.save(path)
        assert json.loads(path.read_text(encoding="utf-8"))["normalizer"] == normalizer
        assert tokenizer.encode(text) == Tokenizer.load(path).encode(text) != [1]


@given(st.text(st.sampled_from("abc \u2581"), max_size=12))
def test_a_saved_tokenizer_gives_the_same_ids(path, text):
    for pre_tokenizer in (T5["pre_tokenizer"], METASPACE | {"prepend_scheme": "never", "split": False}):
        tokenizer = loaded(path, pre_tokenizer=pre_tokenizer)
        tokenizer.save(path)
        again = Tokenizer.load(path)
        assert again.encode(text) == tokenizer.encode(text)
        assert (again.model.pieces, again.model.scores) == (tokenizer.model.pieces, tokenizer.model.scores)


def test_unknown_characters_become_bytes_where_there_are_such(path):
    vocab = [*VOCAB, *([f"<0x{byte:02X}>", -20.0] for byte in range(256))]
    tokenizer = loaded(path, model=T5["model"] | {"vocab": vocab, "byte_fallback": True})
    assert tokenizer.encode("abé") == [3, 7 + 0xC3, 7 + 0xA9]
    tokenizer.save(path)
    assert Tokenizer.load(path).encode("abé") == [3, 7 + 0xC3, 7 + 0xA9]
    assert tokenizer.decode([3, 7 + 0xC3, 7 + 0xA9]) == "abé"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"model": T5["model"] | {"unk_id": None}}, "model.unk_id is None; what is read here is the id of one of the 7 pieces."),
        ({"model": T5["model"] | {"unk_id": 7}}, "model.unk_id is 7; what is read here is the id of one of the 7 pieces."),
        ({"model": T5["model"] | {"alpha": 0.1}}, "model.alpha is 0.1; what is read here is None."),
        ({"model": T5["model"] | {"vocab": [*VOCAB, ["a b", -1.0]]}}, "the token 'a b' has a space, which this pre_tokenizer"),
        ({"model": T5["model"] | {"vocab": {"a": 1}}}, "an entry of model.vocab is 'a'; what is read here is [piece, score]."),
        ({"model": T5["model"] | {"vocab": [["c", "one"]]}}, "an entry of model.vocab is ['c', 'one']; what is read here is"),
        ({"pre_tokenizer": None}, "pre_tokenizer.type is None; what is read here is 'Metaspace'."),
        ({"pre_tokenizer": METASPACE | {"replacement": "_"}}, "pre_tokenizer.replacement is '_'; what is read here is '\u2581'."),
        ({"pre_tokenizer": METASPACE | {"prepend_scheme": "last"}}, "pre_tokenizer.prepend_scheme is 'last'; what is read here"),
        (
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, METASPACE]}},
            "pre_tokenizer is [{'type': 'Digits'}]; what is read here is [] or [{'type': 'WhitespaceSplit'}].",
        ),
        ({"decoder": {"type": "WordPiece"}}, "decoder.type is 'WordPiece'; what is read here is 'Metaspace' or"),
        ({"normalizer": {"type": "Nmt"}}, "normalizer.type is 'Nmt'; what is read here is"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "YWI="}}, "its character map is damaged: it has 2 bytes"),
    ],
)
def test_a_part_that_is_not_known_is_named(path, parts, message):
    with pytest.raises(ValueError, match=r"tokenizer\.json") as error:
        loaded(path, **parts)
    assert message in str(error.value)


def from_sentence_piece(pieces=("a", " a"), scores=(-1.0, -1.5), kept=(), behind="", single_spaces=True, special=()):
    ids = range(1, len(pieces) + 1)
    model = Unigram(dict(zip(ids, pieces, strict=True)), dict(zip(ids, scores, strict=False)), 0, -11.5)
    step = SentencePieceNormalizer(CharacterMap({}, kept), single_spaces, "" if behind else " ", behind)
    return Tokenizer(model, [*loaded_special(special)], normalizer=Normalizer((step,)))


def loaded_special(ids):
    from refllm.tokenizer import AddedToken

    return [AddedToken(id, f"<{id}>", special=True) for id in ids]


@pytest.mark.parametrize("single_spaces", [True, False])
@pytest.mark.parametrize("pieces", [("a", " a", " "), ("a", " a", "a a")])
def test_a_sentencepiece_model_is_written(path, pieces, single_spaces):
    tokenizer = from_sentence_piece(pieces, (-1.0, -1.5, -1.75), single_spaces=single_spaces, special=[0])
    tokenizer.save(path)
    for text in ("a a", "  a\n a ", "aaxxa a", ""):
        assert Tokenizer.load(path).encode(text) == tokenizer.encode(text)
        assert Tokenizer.load(path).decode(tokenizer.encode(text)) == tokenizer.decode(tokenizer.encode(text))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scores": (-1.0,), "special": [0]}, "it has pieces that are never taken."),
        ({"kept": ["a"], "special": [0]}, "it has pieces that the user defined."),
        ({"behind": " ", "special": [0]}, "it has a space behind each text."),
        ({}, "no token has the id 0."),
    ],
)
def test_what_the_file_cannot_hold_is_refused(path, options, message):
    with pytest.raises(ValueError, match=r"^a tokenizer\.json cannot hold this model: ") as error:
        from_sentence_piece(**options).save(path)
    assert str(error.value).endswith(message)


PLAIN = re.compile("[!-_a-~]+( [!-_a-~]+)*")  # where characters vanish or run together, the spans of tokenizers count otherwise


@pytest.mark.oracle
@pytest.mark.parametrize("at_whitespace", [False, True])
@pytest.mark.parametrize("rule", ["nmt_nfkc", "nmt_nfkc_cf", "identity"])
def test_any_text_has_the_ids_of_tokenizers(path, spm_trained, hard_text, rule, at_whitespace):
    """A file as transformers converts T5 and ALBERT to, of a model that sentencepiece trained."""
    import tokenizers
    from tokenizers import normalizers

    processor, model_path = spm_trained(model_type="unigram", normalization_rule_name=rule)
    data = Tokenizer.load(model_path).normalizer.steps[0].characters.data
    map_part = [normalizers.Precompiled(data)] if data else []
    folded = [normalizers.Replace("``", '"'), normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    spaces = [normalizers.Strip(left=False, right=True), normalizers.Replace(tokenizers.Regex(" {2,}"), "\u2581")]
    steps = [*(folded if rule.endswith("cf") else []), *map_part, *([] if at_whitespace else spaces)]
    metaspace = tokenizers.pre_tokenizers.Metaspace(split=at_whitespace)
    vocab = [(processor.id_to_piece(id), processor.get_score(id)) for id in range(processor.get_piece_size())]
    theirs = tokenizers.Tokenizer(tokenizers.models.Unigram(vocab, 0))
    theirs.normalizer = normalizers.Sequence(steps)
    split = tokenizers.pre_tokenizers.WhitespaceSplit()
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, metaspace]) if at_whitespace else metaspace
    theirs.decoder = tokenizers.decoders.Metaspace()
    theirs.add_special_tokens(["<unk>", "<s>", "</s>"])
    theirs.save(str(path))
    ours = Tokenizer.load(path)
    ours.save(path)
    again = tokenizers.Tokenizer.from_file(str(path))

    @given(hard_text)
    def agrees(text):
        found = theirs.encode(text)
        ids, spans = ours.encode_with_offsets(text)
        assert ours.encode(text) == ids == found.ids == again.encode(text).ids
        if PLAIN.fullmatch(text) and processor.unk_id() not in ids:
            assert spans == found.offsets
            assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)

    agrees()


@pytest.mark.oracle
@pytest.mark.parametrize("rule", ["nmt_nfkc", "identity"])
def test_a_written_sentencepiece_model_gives_the_same_ids_in_tokenizers(path, spm_trained, topics, rule):
    import tokenizers

    _, model_path = spm_trained(model_type="unigram", normalization_rule_name=rule)
    ours = Tokenizer.load(model_path)
    ours.save(path)
    theirs = tokenizers.Tokenizer.from_file(str(path))
    for line in topics[:60_000].split("\n"):
        expected, found = ours.encode(line), theirs.encode(line).ids
        sums = [sum(ours.model.scores.get(id, ours.model.unknown_score) for id in ids) for ids in (expected, found)]
        assert found == expected or abs(sums[0] - sums[1]) <= len(found) * 2**-24 * abs(sums[0])  # float32's rounding decides
