"""The module that computes what a function of the forward pass computes."""

import operator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.nn import functional as F  # noqa: N812

_NAMESPACES = (F, torch, operator)

#: operations that give the values of their first argument in another shape, or some of them
# fmt: off
VIEWS = {
    "view", "reshape", "flatten", "transpose", "permute", "squeeze", "unsqueeze", "expand", "expand_as", "view_as",
    "chunk", "split", "narrow", "unbind", "contiguous", "detach", "t", "select", "getitem",
}
#: those, and others that may give their first argument itself or a view of it
ALIASES = VIEWS | {
    "movedim", "moveaxis", "swapaxes", "swapdims", "adjoint", "unflatten", "ravel", "diagonal", "unfold", "as_strided",
    "broadcast_to", "broadcast_tensors", "reshape_as", "tensor_split", "hsplit", "vsplit", "dsplit", "split_with_sizes",
    "unsafe_chunk", "unsafe_split", "atleast_1d", "atleast_2d", "atleast_3d", "real", "imag", "view_as_real",
    "view_as_complex", "conj", "resolve_conj", "positive", "pos", "alias", "to", "type", "type_as", "float", "double",
    "half", "bfloat16", "cpu", "cuda", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout",
    "feature_alpha_dropout", "refine_names", "rename", "align_to", "align_as", "meshgrid", "data", "requires_grad_",
}
# fmt: on


class Mean(nn.AdaptiveAvgPool2d):
    """``torch.mean`` over some dimensions; an average pool by its class, so that it gets an average pool's rule."""

    def __init__(self, dim: int | list[int] | tuple[int, ...], keepdim: bool = False) -> None:
        super().__init__(1)
        self.dim, self.keepdim = (dim,) if isinstance(dim, int) else tuple(dim), keepdim

    def forward(self, input: Tensor) -> Tensor:
        return input.mean(self.dim, self.keepdim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, keepdim={self.keepdim}"


#: a function's module, and the names of its arguments after the input, in the function's order
_MODULES: dict[str, tuple[type[nn.Module], str]] = {
    "relu": (nn.ReLU, "inplace"),
    "relu6": (nn.ReLU6, "inplace"),
    "leaky_relu": (nn.LeakyReLU, "negative_slope inplace"),
    "elu": (nn.ELU, "alpha inplace"),
    "gelu": (nn.GELU, "approximate"),
    "silu": (nn.SiLU, "inplace"),
    "sigmoid": (nn.Sigmoid, ""),
    "tanh": (nn.Tanh, ""),
    "softplus": (nn.Softplus, "beta threshold"),
    "hardtanh": (nn.Hardtanh, "min_val max_val inplace"),
    "hardswish": (nn.Hardswish, "inplace"),
    "hardsigmoid": (nn.Hardsigmoid, "inplace"),
    "flatten": (nn.Flatten, "start_dim end_dim"),
    "mean": (Mean, "dim keepdim"),
}
_WINDOW, _AVERAGE = "kernel_size stride padding", "ceil_mode count_include_pad divisor_override"
for _n in ("1d", "2d", "3d"):
    _MODULES |= {
        f"avg_pool{_n}": (getattr(nn, f"AvgPool{_n}"), f"{_WINDOW} {_AVERAGE}"),
        f"max_pool{_n}": (getattr(nn, f"MaxPool{_n}"), f"{_WINDOW} dilation ceil_mode return_indices"),
        f"adaptive_avg_pool{_n}": (getattr(nn, f"AdaptiveAvgPool{_n}"), "output_size"),
        f"adaptive_max_pool{_n}": (getattr(nn, f"AdaptiveMaxPool{_n}"), "output_size return_indices"),
    }


def operation(node: Node) -> str:
    """The name in torch of a function or method, empty for others."""
    if node.op == "call_method":
        return str(node.target)
    name = getattr(node.target, "__name__", "") if node.op == "call_function" else ""
    return name if any(getattr(space, name, None) is node.target for space in _NAMESPACES) else ""


def equivalent(node: Node) -> nn.Module | None:
    """A module that computes the function or method of ``node`` from its first argument; None if there is none."""
    name = operation(node)
    if name in ("view", "reshape") and _keeps_only_the_batch(node):
        return nn.Flatten()
    if name not in _MODULES or not node.args or not isinstance(node.args[0], Node):
        return None
    module, names = _MODULES[name]
    arguments: dict[str, Any] = dict(zip(names.split(), node.args[1:], strict=False)) | node.kwargs
    arguments.pop("inplace", None)
    if len(node.args) - 1 > len(names.split()) or arguments.pop("return_indices", False) or "input" in arguments:
        return None
    if arguments.get("dtype", arguments) is None:
        del arguments["dtype"]
    if len(node.all_input_nodes) > 1 or (name == "mean" and arguments.get("dim") is None):
        return None
    if name == "flatten":
        arguments = {"start_dim": 0} | arguments
    try:
        return module(**arguments).eval()
    except TypeError:  # an argument that the module does not have
        return None


def _keeps_only_the_batch(node: Node) -> bool:
    """``x.view(x.size(0), -1)``, or with ``x.shape[0]``."""
    shape = node.args[1:] if len(node.args) == 3 else node.args[1] if len(node.args) == 2 else ()
    if not isinstance(shape, (tuple, list)) or len(shape) != 2 or not isinstance(shape[0], Node) or shape[1] != -1:
        return False
    batch, input = shape[0], node.args[0]
    if operation(batch) == "size":
        return batch.args == (input, 0)
    sizes = batch.args[0] if operation(batch) == "getitem" and batch.args[1] == 0 else None
    return isinstance(sizes, Node) and sizes.args[:1] == (input,) and is_size(sizes)


def is_size(node: Node) -> bool:
    """Whether a node asks for a size, not for values."""
    if node.op == "call_function" and node.target is getattr:
        return node.args[1] in ("shape", "ndim", "dtype", "device")
    return operation(node) in ("size", "dim", "ndimension", "numel")


def activations(graph: Graph) -> set[Node]:
    """The nodes with values that are computed from the input, not constants and not sizes."""
    found: set[Node] = set()
    for node in graph.nodes:
        derived = any(argument in found for argument in node.all_input_nodes) and not is_size(node)
        if node.op == "placeholder" or derived:
            found.add(node)
    return found
