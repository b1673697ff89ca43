"""tiktoken's rank files: a line for each token, its bytes in base64 and its rank, which is its id.

The file says neither the pattern nor the special tokens; both go by its name, as in openai_public.py of tiktoken 0.14.
"""

import base64
from pathlib import Path

from refllm.tokenizer.byte_level_bpe import ByteLevelBPE
from refllm.tokenizer.rank_merges import RankMerges
from refllm.tokenizer.tokenizer import AddedToken, Tokenizer
from refllm.tokenizer.words.patterns import CL100K, GPT2, O200K

END = "<|endoftext|>"
ENCODINGS: dict[str, tuple[str, dict[str, int]]] = {
    "r50k_base": (GPT2, {END: 50256}),
    "p50k_base": (GPT2, {END: 50256}),
    "cl100k_base": (
        CL100K,
        {END: 100257, "<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260, "<|endofprompt|>": 100276},
    ),
    "o200k_base": (O200K, {END: 199999, "<|endofprompt|>": 200018}),
}


def load(path: Path, pattern: str | None = None) -> Tokenizer:
    """Open a rank file. pattern: what cuts text into words, where the file's name does not say.

    Raises ValueError for a file that is damaged, or whose pattern is not known.
    """
    if pattern is None and path.stem not in ENCODINGS:
        raise ValueError(f"{path}: a rank file's name says how it cuts text, one of {', '.join(ENCODINGS)}; or pass pattern=….")
    usual, special = ENCODINGS.get(path.stem, ("", {}))
    vocabulary: dict[int, bytes] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            token, rank = line.split()
            vocabulary[int(rank)] = base64.b64decode(token, validate=True)
        except ValueError:
            raise ValueError(
                f"{path}, line {number}: {line[:40]!r} is not a token in base64 and its rank; copy the file again."
            ) from None
        if len(vocabulary) < number:
            raise ValueError(f"{path}, line {number}: rank {int(rank)} is given twice.")
    try:
        model = ByteLevelBPE(vocabulary, RankMerges(vocabulary), usual if pattern is None else pattern, whole_words=True)
        return Tokenizer(model, [AddedToken(id, name, special=True) for name, id in special.items()])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
