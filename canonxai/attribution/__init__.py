"""Attribution methods, one file each, through zennit where it has them."""

from canonxai.attribution.base import Method, Query

__all__ = ["Method", "Query"]
