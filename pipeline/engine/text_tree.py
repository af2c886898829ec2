"""Text trees: texts that begin alike run together, and the tokens that they share run once.

Questions behind the same worked examples begin alike, and so do a question's options. Earlier tokens never see later
ones, so a text's *opening* has the same states whatever follows it. A tree packs the opening once, and behind it the
rest of each text, which attends to the opening and to itself (tree attention: SpecInfer, 2305.09781, section 4.2).

All texts of a tree run the same programs. So a tree's states are split where programs diverge, and never by texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile

import torch

from pipeline.engine.decoder_stack import Rotary
from pipeline.engine.packed_attention import TreeShape
from pipeline.program import LayerProgram

#: Texts share an opening where that saves this fraction of their tokens, or more: a tree costs attention calls.
WORTHWHILE = 0.2
#: A processor multiplies matrices of fewer rows by other kernels (MKL's, on some), which round sums differently.
#: Programs that go back and forth amplify the difference: a text so short runs alone, as a stock model runs it.
FEW_TOKENS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A text to run.

    Attributes:
        tokens: Token ids of the text, T of them.
        rotary: Cosines and sines of its positions, ``[T, head_dim]``.
        logits_from: The first position whose final state is needed.
        rows: The rows of the call that read this text, each with its program.
    """

    tokens: Sequence[int]
    rotary: Rotary
    logits_from: int
    rows: list[int]

    @property
    def num_tokens(self) -> int:
        """Number of tokens T of the text."""
        return len(self.tokens)

    @property
    def num_logits(self) -> int:
        """Positions whose final state is needed."""
        return len(self.tokens) - self.logits_from


@dataclass(frozen=True, kw_only=True)
class TextTree:
    """Texts that begin alike, packed: the first one whole, of the others what comes behind the opening.

    Attributes:
        texts: The texts, each with rows of the same programs.
        opening: Tokens that all begin with; 0 for a text alone.
    """

    texts: Sequence[Text]
    opening: int = 0

    @cached_property
    def shape(self) -> TreeShape:
        """The number of tokens of each part."""
        return TreeShape(opening=self.opening, lengths=tuple(text.num_tokens for text in self.texts))

    @cached_property
    def rotary(self) -> Rotary:
        """Cosines and sines of the packed tokens' positions, ``[N, head_dim]``."""
        return packed_rotary([text.rotary for text in self.texts], self.shape.starts)

    @cached_property
    def tokens(self) -> list[int]:
        """The packed tokens, N of them."""
        return [token for text, start in zip(self.texts, self.shape.starts) for token in text.tokens[start:]]

    @cached_property
    def text_of(self) -> dict[int, int]:
        """For each row the index of its text."""
        return {row: index for index, text in enumerate(self.texts) for row in text.rows}

    @property
    def num_tokens(self) -> int:
        """Number of packed tokens N."""
        return self.shape.num_tokens

    @property
    def needs_whole(self) -> bool:
        """Whether a token is needed behind the final layer that no tail of the texts holds."""
        return any(text.logits_from < max(1, self.opening) for text in self.texts)

    @property
    def tails(self) -> list[int]:
        """Positions of each text whose final state is needed."""
        return [text.num_logits for text in self.texts]

    def pack(self, states_TD: Sequence[torch.Tensor]) -> torch.Tensor:  # noqa: N803
        """One state ``[T, D]`` of each text to a packed one, ``[N, D]``."""
        if len(states_TD) == 1:
            return states_TD[0]
        return torch.cat([state[start:] for state, start in zip(states_TD, self.shape.starts)])

    def tails_of(self, packed_ND: torch.Tensor) -> list[torch.Tensor]:  # noqa: N803
        """From a packed state the part of each text whose final state is needed."""
        return [packed_ND[end - tail : end] for end, tail in zip(self.shape.ends, self.tails)]

    def parts(self, hidden_ND: torch.Tensor) -> list[torch.Tensor]:  # noqa: N803
        """Each text's state ``[T, D]`` from a packed one, or its tail from the tails one behind the other."""
        if len(hidden_ND) < self.num_tokens:
            return list(torch.split(hidden_ND, self.tails))
        return [self.shape.whole(hidden_ND, index) for index in range(len(self.texts))]


def trees_of(texts: Sequence[Text], programs: Sequence[LayerProgram]) -> list[TextTree]:
    """Texts in trees: together where they run the same programs and begin alike.

    Args:
        texts: The texts.
        programs: One a row.

    Returns:
        The trees, in the order of their first texts; every text is in one of them.
    """
    alike: dict[tuple[LayerProgram, ...], list[int]] = {}
    for index, text in enumerate(texts):
        of_text = sorted((programs[row] for row in text.rows), key=lambda program: program.layers)
        alike.setdefault(tuple(of_text), []).append(index)
    trees: list[tuple[list[int], int]] = []
    for indices in alike.values():
        trees += _begin_alike(texts, indices)
    # Texts of a length lie side by side, so that attention takes them in one call.
    return [
        TextTree(texts=[texts[index] for index in sorted(tree, key=lambda one: texts[one].num_tokens)], opening=opening)
        for tree, opening in sorted(trees, key=lambda one: min(one[0]))
    ]


def _begin_alike(texts: Sequence[Text], indices: Sequence[int]) -> list[tuple[list[int], int]]:
    """Some texts in trees, each with its opening: a text joins the one before it where that saves tokens."""
    trees: list[tuple[list[int], int]] = []
    for index in sorted(indices, key=lambda one: tuple(texts[one].tokens)):
        if trees:
            tree, opening = trees[-1]
            shared = _shared(texts[tree[-1]], texts[index])
            joint = min(shared, opening) if len(tree) > 1 else shared
            saved = len(tree) * joint - (len(tree) - 1) * opening
            if saved >= WORTHWHILE * texts[index].num_tokens:
                tree.append(index)
                trees[-1] = (tree, joint)
                continue
        trees.append(([index], 0))
    return trees


def _shared(one: Text, other: Text) -> int:
    """Tokens that two texts begin with, and of which no final state is needed; each keeps a token of its own."""
    if min(one.num_tokens, other.num_tokens) < FEW_TOKENS:
        return 0
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one.tokens, other.tokens)))
    needed = [text.logits_from for text in (one, other) if text.logits_from > 0]
    return min(same, one.num_tokens - 1, other.num_tokens - 1, *needed)


def packed_rotary(parts: Sequence[Rotary], starts: Sequence[int]) -> Rotary:
    """The rotary embeddings of several texts one behind the other, each from its start on."""

    def packed(kind: str | None, which: int) -> torch.Tensor:
        return torch.cat([part[kind][which][start:] for part, start in zip(parts, starts)])

    return {kind: (packed(kind, 0), packed(kind, 1)) for kind in parts[0]}
