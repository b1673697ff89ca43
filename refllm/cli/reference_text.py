"""The quickstart's text: the Python language reference, which CPython carries for its help system."""


def python_reference() -> str:
    """The reference's topics as one text, in the order of their names.

    Topics repeat each other. A paragraph that has come before is left out: else the text held out would not be new to a
    model that has learned the rest.
    Raises FileNotFoundError where a distribution has taken the topics out.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise FileNotFoundError(
            "this Python comes without its language reference (pydoc_data.topics), which the quickstart learns; "
            "give it another text with --data FILE."
        ) from None
    seen: set[str] = set()
    kept = []
    for _, topic in sorted(topics.items()):
        for paragraph in topic.strip().split("\n\n"):
            if len(paragraph) < SHORT or paragraph not in seen:
                kept.append(paragraph)
            seen.add(paragraph)
    return "\n\n".join(kept) + "\n"


SHORT = 60  # characters: shorter paragraphs, such as headings and lines of code, recur in any text
