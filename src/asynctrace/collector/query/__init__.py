"""The query language: one text for the page, the command line and addresses; one tree for what answers them.

_language   text to tree, the places of errors        _terms   the tree
_match      whether a query holds
"""

from __future__ import annotations

from ._language import QueryError, parse
from ._terms import Query

__all__ = ["Query", "QueryError", "parse"]
