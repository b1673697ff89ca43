"""The embedding of tokens: a vector for each, read from a table (Bengio et al. 2003, JMLR 3, section 2).

y[..., :] = table[tokens[...], :]
"""

from refllm.array_api import namespace, op
from refllm.layers.linear import rows
from refllm.layers.precision import narrow


@op
def embedding(tokens, table):
    """Look up the vector of every token.

    tokens: (...) integers, 0 to V − 1    table: (V, D)
    Returns y: (..., D) and what the backward pass needs.
    """
    xp = namespace(tokens)
    y = xp.take(table, xp.reshape(tokens, (-1,)), axis=0)  # (N, D)
    return xp.reshape(y, (*tokens.shape, table.shape[-1])), (tokens, table)


@op
def embedding_backward(dy, saved):
    """Return dtable: (V, D), given dy: (..., D).

    A row of the table receives the gradients of all positions at which its token stands; the others receive zero.
    """
    xp = namespace(dy)
    tokens, table = saved
    return xp.scatter_add(xp.zeros_like(table), xp.reshape(tokens, (-1,)), narrow(rows(dy), table))
