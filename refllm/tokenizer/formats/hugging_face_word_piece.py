"""BERT's WordPiece in a tokenizer.json: BertNormalizer, BertPreTokenizer, and a decoder that joins words by spaces."""

from collections.abc import Iterable, Mapping
from typing import Any

from refllm.tokenizer.formats.hugging_face_parts import read_vocabulary, require
from refllm.tokenizer.word_piece import WordPiece
from refllm.tokenizer.words.bert import BertRules

AS_IT_STANDS = BertRules(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)


def describe(model: WordPiece, added: Iterable[tuple[str, int]]) -> dict[str, Any]:
    """The parts of a tokenizer.json. added: (spelling, id) of the added tokens, which the vocabulary lists too."""
    vocabulary = {spelling: id for id, spelling in model.pieces.items()} | dict(added)
    return {
        "normalizer": {"type": "BertNormalizer", **model.rules._asdict()},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": model.continuing, "cleanup": model.cleanup},
        "model": {
            "type": "WordPiece",
            "unk_token": next(spelling for spelling, id in vocabulary.items() if id == model.unknown),
            "continuing_subword_prefix": model.continuing,
            "max_input_chars_per_word": model.longest_word,
            "vocab": {spelling: vocabulary[spelling] for spelling in sorted(vocabulary, key=vocabulary.__getitem__)},
        },
    }


def read(document: Mapping[str, Any], added: Mapping[str, int]) -> WordPiece:
    """The model of a tokenizer.json. added: the ids of the added tokens. Raises ValueError for a part that is not known."""
    model = document["model"]
    require("model.type", model.get("type", "WordPiece"), "WordPiece")
    require("pre_tokenizer.type", (document.get("pre_tokenizer") or {}).get("type"), "BertPreTokenizer")
    decoder = document.get("decoder") or {}
    require("decoder.type", decoder.get("type"), "WordPiece")
    continuing, longest = model.get("continuing_subword_prefix", "##"), model.get("max_input_chars_per_word", 100)
    if not isinstance(continuing, str):
        raise ValueError(f"model.continuing_subword_prefix is {continuing!r}; a text is needed.")
    require("decoder.prefix", decoder.get("prefix", "##"), continuing)
    if type(longest) is not int or longest < 0:
        raise ValueError(f"model.max_input_chars_per_word is {longest!r}; a number of characters is needed.")
    pieces = {id: spelling for spelling, id in read_vocabulary(model, added).items()}
    ids = {spelling: id for id, spelling in pieces.items()} | dict(added)
    unknown = model.get("unk_token", "[UNK]")
    if unknown not in ids:
        raise ValueError(f"model.unk_token is {unknown!r}, which is not in the vocabulary.")
    return WordPiece(
        pieces, ids[unknown], read_rules(document.get("normalizer")), continuing, longest, decoder.get("cleanup", True) is True
    )


def read_rules(part: Mapping[str, Any] | None) -> BertRules:
    """What a normalizer does to text before it is cut: BertNormalizer's rules, or nothing where there is none."""
    if part is None:
        return AS_IT_STANDS
    require("normalizer.type", part.get("type"), "BertNormalizer")
    rules = {}
    for name, default in BertRules._field_defaults.items():
        require(f"normalizer.{name}", part.get(name, default), True, False, *([None] if name == "strip_accents" else []))
        rules[name] = part.get(name, default)
    return BertRules(**rules)
