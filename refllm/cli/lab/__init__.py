"""`refllm lab`: what is said about scale, measured on models of one's own."""

import typer

from refllm.cli.lab import claims, experiments, extrapolate, fit, frontier, isoflop, reliability

app = typer.Typer(help="Measure what is said about scale on models of your own.", no_args_is_help=True)
experiments.add_to(app)
for command in (fit, isoflop, frontier, extrapolate):
    command.add_to(app)
reliability.add_to(app)
claims.add_to(app)
