"""Where the time of canonxai goes: ``python -m benchmarks.parts OUTPUT ARGUMENT ...`` runs its command line, watched.

Watched are calls, from outside: what enters a part stops the clock of the part around it. ``network`` is the time in
which a network runs forwards or backwards, whatever for; it is told for each part by itself.
"""

import functools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NETWORK = "network"


class Parts:
    """Seconds by part and by whether a network runs; a part within another does not count for the outer one."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: Counter[tuple[str, bool]] = Counter()
        self._clock = clock
        self._stack: list[tuple[str, bool]] = []
        self._since = clock()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What happens inside belongs to ``name``; :data:`NETWORK` only says that a network runs in the part around."""
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def enter(self, name: str) -> None:
        self._count()
        around = self._stack[-1][0] if self._stack else "other"
        self._stack.append((around, True) if name == NETWORK else (name, False))

    def leave(self) -> None:
        self._count()
        self._stack.pop()

    def watch(self, owner: Any, attribute: str, name: str) -> None:
        """Makes each call of ``owner.attribute`` a part."""
        call = getattr(owner, attribute)
        if getattr(call, "is_watched", False):
            return

        @functools.wraps(call)
        def watched(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return call(*args, **kwargs)

        watched.is_watched = True
        setattr(owner, attribute, watched)

    def _count(self) -> None:
        now = self._clock()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._since = now


def watch_canonxai(parts: Parts) -> None:
    """Makes the parts of a cell, and of a study's report, known."""
    from pytorch_lightning import Trainer
    from torch.utils.data.dataloader import _BaseDataLoaderIter
    from zennit.attribution import Gradient

    import canonxai.assemble
    import canonxai.explainer
    import canonxai.report.build
    import canonxai.results.cell
    import canonxai.results.output
    import canonxai.run
    from canonxai.metrics.perturbation_metric import PerturbationMetric
    from canonxai.results.store import Store

    for owner, attribute, name in (
        (canonxai.run, "run_together", "other"),
        (canonxai.assemble, "build", "building"),
        (canonxai.run, "build_trainer", "Lightning"),
        (Trainer, "predict", "Lightning"),
        (_BaseDataLoaderIter, "__next__", "loading"),
        (canonxai.explainer.Explainers, "predict_step", "prediction"),
        (canonxai.explainer, "canonization_agreement", "verification"),
        (Gradient, "grad", NETWORK),
        (canonxai.results.output, "write_rules", "rules"),
        (Store, "write", "writing"),
        (Store, "finish", "writing"),
        (canonxai.results.cell, "write_maps", "writing"),
        (canonxai.results.output, "log_results", "writing"),
        (canonxai.results.cell, "summarize", "summary"),
        (canonxai.results.output, "print_summary", "summary"),
        (canonxai.report.build, "build_report", "report"),
    ):
        parts.watch(owner, attribute, name)
    build = canonxai.run.build_explainers

    def build_explainers(*args: Any) -> Any:
        with parts.part("building"):
            explainers = build(*args)
        for explainer in explainers:
            parts.watch(type(explainer.method), "__call__", "attribution")
        for metric in explainers[0].metrics.values():
            name = "perturbation" if isinstance(metric, PerturbationMetric) else "metrics"
            parts.watch(type(metric), "__call__", name)
        return explainers

    canonxai.run.build_explainers = build_explainers
    watch_networks(parts)


def watch_networks(parts: Parts) -> None:
    """The outermost call of any network is a part; what prepares its input is not."""
    import torch
    from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

    from canonxai.models.evaluator import Evaluator
    from canonxai.models.normalization import Normalization

    no_network, depth = (Evaluator, Normalization), 0

    def before(module: torch.nn.Module, _: Any) -> None:
        nonlocal depth
        if not isinstance(module, no_network):
            if depth == 0:
                parts.enter(NETWORK)
            depth += 1

    def after(module: torch.nn.Module, *_: Any) -> None:
        nonlocal depth
        if not isinstance(module, no_network):
            depth -= 1
            if depth == 0:
                parts.leave()

    register_module_forward_pre_hook(before)
    register_module_forward_hook(after, always_call=True)


def finished() -> float:
    """The time when what was given to a GPU is done."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    """Runs the command line and writes the seconds of each part."""
    parts = Parts(finished)
    output, *arguments = sys.argv[1:]
    sys.argv = ["canonxai", *arguments]
    with parts.part("start-up"):
        from canonxai import cli

        watch_canonxai(parts)
    with parts.part("configuration"):
        cli.main()
    rows = [{"part": part, NETWORK: network, "seconds": value} for (part, network), value in parts.seconds.items()]
    Path(output).write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
