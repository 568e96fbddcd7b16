"""``PackedModel``: weights in the native CPU kernels' layout, packed matrices and float32 norms in one allocation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from octavo.kernels.native.matrix import MatrixSpec, PackedMatrix, aligned
from octavo.models.config import TransformerConfig
from octavo.models.rope import inverse_frequencies
from octavo.models.shapes import EMBEDDING, FINAL_NORM, HEAD, tensor_shapes


class PackedTensor(msgspec.Struct, frozen=True):
    """Where one tensor lies in the memory: a matrix (with its bias), or a vector of ``size`` float32."""

    name: str
    offset: int
    matrix: MatrixSpec | None = None
    size: int = 0

    @property
    def num_bytes(self) -> int:
        """Of the memory that it takes, padded to ``ALIGNMENT``."""
        return self.matrix.num_bytes if self.matrix else aligned(4 * self.size)


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """One layer; norms are float32 and effective (Gemma's offset inside), None where the architecture has none."""

    q: PackedMatrix
    k: PackedMatrix
    v: PackedMatrix
    o: PackedMatrix
    gate: PackedMatrix
    up: PackedMatrix
    down: PackedMatrix
    input_norm: np.ndarray
    mlp_norm: np.ndarray
    post_attention_norm: np.ndarray | None
    post_mlp_norm: np.ndarray | None
    q_norm: np.ndarray | None
    k_norm: np.ndarray | None


@dataclass(frozen=True, slots=True)
class PackedModel:
    """Everything a step needs. ``memory`` owns what matrices and norms point into: keep the model as long as they are used."""

    config: TransformerConfig
    embedding: PackedMatrix
    head: PackedMatrix  # the same object if tied
    norm: np.ndarray
    layers: tuple[PackedLayer, ...]
    inv_freq: np.ndarray  # float32 [head_dim / 2], radians per position
    windowed_inv_freq: np.ndarray  # of layers with a sliding window
    tensors: tuple[PackedTensor, ...]
    memory: np.ndarray

    @property
    def weight_bytes(self) -> int:
        """Of all tensors, padding included."""
        return self.memory.nbytes


SpecOf = Callable[[str, tuple[int, ...], bool], MatrixSpec]  # of a matrix' name, shape and whether it has a bias


def lay_out(config: TransformerConfig, spec_of: SpecOf) -> tuple[PackedTensor, ...]:
    """Where every tensor of a model lies: one after the other, each at an aligned offset; biases inside their matrices."""
    shapes = tensor_shapes(config)
    tensors: list[PackedTensor] = []
    offset = 0
    for name, shape in shapes.items():
        if name.endswith(".bias"):
            continue
        if len(shape) == 1:
            tensors.append(PackedTensor(name, offset, size=shape[0]))
        else:
            tensors.append(PackedTensor(name, offset, spec_of(name, shape, bias_of(name) in shapes)))
        offset += tensors[-1].num_bytes
    return tuple(tensors)


def bias_of(weight: str) -> str:
    """Name of the bias that belongs to a weight."""
    return weight.removesuffix("weight") + "bias"


def views(tensors: Sequence[PackedTensor], memory: np.ndarray) -> dict[str, PackedMatrix | np.ndarray]:
    """The tensors in ``memory`` (uint8), by name."""
    found: dict[str, PackedMatrix | np.ndarray] = {}
    for tensor in tensors:
        own = memory[tensor.offset : tensor.offset + tensor.num_bytes]
        found[tensor.name] = PackedMatrix(tensor.matrix, own) if tensor.matrix else own.view(np.float32)[: tensor.size]
    return found


def assemble_packed(config: TransformerConfig, plan: tuple[PackedTensor, ...], memory: np.ndarray) -> PackedModel:
    """Put every tensor into its role. ``plan`` is what ``lay_out`` gives, ``memory`` (uint8) at least as large."""
    tensors = views(plan, memory)

    def matrix(name: str) -> PackedMatrix:
        found = tensors[name]
        assert isinstance(found, PackedMatrix)
        return found

    def vector(name: str) -> np.ndarray:
        found = tensors[name]
        assert isinstance(found, np.ndarray)
        return found

    def norm(name: str) -> np.ndarray | None:
        return vector(name) if name in tensors else None

    def layer(index: int) -> PackedLayer:
        prefix = f"model.layers.{index}."
        post = f"{prefix}post_attention_layernorm.weight"  # with post-norms that, else the MLP's
        return PackedLayer(
            q=matrix(f"{prefix}self_attn.q_proj.weight"),
            k=matrix(f"{prefix}self_attn.k_proj.weight"),
            v=matrix(f"{prefix}self_attn.v_proj.weight"),
            o=matrix(f"{prefix}self_attn.o_proj.weight"),
            gate=matrix(f"{prefix}mlp.gate_proj.weight"),
            up=matrix(f"{prefix}mlp.up_proj.weight"),
            down=matrix(f"{prefix}mlp.down_proj.weight"),
            input_norm=vector(f"{prefix}input_layernorm.weight"),
            mlp_norm=vector(f"{prefix}pre_feedforward_layernorm.weight" if config.post_norms else post),
            post_attention_norm=vector(post) if config.post_norms else None,
            post_mlp_norm=norm(f"{prefix}post_feedforward_layernorm.weight"),
            q_norm=norm(f"{prefix}self_attn.q_norm.weight"),
            k_norm=norm(f"{prefix}self_attn.k_norm.weight"),
        )

    embedding = matrix(EMBEDDING)
    return PackedModel(
        config=config,
        embedding=embedding,
        head=embedding if config.tie_word_embeddings else matrix(HEAD),
        norm=vector(FINAL_NORM),
        layers=tuple(map(layer, range(config.num_layers))),
        inv_freq=inverse_frequencies(config, windowed=False).astype(np.float32),
        windowed_inv_freq=inverse_frequencies(config, windowed=True).astype(np.float32),
        tensors=plan,
        memory=memory,
    )
