"""What an edit takes, before any weight is there: parameters, bytes and operations, from the very program that
edits."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.sharding import AbstractMesh
from jax.stages import Traced

from prunejax.abstract import Arguments, Facts, edit_arguments
from prunejax.division import Layout
from prunejax.editors import editor_row
from prunejax.editors.editor import Editor
from prunejax.flops import flops
from prunejax.liveness import share, temporary_bytes
from prunejax.models.checkpoints import Model
from prunejax.models.decoder import Decoder
from prunejax.update import apply

PARTS = {
    "embedding": ("wte", "wpe"),
    "attention": ("q", "k", "v", "o", "q_norm", "k_norm"),
    "MLP": ("gate", "up", "down"),
    "norms": ("ln_1", "ln_2", "ln_f"),
    "output matrix": ("head",),
}
"""What a decoder's parameters belong to, by the names of their modules."""


class Forecast(NamedTuple):
    """What an edit takes.

    parameters: numbers by part of the model. Bytes on each device, of weights: the model; kernels: those that are
    edited, in float32, as they were and as they are; state: what the editor keeps (C^-1 a layer); temporary: beside all
    that at the fullest moment of an edit. flops: operations of all devices for `batch` requests at once.
    """

    parameters: Mapping[str, int]
    weights: int
    kernels: int
    state: int
    temporary: int
    flops: int
    devices: int
    batch: int

    @property
    def at_rest(self) -> int:
        """Bytes a device between two edits."""
        return self.weights + self.kernels + self.state

    @property
    def at_peak(self) -> int:
        """Bytes a device at the fullest moment of an edit."""
        return self.at_rest + self.temporary

    def seconds(self, throughput: float) -> float:
        """Seconds for one request where each device does so many operations a second and nothing else takes time."""
        return self.flops / self.batch / self.devices / throughput


def forecast(model: Model, name: str, settings: Any, facts: Facts, mesh: AbstractMesh) -> Forecast:
    """What one edit of a model takes; of the model only the shapes are read.

    The program of the edit is traced, not compiled. Loops that stop when a loss is reached are taken to make all
    their `turns`; the value step's last loss, without a gradient, stands behind its loop: the operations are an upper
    bound.

    Misleads: compilers fuse and copy, and a runtime takes memory for itself (`liveness`); a device's throughput is not
    what its data sheet says (`flops`); what divides a model over devices costs messages, which are not counted.
    """
    editor = editor_row(name).make(settings)
    arguments = edit_arguments(model, name, editor, settings, facts, mesh)
    program = trace_edit(model, editor, arguments, mesh).jaxpr.jaxpr
    given = [layout_of(leaf) for leaf in jax.tree.leaves(arguments)]
    return Forecast(
        parameters=parameters(model.decoder),
        weights=device_bytes(arguments.decoder, mesh),
        kernels=2 * device_bytes(arguments.weights, mesh),
        state=device_bytes(arguments.state, mesh),
        temporary=temporary_bytes(program, given, mesh.shape),
        flops=flops(program, getattr(settings, "turns", 0)),
        devices=mesh.size,
        batch=facts.batch,
    )


def trace_edit(model: Model, editor: Editor, arguments: Arguments, mesh: AbstractMesh) -> Traced:
    """The program of one edit as a run makes it: the editor's step, and its updates added to the edited kernels."""

    def edit(decoder: Decoder, weights: Mapping[str, Any], state: Any, batch: Any) -> tuple:
        edited = replace(model, decoder=decoder).with_weights(weights)
        updates, _, after, diagnostics = editor.step(edited, state, batch, None)
        kept = {id(leaf) for leaf in jax.tree.leaves(state)}  # what is handed back as it came is not made anew
        changed = [leaf for leaf in jax.tree.leaves(after) if id(leaf) not in kept]
        return {tensor: apply(weights[tensor], updates[tensor]) for tensor in weights}, changed, diagnostics

    with jax.default_matmul_precision("highest"), jax.sharding.use_abstract_mesh(mesh):
        return jax.jit(edit).trace(*arguments)


def layout_of(leaf: Any) -> Layout:
    """The layout of an array of shapes, whole if it is not said."""
    spec = () if leaf.sharding is None else leaf.sharding.spec
    return (*spec, *(None,) * (leaf.ndim - len(spec)))


def parameters(decoder: Decoder) -> dict[str, int]:
    """How many numbers each part of a decoder holds; parts that it has not are left out."""
    counts = dict.fromkeys(PARTS, 0)
    for path, leaf in nnx.to_flat_state(nnx.state(decoder)):
        part = next(part for part, modules in PARTS.items() if not {*modules}.isdisjoint(path))
        counts[part] += leaf.size
    return {part: count for part, count in counts.items() if count}


def device_bytes(tree: Any, mesh: AbstractMesh) -> int:
    """Bytes of all arrays of shapes in a tree on one device."""
    return sum(share(leaf, layout_of(leaf), mesh.shape) for leaf in jax.tree.leaves(tree))
