"""tiktoken's rank files: a line for each token, its bytes in base64 and its rank, which is its id.

The file says neither the pattern nor the special tokens; both go by its name, as in openai_public.py of tiktoken 0.14.
"""

from binascii import a2b_base64
from functools import partial
from pathlib import Path

import numpy as np

from refllm.tokenizer.byte_level_bpe import ByteLevelBPE
from refllm.tokenizer.model import MOST_IDS
from refllm.tokenizer.rank_merges import RankMerges
from refllm.tokenizer.tokenizer import AddedToken, Tokenizer
from refllm.tokenizer.words.patterns import CL100K, GPT2, O200K

END, PROMPT_END = "<|endoftext|>", "<|endofprompt|>"
FILL_IN = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
HARMONY = {
    "<|startoftext|>": 199998,
    END: 199999,
    "<|return|>": 200002,
    "<|constrain|>": 200003,
    "<|channel|>": 200005,
    "<|start|>": 200006,
    "<|end|>": 200007,
    "<|message|>": 200008,
    "<|call|>": 200012,
    PROMPT_END: 200018,  # which tiktoken calls <|reserved_200018|> too
}
RESERVED = {f"<|reserved_{id}|>": id for id in range(200000, 201088) if id not in HARMONY.values()}
ENCODINGS: dict[str, tuple[str, dict[str, int]]] = {
    "r50k_base": (GPT2, {END: 50256}),
    "p50k_base": (GPT2, {END: 50256}),
    "p50k_edit": (GPT2, {END: 50256} | dict(zip(FILL_IN, range(50281, 50284), strict=True))),
    "cl100k_base": (CL100K, {END: 100257} | dict(zip(FILL_IN, range(100258, 100261), strict=True)) | {PROMPT_END: 100276}),
    "o200k_base": (O200K, {END: 199999, PROMPT_END: 200018}),
    "o200k_harmony": (O200K, HARMONY | RESERVED),
}


def load(path: Path, pattern: str | None = None) -> Tokenizer:
    """Open a rank file. pattern: what cuts text into words, where the file's name does not say.

    Raises ValueError for a file that is damaged, or whose pattern is not known.
    """
    if pattern is None and path.stem not in ENCODINGS:
        raise ValueError(f"{path}: a rank file's name says how it cuts text, one of {', '.join(ENCODINGS)}; or pass pattern=….")
    usual, special = ENCODINGS.get(path.stem, ("", {}))
    vocabulary = read_vocabulary(path)
    if (largest := max(vocabulary, default=0)) >= MOST_IDS:
        raise ValueError(f"{path}: a token has the rank {largest}; ranks are below {MOST_IDS:,}.")
    try:
        model = ByteLevelBPE(vocabulary, RankMerges(vocabulary), usual if pattern is None else pattern, whole_words=True)
        return Tokenizer(model, [AddedToken(id, name, special=True) for name, id in special.items()])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_vocabulary(path: Path) -> dict[int, bytes]:
    """Rank -> token. Raises ValueError for the first line that is no token of a new rank."""
    data = path.read_bytes()
    parts = data.split()
    blanks = np.frombuffer(data, np.uint8)
    blanks = blanks[blanks <= ord(" ")]
    if np.all(blanks[::2] == ord(" ")) and np.all(blanks[1::2] == ord("\n")) and len(parts) in (blanks.size, blanks.size + 1):
        try:
            vocabulary = dict(zip(map(int, parts[1::2]), map(from_base64, parts[::2]), strict=True))
        except ValueError:
            vocabulary = {}  # a line is at fault
        if 2 * len(vocabulary) == len(parts) and min(vocabulary, default=0) >= 0:
            return vocabulary
    vocabulary = {}
    for number, line in enumerate(data.splitlines(), 1):
        try:
            token, rank = line.split()
            vocabulary[int(rank)] = from_base64(token)
        except ValueError:
            token, rank = line, b"-1"
        if int(rank) < 0:
            raise ValueError(f"{path}, line {number}: {line[:40]!r} is not a token in base64 and its rank; copy the file again.")
        if len(vocabulary) < number:
            raise ValueError(f"{path}, line {number}: rank {int(rank)} is given twice.")
    return vocabulary


from_base64 = partial(a2b_base64, strict_mode=True)
