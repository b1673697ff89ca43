"""What `refllm diff` found, in words and tables, and as JSON."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from refllm.cli.visible import visible_line
from refllm.conformance.text_difference import Difference, Side

REFERENCE = "float64"
MEANING = "  margin: how far all logits may be off, the same token chosen; bound: how far right ones may be"


def show(sides: tuple[Side, Side], found: Difference) -> None:
    """Whether the texts are equal, the first number beyond its bound, the decision that counts, and how far each layer is."""
    console = Console(highlight=False)
    model = sides[0].model
    name, n = model.architecture.__name__.rpartition(".")[2], len(found.prompt)
    console.print(Text(f"{sides[0].name} against {sides[1].name}: {name}, {n} tokens of prompt", style="bold"), soft_wrap=True)
    console.print(Text(texts_told(sides, found)), soft_wrap=True)
    console.print()
    console.print(Text(verdict(sides, found), style="green" if found.is_right else "bold red"), soft_wrap=True)
    if found.fault is not None:
        console.print(fault_table(sides, found))
    console.print()
    console.print(decision_table(sides, found))
    console.print(Text(MEANING, style="dim"), soft_wrap=True)
    console.print()
    console.print(layer_table(sides, found))


def texts_told(sides: tuple[Side, Side], found: Difference) -> str:
    """Whether both wrote the same, and where not."""
    if found.parted is None:
        n = len(found.texts[0])
        return f"The texts are equal: {n} token{'s' if n > 1 else ''}."
    chose = [f"{side.name} {token_told(side, text, found.parted)}" for side, text in zip(sides, found.texts, strict=True)]
    at = len(found.prompt) + found.parted
    return f"The texts part at token {found.parted + 1}, position {at}: {chose[0]}, {chose[1]}."


def token_told(side: Side, text: list[int], step: int) -> str:
    return f"writes {spelled(side, text[step])}" if step < len(text) else "has ended"


def spelled(side: Side, token: int) -> str:
    """A token's id, and its text where there is a tokenizer."""
    tokenizer = side.model.tokenizer
    return str(token) if tokenizer is None else f"{visible_line(tokenizer.tokens([token])[0])} ({token})"


def verdict(sides: tuple[Side, Side], found: Difference) -> str:
    """Who is right."""
    if found.fault is not None:
        return f"{sides[found.fault.side].name} goes beyond the error bound; this is the first number that does:"
    if found.misdrawn is not None:
        return (
            "Every number is within its error bound, but "
            f"{sides[found.misdrawn].name} chose a token that its logits do not choose: its sampler is wrong."
        )
    if found.parted is not None:
        return "Both are right: every number is within its error bound, and the decision at which they part is nearer than that."
    return "Every number of both is within its error bound."


def fault_table(sides: tuple[Side, Side], found: Difference) -> Table:
    """The first number beyond its bound."""
    fault, table = found.fault, grid()
    assert fault is not None
    token = [*found.prompt, *found.texts[0]][fault.position]
    rows = [
        ("layer", fault.place.layer),
        ("op", str(fault.place)),
        ("position", f"{fault.position}, token {spelled(sides[0], token)}"),
        (sides[fault.side].name, f"{fault.value:.9g}"),
        (REFERENCE, f"{fault.exact:.9g} ± {fault.bound:.2g}"),
        ("off by", f"{abs(fault.value - fault.exact):.3g}, {fault.share:,.1f} times the bound"),
    ]
    for what, told in rows:
        table.add_row(f"  {what}", Text(told))
    return table


def decision_table(sides: tuple[Side, Side], found: Difference) -> Table:
    """The decision at which the texts part, or the nearest of all: the tokens' logits on both sides, and how near it was."""
    decision, step = found.decision, found.decision.step
    table = Table(box=None, padding=(0, 2), header_style="dim", title_justify="left", title_style="")
    table.title = f"{'The nearest decision' if found.parted is None else 'The decision'}: token {step + 1}"
    table.add_column("")
    for name in (sides[0].name, sides[1].name, REFERENCE):
        table.add_column(name, justify="right")
    for token in rivals(found):
        table.add_row(Text(f"logit of {spelled(sides[0], token)}"), *(f"{z[step, token]:.6f}" for z in found.logits))
    exact = found.logits[2][step]
    table.add_row("largest logit gap", *(f"{abs(z[step] - exact).max():.3g}" for z in found.logits[:2]), "")
    chosen = [spelled(sides[0], text[step]) if step < len(text) else "" for text in found.texts]
    table.add_row("chosen", *(Text(c) for c in (*chosen, spelled(sides[0], decision.token))))
    table.add_row("uniform", "", "", f"{decision.uniform:.8f}")
    table.add_row("margin, nats", "", "", f"{decision.margin:.3g}")
    table.add_row("bound, nats", "", "", f"{decision.bound:.3g}")
    return table


def rivals(found: Difference) -> list[int]:
    """The tokens that the decision was between: those chosen, and the likeliest."""
    decision = found.decision
    chosen = [text[decision.step] for text in found.texts if decision.step < len(text)]
    likeliest = found.logits[2][decision.step].argsort()[::-1][:2].tolist()
    return list(dict.fromkeys([*chosen, decision.token, *likeliest]))[:4]


def layer_table(sides: tuple[Side, Side], found: Difference) -> Table:
    """How far the results of each layer are from float64's and from each other, at most."""
    table = Table(box=None, padding=(0, 2), header_style="dim", title_justify="left", title_style="")
    table.title = "Largest differences, as shares of the error bound"
    table.add_column("")
    for name in (f"{sides[0].name} to {REFERENCE}", f"{sides[1].name} to {REFERENCE}", "to each other"):
        table.add_column(name, justify="right")
    for layer in found.layers:
        cells = [Text(f"{share:.3g}", style="bold red" if share > 1 else "") for share in layer[1:3]]
        table.add_row(layer.layer, *cells, f"{layer.between:.3g}")
    return table


def grid() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def as_object(sides: tuple[Side, Side], found: Difference) -> dict[str, Any]:
    """The same for programs; errors and margins in nats, shares of bounds at most 1 where all is right."""
    decision, fault = found.decision, found.fault
    exact = found.logits[2][decision.step]
    return {
        "sides": [side.name for side in sides],
        "equal": found.parted is None,
        "right": found.is_right,
        "prompt": found.prompt,
        "texts": list(found.texts),
        "parted": found.parted,
        "fault": fault
        and {
            "side": sides[fault.side].name,
            "layer": fault.place.layer,
            "parameter": fault.place.name,
            "op": fault.place.op,
            "position": fault.position,
            "value": fault.value,
            "float64": fault.exact,
            "bound": fault.bound,
        },
        "misdrawn": None if found.misdrawn is None else sides[found.misdrawn].name,
        "decision": decision._asdict() | {"logit_gaps": [float(abs(z[decision.step] - exact).max()) for z in found.logits[:2]]},
        "layers": [layer._asdict() for layer in found.layers],
    }
