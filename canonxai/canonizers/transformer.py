"""Makes layers of what torchvision's transformers compute by functions: attention, residual adds, layer scale.

LayerNorm cannot be merged into its neighbour as BatchNorm can, since its standard deviation depends on the input. So
nothing is merged here: what rules cannot see becomes modules, for the rules of ``canonxai.attribution.transformer``.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, fx, nn
from torch.nn import functional as F  # noqa: N812
from torchvision.models.convnext import CNBlock
from torchvision.models.swin_transformer import ShiftedWindowAttention, SwinTransformerBlock
from torchvision.models.vision_transformer import Encoder, EncoderBlock
from zennit.canonizers import AttributeCanonizer
from zennit.layer import Sum

from canonxai.canonizers.networks import PartsCanonizer
from canonxai.errors import check
from canonxai.layers import AttentionScores, AttentionSoftmax, AttentionSum, Scale, add

WITHOUT_ATTENTION = "Leave the part attention out."


class TransformerCanonizer(PartsCanonizer):
    """For torchvision's ViT, Swin (its first version) and ConvNeXt.

    ``attention`` gives each step of multi-head and shifted-window attention a module, ``sum`` each residual add, with
    ConvNeXt's layer scale, and the positional embedding; ``merge_bn`` is that of VGG, for a convolutional stem.

    Raises:
        UserError: on ``apply``, if attention is not plain self-attention with the batch first.
    """

    available = ("merge_bn", "attention", "sum")

    def __init__(self, parts: list[str] | None = None, exact: bool = True) -> None:
        super().__init__(parts, exact)
        for part, kind, forward, layers in REWRITES:
            if part in self.parts:
                self.canonizers.append(AttributeCanonizer(partial(_rewrite, kind, forward, layers)))


def _rewrite(kind: type, forward: Any, layers: Any, name: str, module: nn.Module) -> dict[str, Any] | None:
    """Another forward, and the layers that it calls, for each module of just this kind."""
    return {"forward": forward.__get__(module), **layers(module)} if type(module) is kind else None


# What torch.fx traces is computed with its proxies.
Tokens = Float[Tensor, "batch tokens d"] | fx.Proxy
Map = Float[Tensor, "batch d height width"] | fx.Proxy
MapOfTokens = Float[Tensor, "batch height width d"] | fx.Proxy


# The residual adds.


def encoder(self: Any, input: Tokens) -> Tokens:
    embedded = add(self.canonizer_sum, input, self.pos_embedding)
    output: Tokens = self.ln(self.layers(self.dropout(embedded)))
    return output


def encoder_block(self: Any, input: Tokens) -> Tokens:
    x = self.ln_1(input)
    x, _ = self.self_attention(x, x, x, need_weights=False)
    x = add(self.canonizer_sum_1, self.dropout(x), input)
    output: Tokens = add(self.canonizer_sum_2, x, self.mlp(self.ln_2(x)))
    return output


def swin_block(self: Any, x: MapOfTokens) -> MapOfTokens:
    x = add(self.canonizer_sum_1, x, self.stochastic_depth(self.attn(self.norm1(x))))
    output: MapOfTokens = add(self.canonizer_sum_2, x, self.stochastic_depth(self.mlp(self.norm2(x))))
    return output


def convnext_block(self: Any, input: Map) -> Map:
    scaled = self.canonizer_scale(self.block(input))
    output: Map = add(self.canonizer_sum, self.stochastic_depth(scaled), input)
    return output


# Attention.


def multi_head_attention(
    self: Any,
    query: Tokens,
    key: Tokens,
    value: Tokens,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    **_: bool,
) -> tuple[Tokens, None]:
    plain = query is key is value and key_padding_mask is attn_mask is None and not need_weights
    check(plain, "canonizer", "self-attention without masks and weights", "another call", WITHOUT_ATTENTION)
    return self.out_proj(_attend(self, self.canonizer_in_proj(query))), None


def shifted_window_attention(self: Any, x: Any) -> MapOfTokens:
    geometry = (self.window_size, self.shift_size)
    bias = scores_bias(self.get_relative_position_bias(), x, *geometry)
    attended = self.proj(_attend(self, self.qkv(to_windows(x, *geometry)), bias))
    output: MapOfTokens = from_windows(attended, x, *geometry)
    return output


def _attend(self: Any, qkv: Any, bias: Any = None) -> Any:
    """From queries, keys and values, ``(*batch, tokens, 3 d)``, to sums of the values, ``(*batch, tokens, d)``."""
    heads = torch.unflatten(qkv, -1, (3, self.num_heads, -1)).movedim(-3, 0).transpose(-2, -3)
    query, key, value = heads.unbind()  # each (*batch, heads, tokens, d / heads)
    scores = self.canonizer_scores(query, key)
    if bias is not None:
        scores = add(self.canonizer_bias, scores, bias)
    attended = self.canonizer_attended(self.canonizer_softmax(scores), value)
    return attended.transpose(-2, -3).flatten(-2)


def _steps() -> dict[str, nn.Module]:
    return {
        "canonizer_scores": AttentionScores(),
        "canonizer_softmax": AttentionSoftmax(),
        "canonizer_attended": AttentionSum(),
    }


def _sums(*names: str) -> dict[str, nn.Module]:
    return {f"canonizer_{name}": Sum() for name in names}


def _in_projection(attention: nn.MultiheadAttention) -> dict[str, nn.Module]:
    """The projection to queries, keys and values, by the very same parameters."""
    others = {
        "batch_first=False": not attention.batch_first,
        "kdim or vdim": attention.in_proj_weight is None,
        "add_bias_kv": attention.bias_k is not None,
        "add_zero_attn": attention.add_zero_attn,
    }
    got = [name for name, given in others.items() if given]
    check(not got, "canonizer", "nn.MultiheadAttention for self-attention, batch first", got, WITHOUT_ATTENTION)
    linear = nn.Linear(attention.embed_dim, 3 * attention.embed_dim, device="meta")
    linear.weight, linear.bias = attention.in_proj_weight, attention.in_proj_bias
    return {"canonizer_in_proj": linear}


# The windows of Swin. Their number depends on the input, so torch.fx is not to look inside.

fx.wrap("to_windows")
fx.wrap("from_windows")
fx.wrap("scores_bias")


def to_windows(
    x: Float[Tensor, "batch height width d"], window: list[int], shift: list[int]
) -> Float[Tensor, "batch windows tokens d"]:
    """The shifted windows of an image that is padded with zeros."""
    size, shift = _padded(x, window, shift)
    x = F.pad(x, (0, 0, 0, size[1] - x.shape[2], 0, size[0] - x.shape[1]))
    return _partition(x.roll([-s for s in shift], (1, 2)), window)


def from_windows(
    windows: Float[Tensor, "batch windows tokens d"],
    x: Float[Tensor, "batch height width d"],
    window: list[int],
    shift: list[int],
) -> Float[Tensor, "batch height width d"]:
    """The image, of the size of ``x``, that the windows were cut from."""
    size, shift = _padded(x, window, shift)
    grid = torch.unflatten(windows, 2, window)
    grid = torch.unflatten(grid, 1, [n // w for n, w in zip(size, window, strict=True)])
    image = grid.transpose(2, 3).flatten(3, 4).flatten(1, 2).roll(shift, (1, 2))
    return image[:, : x.shape[1], : x.shape[2]]


def scores_bias(
    relative: Float[Tensor, "1 heads tokens tokens"],
    x: Float[Tensor, "batch height width d"],
    window: list[int],
    shift: list[int],
) -> Float[Tensor, "windows heads tokens tokens"]:
    """The relative position bias, less 100 between tokens that only the cyclic shift has made neighbours."""
    size, shift = _padded(x, window, shift)
    row, column = (
        torch.stack([torch.arange(n, device=x.device) >= n - edge for edge in edges]).sum(0)  # 0, 1 or 2
        for n, *edges in zip(size, window, shift, strict=True)
    )
    region = _partition((3 * row[:, None] + column)[None, :, :, None], window)[0, :, None, :, 0]
    return relative - 100 * (region[..., :, None] != region[..., None, :]).to(x)


def _partition(
    x: Shaped[Tensor, "batch height width d"], window: list[int]
) -> Shaped[Tensor, "batch windows tokens d"]:
    grid = torch.unflatten(torch.unflatten(x, 2, (-1, window[1])), 1, (-1, window[0]))
    return grid.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _padded(x: Tensor, window: list[int], shift: list[int]) -> tuple[list[int], list[int]]:
    """Height and width as multiples of the window's; no shift where one window is all there is."""
    size = [-(-n // w) * w for n, w in zip(x.shape[1:3], window, strict=True)]
    return size, [s if w < n else 0 for n, w, s in zip(size, window, shift, strict=True)]


#: part, type, its forward, and the layers that this calls
REWRITES: list[tuple[str, type, Callable[..., Any], Callable[[Any], dict[str, nn.Module]]]] = [
    ("attention", nn.MultiheadAttention, multi_head_attention, lambda m: {**_steps(), **_in_projection(m)}),
    ("attention", ShiftedWindowAttention, shifted_window_attention, lambda m: {**_steps(), **_sums("bias")}),
    ("sum", Encoder, encoder, lambda m: _sums("sum")),
    ("sum", EncoderBlock, encoder_block, lambda m: _sums("sum_1", "sum_2")),
    ("sum", SwinTransformerBlock, swin_block, lambda m: _sums("sum_1", "sum_2")),
    ("sum", CNBlock, convnext_block, lambda m: {**_sums("sum"), "canonizer_scale": Scale(m.layer_scale)}),
]
