"""What an edit reads, as shapes without numbers: a model of a config.json, the editor's state, a batch of facts."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import ShapeDtypeStruct
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from prunejax.contexts import GROUP_LENGTHS, LENGTHS, no_contexts, sample_groups
from prunejax.editors import editor_row
from prunejax.editors.editor import Editor, State
from prunejax.editors.facts import Fact
from prunejax.editors.fine_tuning import Asked
from prunejax.editors.gradient import Lines
from prunejax.editors.hypernetwork import Hypernetwork, Network, Residual, load_hypernetwork, places_of
from prunejax.editors.rome import Fixed as RomeFixed
from prunejax.editors.rows import fact_rows, grouped, stacked_rows
from prunejax.editors.shapes import shape_of
from prunejax.editors.solve import KeyCache, Metric
from prunejax.editors.spread import TOKENS, FactBatch
from prunejax.editors.spread import Fixed as SpreadFixed
from prunejax.editors.ultraedit import Answers, Normal
from prunejax.editors.value import FactRows, open_from
from prunejax.errors import InputError
from prunejax.files import read_json
from prunejax.mesh import AXES, layout, layout_on, mesh_sizes
from prunejax.models.checkpoints import Model
from prunejax.models.config import DecoderConfig
from prunejax.models.decoder import Decoder
from prunejax.models.families import read_config
from prunejax.models.opened import Opened
from prunejax.models.published import PUBLISHED
from prunejax.sources import WORLD_FOLDER, find_network

MEND_RANK = 1920
"""The rank of the published hypernetworks, for settings that name none."""


class Facts(NamedTuple):
    """The shapes of what is edited: `batch` facts at once, each in so many contexts, `tokens` in the longest row, of
    these `suffix` from the subject's last on, `labels` in the longest target; in a run of `room` edits."""

    contexts: int
    tokens: int = 40
    suffix: int = 20
    labels: int = 4
    batch: int = 1
    room: int = 1000


class Arguments(NamedTuple):
    """What an edit is given: the decoder, the edited kernels in float32 by tensor name, the editor's state, a batch."""

    decoder: Decoder
    weights: Mapping[str, ShapeDtypeStruct]
    state: Any
    batch: Any


def abstract_mesh(text: str | None) -> AbstractMesh:
    """The mesh "data=1,model=8" without its devices; one device for None."""
    sizes = mesh_sizes(text) if text else dict.fromkeys(AXES, 1)
    return AbstractMesh(tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def abstract_model(name: str, dtype: str, mesh: AbstractMesh) -> Model:
    """A model without numbers or tokenizer, laid out on a mesh: of a published name, `world`, a folder with a
    config.json, or such a file."""
    path = WORLD_FOLDER if name == "world" else Path(name)
    path = path / "config.json" if path.is_dir() else path
    if name in PUBLISHED:
        config: Any = PUBLISHED[name]
    elif path.is_file():
        config = read_json(path, "model config")
    else:
        raise InputError(
            f"model {name!r}: none of {', '.join(PUBLISHED)}, world, a folder with config.json, or such a file"
        )
    if not isinstance(config, Mapping):
        raise InputError(f"model {path}: a JSON object was expected")
    family, sizes = read_config(config, f"model {name if name in PUBLISHED else path}")
    graph, state = nnx.split(nnx.eval_shape(lambda: Decoder(sizes, rngs=nnx.Rngs(0))))
    for keys, leaf in nnx.to_flat_state(state):
        laid = layout_on(mesh, ".".join(map(str, keys)), leaf.shape, sizes)
        leaf.set_value(ShapeDtypeStruct(leaf.shape, jnp.dtype(dtype), sharding=laid))
    return Model(nnx.merge(graph, state), tokenizer=None, family=family, folder=path.parent, sha256="", overrides={})


def default_contexts(editor: str) -> int:
    """How many context templates a run of this editor samples, the bare prompt included."""
    lengths = {sample_groups: GROUP_LENGTHS, no_contexts: ()}.get(editor_row(editor).contexts, LENGTHS)
    return 1 + sum(count for _, count in lengths)


def edit_arguments(
    model: Model, name: str, editor: Editor, settings: Any, facts: Facts, mesh: AbstractMesh
) -> Arguments:
    """The arguments of an edit of such facts; InputError for shapes that no batch of this editor has."""
    sizes, tensors = model.config, editor.tensors(model)
    if facts.batch != 1 and (refused := editor_row(name).refused("batched")):
        raise InputError(f"batch {facts.batch}: {refused}")
    if not facts.labels <= facts.suffix <= facts.tokens <= sizes.n_positions:
        raise InputError(
            f"labels {facts.labels}, suffix {facts.suffix}, tokens {facts.tokens}: each must be at most the next one, "
            f"and tokens at most the model's {sizes.n_positions} positions"
        )
    weights = {tensor: _kernel(sizes, model.family.kernel_of(tensor)[1], mesh) for tensor in tensors}
    state, batch = INPUTS[name](editor, settings, model.decoder, facts, _metric(sizes.d_ff, mesh))
    return Arguments(model.decoder, weights, state, batch)


def _kernel(sizes: DecoderConfig, kernel: str, mesh: AbstractMesh) -> ShapeDtypeStruct:
    """An edited kernel in float32, laid out as the one in the stack that it stands for."""
    shape = (sizes.d_ff, sizes.d_model) if kernel == "down" else (sizes.d_model, sizes.d_ff)
    spec = layout(f"blocks.{kernel}.kernel", (sizes.n_layers, *shape), sizes, mesh.shape["model"])
    return ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*spec[1:])))


def _metric(d_ff: int, mesh: AbstractMesh) -> ShapeDtypeStruct:
    """C^-1 of a layer."""
    spec = PartitionSpec("model") if d_ff % mesh.shape["model"] == 0 else PartitionSpec()
    return ShapeDtypeStruct((d_ff, d_ff), jnp.float32, sharding=NamedSharding(mesh, spec))


def _floats(*shape: int) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(shape, jnp.float32)


def _integers(*shape: int) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(shape, jnp.int32)


def _flags(*shape: int) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(shape, jnp.bool)


def _fact(facts: Facts) -> Fact:
    """A fact of the longest rows there are."""
    prefix, suffix = (0,) * (facts.tokens - facts.suffix), (0,) * facts.suffix
    return Fact(
        prefixes=(prefix,) * (facts.contexts + 1),
        suffixes=(*(suffix,) * facts.contexts, (0,)),
        labels=(0,) * facts.labels,
        offsets=(facts.suffix - facts.labels,) * facts.contexts,
    )


def _opened(decoder: Decoder, layer: int) -> dict[int, Opened]:
    """The layers that an editor reads out of the stack, laid out on the mesh as they lie in it."""

    def laid(leaf: ShapeDtypeStruct, axes: tuple[int, ...]) -> ShapeDtypeStruct:
        spec = leaf.sharding and NamedSharding(
            leaf.sharding.mesh, PartitionSpec(*((*leaf.sharding.spec, *[None] * leaf.ndim)[axis] for axis in axes))
        )
        return ShapeDtypeStruct([leaf.shape[axis] for axis in axes], leaf.dtype, sharding=spec)

    _, stack = nnx.split(decoder.blocks)
    parameters = jax.tree.map(lambda leaf: laid(leaf, tuple(range(1, leaf.ndim))), stack)
    return {
        number: Opened(parameters, {name: laid(stack[name]["kernel"].get_value(), (2, 1)) for name in shape.turned})
        for number, shape in nnx.eval_shape(lambda: open_from(decoder, layer)).items()
    }


def _shapes_of(arrays: Any) -> Any:
    return jax.tree.map(lambda x: ShapeDtypeStruct(x.shape, x.dtype), arrays)


def _rome(
    editor: Editor, settings: Any, decoder: Decoder, facts: Facts, metric: ShapeDtypeStruct
) -> tuple[State, FactRows]:
    rows = _shapes_of(fact_rows([_fact(facts)], shape_of([_fact(facts)])))
    return State(RomeFixed(metric, _opened(decoder, settings.layers[-1]))), rows


def _spread(
    editor: Editor, settings: Any, decoder: Decoder, facts: Facts, metric: ShapeDtypeStruct
) -> tuple[State, FactBatch]:
    groups, place = grouped([_fact(facts)] * facts.batch, TOKENS)
    rows = _shapes_of(stacked_rows(groups, shape_of(groups[0])))
    s_0 = metric if getattr(settings, "keep", 1) < 1 else None
    n, room, d_in = len(settings.layers), facts.room, decoder.config.d_ff
    cache = KeyCache(_floats(room, d_in), _floats(room, d_in), _floats(room, room), _integers())
    fixed = SpreadFixed((Metric(metric, _floats(), s_0),) * n, _opened(decoder, settings.layers[-1]))
    return State(fixed, (cache,) * n if editor.choice.remembers else ()), FactBatch(
        rows, _shapes_of(place), _floats(facts.contexts)
    )


def _mend(
    editor: Editor, settings: Any, decoder: Decoder, facts: Facts, metric: ShapeDtypeStruct
) -> tuple[State, Lines]:
    batch = _lines(facts)
    if settings.network:
        stored = load_hypernetwork(find_network(settings.network))
        return State(_shapes_of(stored)), batch
    width, places = decoder.config.d_model + decoder.config.d_ff, len(settings.layers)
    layer = Residual(
        _floats(width, MEND_RANK),
        _floats(MEND_RANK, width),
        _floats(width),
        _floats(places, width),
        _floats(places, width),
    )
    network = Network(layer, layer, _floats(places, width), _floats(places, width))
    steps = dict.fromkeys(places_of(settings.layers), _floats())
    return State(Hypernetwork({"up": network, "down": network}, steps)), batch


def _tuned(
    editor: Editor, settings: Any, decoder: Decoder, facts: Facts, metric: ShapeDtypeStruct
) -> tuple[State, Asked]:
    rows, answers = (facts.batch, facts.tokens), (facts.batch, facts.labels)
    places = (_integers(*rows), _integers(*rows), _integers(*answers), _integers(*answers))
    return State(None), Asked(*places, _floats(*answers))


def _ultraedit(
    editor: Editor, settings: Any, decoder: Decoder, facts: Facts, metric: ShapeDtypeStruct
) -> tuple[State, Answers]:
    width, n = decoder.config.d_ff + decoder.config.d_model, facts.batch * facts.labels
    normal = Normal(_floats(), _floats(width), _floats(width))
    return State(None, normal), Answers(_lines(facts), _integers(n), _flags(n))


def _lines(facts: Facts) -> Lines:
    rows = (facts.batch, facts.tokens)
    return Lines(_integers(*rows), _integers(*rows), _flags(*rows))


INPUTS: Mapping[str, Callable[[Editor, Any, Decoder, Facts, ShapeDtypeStruct], tuple[Any, Any]]] = {
    **dict.fromkeys(("ft-l", "ft-m"), _tuned),
    **dict.fromkeys(("rome", "r-rome"), _rome),
    **dict.fromkeys(("memit", "memit-seq", "emmet", "alphaedit", "nse", "encore", "pmet"), _spread),
    "ultraedit": _ultraedit,
    "mend": _mend,
}
"""By name an editor's state and batch, from the editor, its settings, the decoder, the facts and C^-1 of a layer."""
