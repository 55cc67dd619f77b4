"""The parts of a canonizer, which can be switched apart."""

from collections.abc import Sequence

from canonxai.errors import check


def chosen_parts(parts: Sequence[str] | None, available: Sequence[str]) -> list[str]:
    """The names of the parts that are applied.

    Args:
        parts: each at most once; ``None`` for all, an empty list for the network as written.
        available: all there are.

    Raises:
        UserError: if one is not available, or twice there.
    """
    chosen = list(available if parts is None else parts)
    allowed = f"null or a list of distinct names from {', '.join(available)}"
    check(set(chosen) <= set(available) and len(set(chosen)) == len(chosen), "canonizer.parts", allowed, chosen)
    return chosen
