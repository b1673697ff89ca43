"""Any task is completion: classification, translation and answers to questions, by the likeliest continuation.

The model is the user's, or else a small one trained on solved questions of all four tasks and nothing else. The questions for
evaluation combine words as no question in training did; answers come from memory, or from the prompt. The same model before its
first update is the baseline.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from refllm.array_api import generator
from refllm.evaluation import tasks
from refllm.lab.experiment import Report, Result
from refllm.lab.materials import questions
from refllm.lab.materials.questions import TASKS, Line
from refllm.lab.materials.task_models import Recipe, training_of
from refllm.lab.materials.text_models import ARCHITECTURE, GAIN, config_of, padded
from refllm.lab.running.learn import Batch, learn, spread
from refllm.lab.running.pool import each
from refllm.lab.settings import require_whole_numbers
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE, Claim, Finding
from refllm.models import architecture
from refllm.models.model import Model
from refllm.tokenizer import Tokenizer
from refllm.tokenizer.train import train_bpe

NAME = "completion"
SUMMARY = {"tasks": ("model", "task", "accuracy", "low", "high", "chance")}
END = "<|endoftext|>"
TRAINED, UNTRAINED = "trained", "untrained"
CONTEXT = 64  # tokens; the longest lines have 57


@dataclass(frozen=True)
class Settings:
    """The defaults take a minute and a half on two cores.

    checkpoint: the user's model, a folder or a file; "" for a small one that is trained here
    tokenizer: its tokenizer, a file or a folder; "" for the one that comes with the checkpoint
    questions: of each task    shots: solved questions in the prompt before each; a model not trained on these tasks needs some
    width, steps, batch: of the small model and its training; a batch in lines
    """

    checkpoint: str = ""
    tokenizer: str = ""
    questions: int = 200
    shots: int = 0
    width: int = 64
    steps: int = 2000
    batch: int = 32
    seed: int = 0
    executor: str = "processes"

    def __post_init__(self) -> None:
        require_whole_numbers(self, shots=0, seed=0)
        if self.tokenizer and not self.checkpoint:
            raise ValueError(f"tokenizer={self.tokenizer} goes with a checkpoint; name that too.")


QUICK = Settings(questions=100, steps=1400)


def run(settings: Settings, folder: Path, workers: int, report: Report) -> Result:
    """Train a model where none is given, and evaluate it on the four tasks."""
    names = ["checkpoint"] if settings.checkpoint else [TRAINED, UNTRAINED]
    found = dict(each(judged, [(name, (name, settings)) for name in names], workers, folder / "models", settings.executor))
    rows = [row for name in names for row in found[name]["rows"]]
    for row in rows:
        report(f"{row['model']}, {row['task']}: {100 * row['accuracy']:.1f} % right, chance level {100 * row['chance']:.0f} %")
    return {"tables": {"tasks": rows}, "numbers": {}}


def judged(job: tuple[str, Settings]) -> Result:
    """One model on all tasks."""
    name, s = job
    model = user_model(s) if name == "checkpoint" else small_model(s, learns=name == TRAINED)
    rows = []
    for kind in TASKS:
        task = task_of(kind, s)
        found = tasks.run(model, task, batch=32)
        share, n = found.share, len(task.questions)
        chance = sum(1 / len(task.choices_of(fields)) for fields in task.questions) / n
        row = {"model": name, "task": kind, "questions": n, "accuracy": share.value, "low": share.low, "high": share.high}
        scores = {f"by_{score}": other.value for score, other in found.by_score.items()}
        rows.append(row | {"chance": chance} | scores)
    return {"rows": rows}


def task_of(kind: str, s: Settings) -> tasks.Task:
    """The questions of a task, none of them in the training data, and the examples for the prompt, which may be there."""
    asked = questions.drawn(kind, generator(s.seed, f"{kind} questions"), s.questions, held_out=True)
    shown = questions.drawn(kind, generator(s.seed, f"{kind} examples"), s.shots, held_out=False)
    return questions.task(kind, asked, shown)


def user_model(s: Settings) -> Model:
    """The checkpoint that the settings name. Raises ValueError where it brings no tokenizer and none is named."""
    from refllm.checkpoints import load

    model = load(Path(s.checkpoint).expanduser())
    if s.tokenizer:
        return replace(model, tokenizer=Tokenizer.load(Path(s.tokenizer).expanduser()))
    if model.tokenizer is None:
        raise ValueError(f"{s.checkpoint} brings no tokenizer; name one with --set tokenizer=FILE.")
    return model


def small_model(s: Settings, *, learns: bool) -> Model:
    """A small Llama trained on solved questions; where it does not learn, the same before its first update."""
    tokenizer = tokenizer_of(s.seed)
    config = config_of(s.width, tokenizer.vocab_size, CONTEXT)
    if not learns:
        return Model(architecture(ARCHITECTURE), config, spread(ARCHITECTURE, config, s.seed, GAIN), tokenizer)

    def batch_at(step: int) -> Batch:
        return batch(tokenizer, questions.lines(generator(s.seed, "batch", step), s.batch))

    training = training_of(Recipe(s.width, steps=s.steps, batch=s.batch, seed=s.seed), CONTEXT)
    (snapshot,) = learn(ARCHITECTURE, config, training, batch_at, [s.steps], gain=GAIN)
    return Model(architecture(ARCHITECTURE), config, snapshot.raw, tokenizer)


def tokenizer_of(seed: int) -> Tokenizer:
    """A token for each word of the tasks, as byte-level BPE learns them, and one that begins a text."""
    texts = ["".join(map("".join, line)) + "\n" for line in questions.lines(generator(seed, "vocabulary"), 2000)]
    return train_bpe(texts, 1024, [END])


def batch(tokenizer: Tokenizer, lines: list[Line]) -> Batch:
    """Lines after the token that begins a text, with targets for the answers alone: tokens and targets (B, longest) int32."""
    rows = []
    for line in lines:
        read, told = tokenizer.encode(END, {END}), [-100]
        for asked, answer in line:
            ids, answer_ids = tokenizer.encode(asked), tokenizer.encode(answer)
            read, told = read + ids + answer_ids, told + [-100] * len(ids) + answer_ids
        rows.append((read[:-1], told[1:]))
    return padded(rows, max(len(read) for read, _ in rows))


def figures(result: Result) -> dict[str, Any]:
    """The share of right answers with intervals, and chance level."""
    from refllm.lab import plots

    figure, axes = plots.new_figure("task", "accuracy")
    rows, names = result["tables"]["tasks"], list(TASKS)
    models = list(dict.fromkeys(row["model"] for row in rows))
    for i, model in enumerate(models):
        mine = [row for row in rows if row["model"] == model]
        x = [names.index(row["task"]) + 0.16 * (i - (len(models) - 1) / 2) for row in mine]
        y = [row["accuracy"] for row in mine]
        error = [[row["accuracy"] - row["low"] for row in mine], [row["high"] - row["accuracy"] for row in mine]]
        axes.errorbar(
            x, y, error, linestyle="", marker=plots.MARKERS[i], markersize=6, capsize=4, color=plots.COLORS[i], label=model
        )
    for row in rows[: len(names)]:
        at = names.index(row["task"])
        label = "chance level" if at == 0 else None
        axes.plot([at - 0.3, at + 0.3], [row["chance"]] * 2, color=plots.INK, linewidth=1, linestyle="--", label=label)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylim(0, 1.05)
    plots.legend(axes, loc="center right")
    return {"tasks": figure}


def judge_tasks(results: Mapping[str, Any]) -> Finding:
    """Claim 19, of the trained model. It holds where the 95 % interval of the accuracy lies above chance level in every task, and
    fails where it lies at or below it in any; otherwise it is undecidable.
    """
    rows = [row for row in results[NAME]["tables"]["tasks"] if row["model"] != UNTRAINED]
    if any(row["high"] <= row["chance"] for row in rows):
        verdict = FAILS
    else:
        verdict = HOLDS if all(row["low"] > row["chance"] for row in rows) else UNDECIDABLE
    worst = min(rows, key=lambda row: (row["accuracy"] - row["chance"]) / (1 - row["chance"]))
    told = ", ".join(f"{row['task']} {100 * row['accuracy']:.1f} % (chance {100 * row['chance']:.0f} %)" for row in rows)
    why = f"Accuracy of the most likely choice: {told}, of {rows[0]['questions']} questions each."
    return Finding(worst["accuracy"], worst["low"], worst["high"], f"share right, {worst['task']}", verdict, why)


CLAIMS = (
    Claim(
        number=19,
        statement="Any task is completion.",
        formula="accuracy of argmax over choices of log p(choice | question), above chance in all four tasks",
        published="GPT-3 solves tasks from a prompt (Brown 2020, arXiv:2005.14165)",
        needs=(NAME,),
        judge=judge_tasks,
    ),
)
