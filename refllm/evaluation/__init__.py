"""Floor 3: completion as the universal task: what a model finds likely, how well it predicts, what it answers."""

from refllm.evaluation.fill import Filling, PseudoLikelihood, fill, pseudo_log_likelihood
from refllm.evaluation.likelihood import (
    Likelihood,
    Scores,
    continuation_log_likelihood,
    continuation_log_likelihoods,
    score_rows,
    score_tokens,
    token_log_probabilities,
)
from refllm.evaluation.perplexity import Perplexity, perplexity, score_text
from refllm.evaluation.tasks import Result, Task
from refllm.evaluation.tasks import read as read_task
from refllm.evaluation.tasks import run as run_task

__all__ = [
    "Filling",
    "Likelihood",
    "Perplexity",
    "PseudoLikelihood",
    "Result",
    "Scores",
    "Task",
    "continuation_log_likelihood",
    "continuation_log_likelihoods",
    "fill",
    "perplexity",
    "pseudo_log_likelihood",
    "read_task",
    "run_task",
    "score_rows",
    "score_text",
    "score_tokens",
    "token_log_probabilities",
]
