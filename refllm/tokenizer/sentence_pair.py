"""A text, or a pair of texts, as BERT reads it (Devlin et al. 2018, arXiv:1810.04805, section 3): [CLS] a [SEP] b [SEP].

Token types tell the two apart: 0 up to the first [SEP], 1 behind it.
"""

from refllm.tokenizer.tokenizer import Specials, Tokenizer


def sentence_pair(
    tokenizer: Tokenizer,
    first: str,
    second: str | None = None,
    allowed_special: Specials = (),
    disallowed_special: Specials = "all",
) -> tuple[list[int], list[int]]:
    """The ids of one text or of two with what the tokenizer's template puts around them, and the type of each token.

    allowed_special, disallowed_special: as for Tokenizer.encode, such as {"[MASK]"}
    Raises ValueError for a tokenizer without a template, and as `encode` does.
    """
    template = tokenizer.template
    if template is None:
        raise ValueError("this tokenizer has no template that says what stands around a text, such as [CLS] and [SEP].")
    ids = [*template.before, *tokenizer.encode(first, allowed_special, disallowed_special), *template.behind]
    types = [0] * len(ids)
    if second is not None:
        more = [*tokenizer.encode(second, allowed_special, disallowed_special), *template.behind]
        ids, types = ids + more, types + [1] * len(more)
    return ids, types
