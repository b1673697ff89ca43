"""`refllm generate`: prompts continued, as the text comes, many together, as JSON for programs."""

from typing import Annotated, Any

import typer

from refllm.cli.generate_options import LINE, PANELS, check_together
from refllm.cli.model_file import MODEL
from refllm.cli.option_table import takes


@takes(*PANELS)
def generate(
    model: MODEL,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(help="Texts to continue; - or none: standard input.", metavar="prompt", show_default=False),
    ] = None,
    **options: Any,
) -> None:
    """Continue prompts with a trained model.

    The text of one prompt goes to stdout as it comes; how long it took, to
    stderr. Several are written together and come out in the order of their
    prompts. A line of JSON, such as {"prompt": "Once", "max_tokens": 9}, sets
    options of its own. Ctrl-C stops with what there is.
    """
    from refllm.cli.asked import answers_to
    from refllm.cli.model_file import open_model
    from refllm.cli.prompts import read_prompts
    from refllm.cli.streaming import write_json, write_text
    from refllm.decoding.generate import check_continues

    check_together(options)
    files, jsonl = options["file"] or [], bool(options["jsonl"])
    asked = read_prompts(prompts or [], files, bool(options["lines"]), jsonl, LINE)
    opened = open_model(model, options["backend"], options["dtype"], options["tokenizer"])
    check_continues(opened)
    answers = answers_to(asked, opened, options)
    if options["json"] or jsonl or any(name.endswith(".jsonl") for name in files):
        write_json(opened, answers, options)
    elif any(answer.request.logprobs is not None for answer in answers):
        raise ValueError("--logprobs are written as JSON; add --json.")
    else:
        write_text(opened, answers, options)
    if wrong := next((answer.error for answer in answers if answer.error), None):
        raise ValueError(wrong)
