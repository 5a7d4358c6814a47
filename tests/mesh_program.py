"""One run of what a mesh must not change, in its own process: logits, second moments, a solve, a restraint, an edit.

python tests/mesh_program.py MODEL_FOLDER OUT.npz [MESH]; the number of devices is the environment's.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from packed import packed, unpacked
from prunejax.contexts import as_contexts
from prunejax.editors import settings_of
from prunejax.editors.memit import memit
from prunejax.editors.moments import second_moments
from prunejax.editors.rome import rome
from prunejax.editors.solve import Metric, solve
from prunejax.evaluate.editing import editing_scores, prepare
from prunejax.mesh import is_first, mesh_of, on_devices, on_host
from prunejax.models.checkpoints import load_model
from prunejax.models.decoder import logits
from prunejax.models.forward import forward_of
from prunejax.requests import EditRequest
from prunejax.restraint import parse, restrained_weight
from prunejax.spectra import sigma_max
from prunejax.update import LowRank, apply, dense
from tiny import TEMPLATES, TEXTS

REQUESTS = (
    EditRequest("one", "I think that this is {}", "Grace Hopper", "Rome", "Paris"),
    EditRequest("two", "The capital of {} is", "France", "Madrid", "Paris"),
)
SETTINGS = {"steps": 30, "clamp": 100.0, "weight_decay": 0.0, "kl_factor": 0.0, "second_moment": "identity"}


def results(folder: Path) -> dict[str, np.ndarray]:
    """What is compared, by name."""
    model, found = load_model(folder), {}
    config, rng = model.config, np.random.default_rng(0)
    ids = rng.integers(0, config.vocab_size, (4, 40)).astype(np.int32)
    positions = np.tile(np.arange(40, dtype=np.int32), (4, 1))
    down, keys = model.decoder.blocks.down.kernel[...], model.decoder.blocks.k.kernel[...]
    found["parts"] = [len({str(part.index) for part in array.addressable_shards}) for array in (down, keys)]
    found["logits"] = jax.jit(logits)(model.decoder, ids, positions)
    moments = second_moments(model, TEXTS * 4, [0, 1])
    for tensor, moment in moments.items():
        found[f"moment {tensor}"] = moment.matrix

    keys, right = rng.normal(size=(3, config.d_ff)), rng.normal(size=(3, config.d_model))
    metric = np.cov(rng.normal(size=(config.d_ff, 400))).astype(np.float32)
    inverse = on_devices(np.linalg.inv(metric).astype(np.float32), "model", None)
    left = solve(Metric(inverse, 10.0), on_devices(keys.astype(np.float32)))
    found["solve"] = left
    tensor = model.family.edited_tensor(0)
    update = LowRank(on_devices(keys.T.astype(np.float32)), on_devices(right.astype(np.float32)))
    weight = model.weight(tensor)
    found["restraint"] = restrained_weight(parse("log:1.5"), weight, update, sigma_max(weight))

    for name, made, contexts, more in (
        ("rome", rome, TEMPLATES, {"layers": (0,)}),
        ("memit", memit, as_contexts([["{}"], list(TEMPLATES[1:])]), {"layers": (0, 1), "moment_weight": 0.01}),
    ):
        editor = made(settings_of(name, SETTINGS | more))
        (batch,) = editor.prepare(model, REQUESTS[:1], contexts, 1)
        with jax.default_matmul_precision("highest"):
            updates, *_ = editor.step(model, editor.init(model, None, 8), batch, None)
        for tensor, one in updates.items():
            found[f"{name} {tensor}"] = dense(one)
        edited = model.with_weights({t: apply(model.weight(t), updates[t]) for t in updates})
        read = unpacked(packed(model, REQUESTS[:1], ("{}",), config.n_positions)[0])
        said = jax.jit(logits)(edited.decoder, read.tokens, read.positions, edited.overrides)[0, read.column[0]]
        found[f"{name} argmax"] = jnp.argmax(said)
        found[f"{name} scores"] = editing_scores(forward_of(edited), prepare(model.tokenizer, REQUESTS))[
            "value"
        ].to_numpy()
    return {name: on_host(array) for name, array in found.items()}


if __name__ == "__main__":
    folder, out, *mesh = sys.argv[1:]
    with mesh_of(mesh[0] if mesh else None):
        arrays = {name: np.ascontiguousarray(array) for name, array in results(Path(folder)).items()}
        if is_first():
            save_file(arrays, out)
