"""Write the claims into their page, spec/lab/claims.md, as the laboratory has them: statement, quantity, rule, value in print.

    python spec/make_claims.py

Only what lies between the page's two marks is written anew. A test compares it with the laboratory and tells what differs.
"""

import inspect
import re
from pathlib import Path

from refllm.lab.claims import collected
from refllm.lab.verdict import Claim

PAGE = Path(__file__).parent / "lab" / "claims.md"
BEGIN, END = "<!-- claims: written by spec/make_claims.py -->\n", "<!-- end of the claims -->\n"
ESCAPED = str.maketrans({mark: f"\\{mark}" for mark in "*_<|"})


def renewed(page: str) -> str:
    """The page with the claims of the laboratory. Raises ValueError where it has not both marks."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} must hold the two lines {BEGIN.strip()!r} and {END.strip()!r}.")
    return head + BEGIN + "".join(f"\n{section(claim)}" for claim in collected()) + "\n" + END + tail


def section(claim: Claim) -> str:
    """One claim as Markdown."""
    module = inspect.getmodule(claim.judge).__name__.replace(".", "/")
    rows = {"Quantity and rule": claim.formula, "How it is judged": rule(claim), "In print": claim.published or "no number"}
    lines = [f"- *{name}:* {text.translate(ESCAPED)}" for name, text in rows.items()]
    needs = ", ".join(f"`{name}`" for name in claim.needs)
    lines.append(f"- *From:* {needs}, by [`{module}.py`](../../{module}.py)")
    return "\n".join([f"### {claim.number}. {claim.statement.translate(ESCAPED)}", "", *lines, ""])


def rule(claim: Claim) -> str:
    """What the claim's judge says of itself, the values of the module's constants behind their names."""
    constants = vars(inspect.getmodule(claim.judge))

    def told(name: re.Match[str]) -> str:
        value = constants.get(name[0])
        return f"{name[0]} ({value:g})" if isinstance(value, int | float) else name[0]

    text = re.sub(r"^Claim \d+\W+", "", " ".join(inspect.getdoc(claim.judge).split()))
    return re.sub(r"\b[A-Z][A-Z_]{2,}\b", told, text[0].upper() + text[1:] if text[:2].isalpha() else text)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
