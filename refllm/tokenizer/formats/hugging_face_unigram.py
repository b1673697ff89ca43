"""Unigram in a tokenizer.json, as for T5, XLM-R, ALBERT and mBART: [piece, score] in order of ids, spaces as U+2581."""

from collections.abc import Iterable, Mapping
from typing import Any

from refllm.tokenizer.formats.hugging_face_normalizers import describe_normalizer
from refllm.tokenizer.formats.hugging_face_parts import require
from refllm.tokenizer.formats.hugging_face_sentence_piece import BYTES, STRIP, UNESCAPE
from refllm.tokenizer.metaspace import Metaspace, PrependScheme
from refllm.tokenizer.normalizers import Normalizer, Prepend, Replace
from refllm.tokenizer.precompiled import Precompiled
from refllm.tokenizer.sentence_piece_normalizer import SentencePieceNormalizer
from refllm.tokenizer.unigram import ESCAPED_SPACE, UNKNOWN_PENALTY, Unigram

SPLIT = {"type": "WhitespaceSplit"}
SINGLE_SPACES = (
    Replace(r"(?<![\s\S]) +| +(?![\s\S])", is_regex=True, content=""),  # ^ and $ would mean lines
    Replace("  +", is_regex=True, content=" "),
)


def read(document: Mapping[str, Any], added: Mapping[str, int]) -> Unigram:
    """The model of a tokenizer.json. added: the ids of the added tokens. Raises ValueError for a part that is not known."""
    model = document["model"]
    entries = list(map(_read_entry, model["vocab"]))
    unknown = model.get("unk_id")
    if type(unknown) is not int or not 0 <= unknown < len(entries):
        raise ValueError(f"model.unk_id is {unknown!r}; what is read here is the id of one of the {len(entries)} pieces.")
    for field in ("alpha", "nbest_size"):
        require(f"model.{field}", model.get(field), None)
    own = {id: spelling for id, (spelling, _) in enumerate(entries) if spelling not in added}
    if plain := next((spelling for spelling in own.values() if " " in spelling), None):
        raise ValueError(f"the token {plain!r} has a space, which this pre_tokenizer leaves in no text; U+2581 stands for it.")
    ids = {spelling: id for id, spelling in own.items()}
    has_bytes = bool(model.get("byte_fallback")) and all(name in ids for name in BYTES)
    return Unigram(
        {id: spelling.replace(ESCAPED_SPACE, " ") for id, spelling in own.items()},
        {id: entries[id][1] for id in own},
        unknown,
        min(score for _, score in entries) - UNKNOWN_PENALTY,
        [ids[name] for name in BYTES] if has_bytes else (),
        _read_prefix(document.get("decoder") or {}),
        read_metaspace(document.get("pre_tokenizer") or {}),
        "float64",
    )


def _read_entry(entry: Any) -> tuple[str, float]:
    match entry:
        case [str(spelling), int(score) | float(score)]:
            return spelling, float(score)
    raise ValueError(f"an entry of model.vocab is {entry!r}; what is read here is [piece, score].")


def read_metaspace(part: Mapping[str, Any]) -> Metaspace:
    """How a pre_tokenizer makes words: a Metaspace, which may stand behind a WhitespaceSplit. Raises ValueError for another."""
    parts = part["pretokenizers"] if part.get("type") == "Sequence" else [part]
    require("the number of parts in pre_tokenizer", len(parts), 1, 2)
    require("pre_tokenizer.type", parts[-1].get("type"), "Metaspace")
    require("pre_tokenizer", parts[:-1], [], [SPLIT])
    return Metaspace(_scheme("pre_tokenizer", parts[-1]), parts[-1].get("split") is not False, len(parts) == 2)


def _scheme(field: str, part: Mapping[str, Any]) -> Any:
    require(f"{field}.replacement", part.get("replacement", ESCAPED_SPACE), ESCAPED_SPACE)
    scheme = part.get("prepend_scheme", "always" if part.get("add_prefix_space", True) else "never")
    require(f"{field}.prepend_scheme", scheme, "always", "first", "never")
    return scheme


def _read_prefix(part: Mapping[str, Any]) -> str:
    """What the first token loses when it is decoded. Raises ValueError for a decoder that is not known."""
    parts = part["decoders"] if part.get("type") == "Sequence" else [part]
    prefix = ""
    for step in parts:
        require("decoder.type", step.get("type"), "Metaspace", "Replace", "ByteFallback", "Fuse", "Strip")
        if step["type"] == "Metaspace" and _scheme("decoder", step) != "never":
            prefix = " "
        elif step["type"] == "Strip":
            require("decoder", step, STRIP)
            prefix = " "
        elif step["type"] == "Replace":
            require("decoder", step, UNESCAPE)
    return prefix


def describe(model: Unigram, added: Iterable[tuple[str, int]], normalizer: Normalizer | None) -> dict[str, Any]:
    """The parts of a tokenizer.json. added: (spelling, id) of the added tokens

    Raises ValueError for what the file cannot say: ids that are left out, pieces that are never taken, text that is kept.
    """
    spelling = {id: piece.replace(" ", ESCAPED_SPACE) for id, piece in model.pieces.items()}
    spelling |= dict(zip(model.byte_ids, BYTES, strict=False))
    if len(model.scores) < len(model.pieces):
        raise ValueError("a tokenizer.json cannot hold this model: it has pieces that are never taken.")
    n = max([*spelling, model.unknown]) + 1
    spelling |= {id: content for content, id in added if id < n}
    if (missing := next((id for id in range(n) if id not in spelling), None)) is not None:
        raise ValueError(f"a tokenizer.json cannot hold this model: no token has the id {missing}.")
    if len(set(spelling.values())) < len(spelling):
        raise ValueError("a tokenizer.json cannot hold this model: two of its tokens are spelled alike.")
    metaspace, described = model.metaspace, normalizer
    if metaspace is None:
        metaspace, described = _from_sentence_piece(model, normalizer)
    words: dict[str, Any] = {
        "type": "Metaspace",
        "replacement": ESCAPED_SPACE,
        "prepend_scheme": metaspace.scheme,
        "split": metaspace.split,
    }
    decoder = words | {"prepend_scheme": "always" if model.prefix else "never", "split": True}
    return {
        "normalizer": describe_normalizer(described),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [SPLIT, words]} if metaspace.at_whitespace else words,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, decoder]} if model.byte_ids else decoder,
        "model": {
            "type": "Unigram",
            "unk_id": model.unknown,
            "vocab": [[spelling[id], model.scores.get(id, 0.0)] for id in range(n)],
            "byte_fallback": bool(model.byte_ids),
        },
    }


def _from_sentence_piece(model: Unigram, normalizer: Normalizer | None) -> tuple[Metaspace, Normalizer | None]:
    """What does in a tokenizer.json as SentencePiece's normalizer does. Raises ValueError where nothing does."""
    (step,) = normalizer.steps if normalizer else (None,)
    if not isinstance(step, SentencePieceNormalizer):
        raise ValueError("a tokenizer.json cannot hold this model: it has no Metaspace.")
    if step.characters.kept or step.behind:
        what = "pieces that the user defined" if step.characters.kept else "a space behind each text"
        raise ValueError(f"a tokenizer.json cannot hold this model: it has {what}.")
    scheme: PrependScheme = "always" if step.before and step.single_spaces else "never"
    steps = (
        *([Precompiled(step.characters)] if step.characters.rules else []),
        *(SINGLE_SPACES if step.single_spaces else [Prepend(ESCAPED_SPACE)] if step.before else []),
    )
    crosses = any(" " in piece[1:] for piece in model.pieces.values())
    return Metaspace(scheme, split=not crosses), Normalizer(steps) if steps else None
