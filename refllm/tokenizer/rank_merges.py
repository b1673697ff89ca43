"""Merges by the ranks of tokens, as in tiktoken: two tokens merge where their bytes joined are a token, lower ranks first."""

from collections.abc import Mapping

from refllm.tokenizer.byte_pair import NEVER, Merge, merge_word


class RankMerges:
    """Read like a table of merges, but no pair is listed: what a pair joins to is looked up.

    vocabulary: id -> bytes, the id being the rank
    """

    def __init__(self, vocabulary: Mapping[int, bytes]):
        self.vocabulary = vocabulary
        self.ids = {token: id for id, token in vocabulary.items()}

    def get(self, pair: tuple[int, int], default: Merge = NEVER) -> Merge:
        """What becomes of an adjacent pair."""
        id = self.ids.get(self.vocabulary[pair[0]] + self.vocabulary[pair[1]])
        return default if id is None else Merge(id, id)

    def pairs(self) -> list[tuple[int, int]]:
        """The one pair that ever makes each token of several bytes, in order of rank.

        It is what merging the token's bytes by lower ranks leaves. A token that more than two tokens are left of is never made.
        """
        found = []
        for id in sorted(self.vocabulary):
            token = self.vocabulary[id]
            if len(token) > 1:
                left = merge_word([self.ids[token[i : i + 1]] for i in range(len(token))], _Below(self, id))
                if len(left) == 2:
                    found.append((left[0], left[1]))
        return found


class _Below:
    """The merges of ranks below one."""

    def __init__(self, merges: RankMerges, rank: int):
        self.merges, self.rank = merges, rank

    def get(self, pair: tuple[int, int], default: Merge) -> Merge:
        merge = self.merges.get(pair)
        return merge if merge.rank < self.rank else default
