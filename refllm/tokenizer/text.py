"""What a tokenizer does to text before anything else."""


def repaired(text: str) -> str:
    """Text that UTF-8 can carry: as it is, or with surrogate pairs joined and lone surrogates made U+FFFD, as tiktoken does."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
