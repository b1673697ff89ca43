"""`refllm backends`: what can compute here, and what it takes to install the rest."""


def backends() -> None:
    """Show the backends, their devices and kernels, and how to install those missing."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from refllm.array_api.registry import describe, load

    console, default = Console(highlight=False), load().name
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("backend", "version", "device", "dtypes", "kernels in use"):
        table.add_column(heading, overflow="fold")
    missing = []
    for found in describe():
        if found.missing:
            missing.append(found)
            continue
        floating = [dtype for dtype in found.dtypes if "float" in dtype]
        name = Text(found.name, style="bold green" if found.name == default else "bold")
        table.add_row(name, found.version, found.device, ", ".join(floating), kernels_in_words(found.kernels))
    console.print(table)
    console.print(f"\n  Arrays are made in [bold green]{default}[/]; REFLLM_BACKEND or --backend chooses another.")
    for found in missing:
        console.print(Text.assemble("\n  ", (found.name, "bold yellow"), f"  {found.missing}"))


def kernels_in_words(kernels: tuple[str, ...]) -> str:
    """The ops that kernels replace; a forward stands for its backward too."""
    forwards = [name for name in kernels if not name.endswith("_backward")]
    return ", ".join(forwards) if forwards else "none: the readable bodies"
