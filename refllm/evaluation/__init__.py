"""Floor 3: completion as the universal task: what a model finds likely, how well it predicts, what it answers."""

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

__all__ = [
    "Likelihood",
    "Perplexity",
    "Scores",
    "continuation_log_likelihood",
    "continuation_log_likelihoods",
    "perplexity",
    "score_rows",
    "score_text",
    "score_tokens",
    "token_log_probabilities",
]
