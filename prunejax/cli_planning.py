"""The verb that says what an edit will take, from shapes alone."""

from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table

from prunejax.options import DTYPE, assignments, finite

PREFIXES = (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))

COUNT = click.IntRange(min=1)


@click.command(epilog="Example: prunejax plan --model llama-3-8b --editor memit --dtype bfloat16 --batch 100")
@click.option("--model", required=True, help="gpt2-xl, gpt-j-6b, llama-2-7b, llama-3-8b, a folder, or a config.json")
@click.option("--editor", required=True, help="which editing method: see prunejax edit --help")
@DTYPE
@click.option("--mesh", help="devices that share the model and the rows of a batch: data=1,model=8")
@click.option("--preset", help="published settings by name; the default is the model's own where it has some")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="one hyper-parameter, may be repeated")
@click.option("--batch", type=COUNT, default=1, show_default=True, help="requests edited at once")
@click.option(
    "--edits", type=COUNT, default=1000, show_default=True, help="of the whole run, whose keys some editors remember"
)
@click.option("--templates", type=COUNT, help="contexts of a request; the default is as many as edit samples")
@click.option("--tokens", type=COUNT, default=40, show_default=True, help="in the longest prompt with its context")
@click.option("--suffix", type=COUNT, default=20, show_default=True, help="of these from the subject's last on")
@click.option("--labels", type=COUNT, default=4, show_default=True, help="tokens of the longest target")
@click.option(
    "--throughput",
    type=click.FloatRange(min=0, min_open=True),
    callback=finite,
    default=1e14,
    show_default="1e14",
    help="floating-point operations a second that the device reaches",
)
def plan(
    model: str,
    editor: str,
    dtype: str,
    mesh: str | None,
    preset: str | None,
    settings: Sequence[str],
    batch: int,
    edits: int,
    templates: int | None,
    tokens: int,
    suffix: int,
    labels: int,
    throughput: float,
) -> None:
    """Say what an edit takes before any weight is there: parameters, memory, operations, time.

    The program that edits is traced on shapes; nothing is downloaded, compiled or run. Operations and time assume that
    no edit stops before its last step; memory is what is live, without what a runtime takes for itself.
    """
    from prunejax.abstract import Facts, abstract_mesh, abstract_model, default_contexts
    from prunejax.editors import editor_row, settings_of
    from prunejax.models.presets import PRESETS, preset_settings
    from prunejax.plan import forecast

    editor_row(editor)
    preset = preset or next((row.name for row in PRESETS if row.name == model and editor in row.editors), None)
    chosen = settings_of(editor, dict(preset_settings(preset, editor) if preset else {}) | assignments(settings))
    facts = Facts(templates or default_contexts(editor), tokens, suffix, labels, batch, edits)
    devices = abstract_mesh(mesh)
    found = forecast(abstract_model(model, dtype, devices), editor, chosen, facts, devices)
    searched = f"all {chosen.steps} steps" if hasattr(chosen, "steps") else "no search"
    each = "" if found.devices == 1 else " a device"
    rows = [
        ("parameters", f"{sum(found.parameters.values()):,}", ""),
        *((f"  {part}", f"{count:,}", "") for part, count in found.parameters.items()),
        (f"memory{each} at rest", scaled(found.at_rest, "B"), "between two edits"),
        ("  weights", scaled(found.weights, "B"), dtype),
        ("  edited kernels", scaled(found.kernels, "B"), "float32, as they were and as they are"),
        ("  state", scaled(found.state, "B"), f"float32, what {editor} keeps"),
        (f"memory{each} at peak", scaled(found.at_peak, "B"), "during an edit"),
        ("  temporary", scaled(found.temporary, "B"), "beside all that, at the fullest moment"),
        ("operations an edit", scaled(found.flops / batch, "FLOP"), searched),
        ("time an edit", f"{found.seconds(throughput):.3g} s", f"at {scaled(throughput, 'FLOP')}/s{each}"),
    ]
    title = f"{editor} on {model}, {f'preset {preset}' if preset else 'no preset'}"
    shapes = (
        f"{batch} at once, in {facts.contexts} contexts of at most {tokens} tokens, {suffix} from the subject's last "
        f"on, targets of at most {labels}"
    )
    grid = Table(title=title, caption=shapes, title_justify="left", caption_justify="left", show_header=False)
    for side in ("left", "right", "left"):
        grid.add_column(justify=side)
    for row in rows:
        grid.add_row(*row)
    Console(width=110).print(grid)


def scaled(number: float, unit: str) -> str:
    """A number with three digits and a decimal prefix: 1 GB is 10^9 bytes."""
    prefix, size = next(((p, s) for p, s in PREFIXES if number >= s), ("", 1.0))
    return f"{number / size:.2f} {prefix}{unit}"


PLANNING = (plan,)
"""The one verb of this file."""
