"""The study's whole grid in hours on this device, from the rates that perturbation and attribution found on it.

9,758 images, both networks in their full width, 13 methods, 2 states of canonization, 100 steps and f(x_0); the maps in
float32. Beside it stands the fraction of the device's peak in float32 that the forwards of the perturbation test reach,
where its maker states one. No product of matrices stands in for it elsewhere: on an AMD processor, oneDNN's
convolutions reach more FLOP/s than MKL's products.
"""

import json
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import Result, Settings, Target, machine
from benchmarks.networks import Network, networks

IMAGES, STATES, EVALUATIONS = 9758, 2, 101
#: and a random map, which costs nothing
METHODS = (
    "gradient", "ixg", "ig", "gbp", "ebp", "lrp_eps", "lrp_eps_plus", "lrp_eps_plus_flat", "lrp_eps_a2b1",
    "lrp_eps_a2b1_flat", "lrp_eps_gamma_box", "lrp_eps_gamma_flat",
)  # fmt: skip
GRADIENTS = 20  #: of Integrated Gradients
#: TFLOP/s in float32 without tensor cores, as NVIDIA's data sheets state them
PEAKS = {"H200": 67.0, "H100 PCIe": 51.0, "H100": 67.0, "A100": 19.5}


def run(settings: Settings) -> Result:
    """Reads what was found, and adds up.

    Raises:
        SystemExit: if perturbation or attribution was not measured on this device.
    """
    found = {}
    for name in ("perturbation", "attribution"):
        path = settings.path(name)
        if not path.is_file():
            raise SystemExit(f"grid: expected the results of {name} on this device. Run it before.")
        found[name] = json.loads(path.read_text())
    name = machine(settings)["device"]
    peak = next((teraflops * 1e12 for known, teraflops in PEAKS.items() if known in name), None)
    # of a quick run the one whose methods were all measured
    chosen = networks(True)[:1] if settings.quick else [net for net in networks(False) if not net.is_embedded]
    rows = [row(network, found, peak) for network in chosen]
    hours = [value["hours"] for value in rows]
    total = None if None in hours else sum(hours)
    rows.append(dict.fromkeys(rows[0]) | {"network": "all", "hours": total})
    targets = []
    if settings.is_gpu and total is not None:
        targets.append(Target("the study's grid, hours", total, "<=", 1))
    details = {"flops_of_the_data_sheet": peak, "methods": [*METHODS, "random"], "precision_of_maps": 32}
    return Result("The study's grid: 9,758 images, 2 networks, 13 methods, 2 states, 100 steps", rows, targets, details)


def row(network: Network, found: dict[str, Any], peak: float | None) -> dict[str, Any]:
    """The hours of a network."""
    rate = next(row["canonxai"] for row in found["perturbation"]["rows"] if row["network"] == network.title)
    rates = {row["method"]: row for row in found["attribution"]["rows"] if row["network"] == network.title}
    perturbation = IMAGES * STATES * (len(METHODS) + 1) * EVALUATIONS / rate / 3600
    attribution = None
    if rates:
        seconds = {name: 1 / rates[name]["canonxai"] for name in METHODS}
        seconds["ig"] *= GRADIENTS / found["attribution"]["details"][f"{network.title}, ig"]["steps"]
        attribution = IMAGES * STATES * sum(seconds.values()) / 3600
    flops = flops_of(network)
    return {
        "network": network.title,
        "images/s": rate,
        "GFLOP/image": flops / 1e9,
        "TFLOP/s": rate * flops / 1e12,
        "of peak": None if peak is None else rate * flops / peak,
        "hours of perturbation": perturbation,
        "of attribution": attribution,
        "hours": None if attribution is None else perturbation + attribution,
    }


def flops_of(network: Network) -> int:
    """Floating-point operations of a forward, two for each multiplication and addition."""
    model = network.build()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, network.side, network.side))
    return int(counter.get_total_flops())
