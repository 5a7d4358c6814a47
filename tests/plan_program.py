"""What a plan foresees beside what XLA says of the compiled program and what a process holds, as JSON, in a process of
its own.

python tests/plan_program.py edit NAME LAYER: an edit at GPT-2's (124M) shapes, in MB.
python tests/plan_program.py forward MESH: a forward pass on virtual devices, bytes a device by family.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from prunejax.abstract import Facts, abstract_mesh, default_contexts, edit_arguments
from prunejax.editors import editor_row, settings_of
from prunejax.liveness import temporary_bytes
from prunejax.mesh import make_mesh
from prunejax.models.decoder import logits
from prunejax.plan import device_bytes, forecast, layout_of, trace_edit
from tiny_plans import model_of, on_one_device

MB = 1e6


def resident() -> float:
    """The most that this process has held so far, in MB. Linux says it of this program alone; what getrusage says
    begins with what the process held that started it."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    held = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return (held[0] if held else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024 / MB


def edit(name: str, layer: int) -> dict[str, float]:
    """An edit: planned, compiled, and run with every number 0.01."""
    mesh, facts = abstract_mesh(None), Facts(default_contexts(name))
    model = model_of("gpt2", n_layers=12, d_model=768, vocab_size=50257)
    settings = settings_of(name, {"layers": (layer,), "steps": 2})
    editor = editor_row(name).make(settings)
    arguments = on_one_device(edit_arguments(model, name, editor, settings, facts, mesh))
    planned = forecast(model, name, settings, facts, mesh)
    held = {"imported": resident()}
    compiled = trace_edit(model, editor, arguments, mesh).lower().compile()
    took = compiled.memory_analysis()
    held["compiled"] = resident()
    given = jax.block_until_ready(
        jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01 if leaf.dtype == jnp.float32 else 1, leaf.dtype), arguments)
    )
    held["filled"] = resident()
    jax.block_until_ready(compiled(*given))
    held["edited"] = resident()
    # The unedited kernels are not this program's: a run keeps them beside it.
    held["planned"] = (planned.at_peak - device_bytes(arguments.weights, mesh)) / MB
    held["xla"] = (took.argument_size_in_bytes + took.output_size_in_bytes + took.temp_size_in_bytes) / MB
    return held


def forward(text: str) -> dict[str, dict[str, int]]:
    """A forward pass: what the arguments take, and what the outputs and temporaries do, planned and compiled."""
    return {kind: _forward(kind, text) for kind in ("gpt2", "llama")}


def _forward(kind: str, text: str) -> dict[str, int]:
    mesh, devices = abstract_mesh(text), make_mesh(text)
    model = model_of(kind, n_layers=8, d_model=256, vocab_size=2048, mesh=mesh)
    rows = jax.ShapeDtypeStruct((16, 64), jnp.int32)
    arguments = (model.decoder, rows, rows)

    def placed(leaf: Any) -> jax.ShapeDtypeStruct:
        spec = PartitionSpec(*layout_of(leaf))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(devices, spec))

    with jax.sharding.use_abstract_mesh(mesh):
        traced = jax.jit(logits).trace(*jax.tree.map(placed, arguments))
    took = traced.lower().compile().memory_analysis()
    layouts = [layout_of(leaf) for leaf in jax.tree.leaves(arguments)]
    return {
        "arguments planned": device_bytes(arguments, mesh),
        "arguments": took.argument_size_in_bytes,
        "planned": temporary_bytes(traced.jaxpr.jaxpr, layouts, mesh.shape),
        "xla": took.output_size_in_bytes + took.temp_size_in_bytes,
    }


if __name__ == "__main__":
    _, what, *words = sys.argv
    sys.stdout.write(json.dumps(edit(words[0], int(words[1])) if what == "edit" else forward(words[0])))
