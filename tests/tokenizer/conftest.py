"""Text that is hard on tokenizers, and files of real ones."""

import base64
import functools
import struct

import pytest
from hypothesis import strategies as st

# What pre-tokenization stumbles over: contractions, their upper-case and long-s look-alikes, every kind of whitespace and
# controls that Python takes for it, marks, joiners, digits of several scripts, letters without case, title case, emoji sequences.
ATOMS = [
    *["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "'ſ", "'l", "'v", "'r", "'", "''", "’s"],
    *[
        " ",
        "  ",
        "   ",
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        "\t",
        "\v",
        "\f",
        "\x1c",
        "\x1f",
        "\x85",
        "\xa0",
        "\u2003",
        "\u2028",
        "\u3000",
        "\ufeff",
    ],
    *[
        "a",
        "the",
        "THE",
        "Hello",
        "s",
        "ing",
        "é",
        "é",
        "ø",
        "ß",
        "ǅ",
        "ꟲ",
        "ª",
        "ʰ",
        "中",
        "文字",
        "かな",
        "한글",
        "ꙮ",
        "д",
        "ω",
        "א",
        "ش",
        "ก",
        "ि",
    ],
    *["1", "23", "456", "7890", "½", "²", "Ⅷ", "٣", "၁", "𝟘"],
    *[
        ".",
        ",",
        "...",
        "!?",
        "/",
        "//",
        "(",
        "_",
        "-",
        "--",
        "…",
        "、",
        "€",
        "\x00",
        "\x7f",
        "\u0301",
        "\u200d",
        "\ufe0f",
        "\u20e3",
    ],
    *[
        "😀",
        "👩‍👩‍👧",
        "🇩🇪",
        "👍🏽",
        "𐐀",
        "𝒳",
        "\U0001f9ff",
        "\U000e0041",
        "\U0010ffff",
        "\u0378",
        "\ue000",
        "<|endoftext|>",
        "<|",
        "|>",
    ],
]


@pytest.fixture(scope="session")
def hard_text():
    """Strings of hard atoms mixed with any characters that UTF-8 can carry."""
    character = st.characters(exclude_categories=["Cs"])
    return st.lists(st.sampled_from(ATOMS) | character, max_size=30).map("".join)


@pytest.fixture(scope="session")
def broken_text():
    """Strings that may also hold surrogates, paired and alone."""
    surrogate = st.sampled_from(["\ud83d", "\ude00", "\ud83d\ude00", "\udfff", "\ud800"])
    return st.lists(st.sampled_from(ATOMS) | st.characters() | surrogate, max_size=20).map("".join)


@pytest.fixture(scope="session")
def topics() -> str:
    """English prose of about 470 kB that every CPython carries."""
    return "\n".join(
        pytest.importorskip("pydoc_data.topics", reason="this Python was stripped of its help texts").topics.values()
    )


@pytest.fixture(scope="session")
def trained(topics):
    """A tokenizer of 1,024 tokens, trained on that prose."""
    from refllm.tokenizer import train_bpe

    return train_bpe(topics, 1024)


@pytest.fixture(scope="session")
def gpt2(data):
    """GPT-2's own tokenizer."""
    from refllm.tokenizer import Tokenizer

    return Tokenizer.load(data / "gpt2-encoder.json", data / "gpt2-vocab.bpe")


@pytest.fixture(scope="session")
def in_tiktoken(gpt2):
    """GPT-2's vocabulary in tiktoken, which ranks tokens by id, with any pattern."""
    import tiktoken

    def made(pattern):
        special = {"<|endoftext|>": 50256}
        return tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=ranks(gpt2), special_tokens=special)

    return made


@pytest.fixture(scope="session")
def tiktoken_gpt2(in_tiktoken):
    """GPT-2 as tiktoken has it."""
    from refllm.tokenizer.words.patterns import GPT2

    return in_tiktoken(GPT2)


@pytest.fixture(scope="session")
def rank_file(gpt2, tmp_path_factory):
    """GPT-2's vocabulary as tiktoken's file of ranks."""
    path = tmp_path_factory.mktemp("ranks") / "r50k_base.tiktoken"
    lines = [base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks(gpt2).items()]
    path.write_bytes(b"".join(lines))
    return path


def ranks(tokenizer):
    return {token: id for id, token in tokenizer.model.vocabulary.items()}


@pytest.fixture(scope="session")
def llama2(data):
    """Llama 2's own tokenizer."""
    from refllm.tokenizer import Tokenizer

    return Tokenizer.load(data / "llama2-tokenizer.model")


@pytest.fixture(scope="session")
def charsmap():
    """Makes the precompiled_charsmap that holds some rules: a double array, each unit in the first place that is free."""

    def made(rules):
        replacements, places = b"", {}
        for replacement in dict.fromkeys(rules.values()):
            places[replacement] = len(replacements)
            replacements += replacement.encode() + b"\0"
        keys = {key.encode(): places[replacement] for key, replacement in rules.items()}
        nodes = sorted({key[:end] for key in keys for end in range(1, len(key) + 1)})
        children = {node: [] for node in (b"", *nodes)}
        for node in nodes:
            children[node[:-1]].append(node[-1])
        units, bases, waiting, free = {0: 0}, set(), [(b"", 0)], 1
        for node, place in waiting:
            labels = [*([0] if node in keys else []), *children[node]]
            base = free
            while base in bases or any(base ^ label in units for label in labels):
                base += 1
            bases.add(base)
            units[place] |= (base ^ place) << 10 | (1 << 8 if node in keys else 0)
            for label in labels:
                units[base ^ label] = 1 << 31 | keys[node] if label == 0 else label
                if label:
                    waiting.append((node + bytes([label]), base ^ label))
            while free in units:
                free += 1
        size = max(units) // 256 * 256 + 256
        units = [units.get(place, 1 << 31) for place in range(size)]
        return struct.pack(f"<I{size}I", 4 * size, *units) + replacements

    return made


@pytest.fixture(scope="session")
def spm_trained(topics, tmp_path_factory):
    """Trains a SentencePiece model of 600 pieces with its own trainer; gives the processor and the file's path."""
    spm = pytest.importorskip("sentencepiece", reason="not installed: pip install sentencepiece")
    folder = tmp_path_factory.mktemp("trained")
    corpus = folder / "corpus.txt"
    odd = "héllo wörld naïve café Ａ１ ㌔ ﬁne ½ 中文 文字 かな か\u3099 한글 ǅ Ⅷ ² é e\u0301 ----- I II III 😀\n" * 20
    corpus.write_text(topics[:60_000] + "\n" + odd, encoding="utf-8")

    @functools.cache
    def made(**options):
        prefix = folder / f"model{len(list(folder.iterdir()))}"
        options = {"vocab_size": 600, "hard_vocab_limit": False} | options
        if symbols := options.pop("symbols", ""):
            options["user_defined_symbols"] = symbols.split("|")
        spm.SentencePieceTrainer.train(input=str(corpus), model_prefix=str(prefix), minloglevel=3, num_threads=1, **options)
        path = prefix.with_suffix(".model")
        return spm.SentencePieceProcessor(model_file=str(path)), path

    return made
