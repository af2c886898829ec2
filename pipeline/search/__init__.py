"""Monte Carlo tree search by ask and tell: which program to evaluate next. It knows no model, task or process."""

from pipeline.search.config import SearchConfig
from pipeline.search.tree import SearchTree

__all__ = ["SearchConfig", "SearchTree"]
