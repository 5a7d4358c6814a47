"""Which cases there are, and what each needs: names to functions that measure."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from benchmarks import yardstick
from benchmarks.cases_edits import BATCH, Extent, cpu_job, gpu_job, memit_case, rome_case
from benchmarks.cases_moments import moments_case
from benchmarks.cases_saving import saving_case
from benchmarks.cases_spectra import GPT2_XL, LLAMA_3, kappa_case, restraint_case
from benchmarks.cases_world import world_case
from benchmarks.measurements import Measurement
from benchmarks.recipe import Job
from benchmarks.sides import side
from prunejax.sources import WORLD_FOLDER, find_text

Case = Callable[[], list[Measurement]]
CORES, HOST_CORES = 2, 16
"""Cores of a side on the CPU, and of the host of a GPU."""
LONG = ("saving", "world-long")
"""Cases that run only when they are named."""


def cpu_cases(shared: Path, folder: Path, extent: Extent) -> Mapping[str, Case]:
    """The cases of the CPU. The yardstick is GPT-2's (124M) shapes; it is made in `folder` for the first that asks."""

    @cache
    def made() -> Path:
        words = (yardstick.gpt2_small(), yardstick.gpt2_tokenizer(shared), yardstick.counterfact(shared, BATCH))
        with side(CORES) as call:
            call(yardstick.make, folder, *words, cpu_job(folder, "memit").recipe.layers)
        return folder

    def restraint() -> list[Measurement]:
        with side(1) as me, side(1) as other:
            return restraint_case(me, other, GPT2_XL, 200)

    def kappa() -> list[Measurement]:
        with side(1) as me, side(1) as other:
            return kappa_case(me, other, GPT2_XL)

    def moments_gpt2() -> list[Measurement]:
        with side(CORES) as me:
            texts = yardstick.wiki_lines(shared)
            return moments_case(me, "moments-gpt2", made() / "model", texts, 5, 8_192, CORES)

    def moments_world() -> list[Measurement]:
        with side(CORES) as me:
            return moments_case(me, "moments-world", WORLD_FOLDER, list(find_text("world")), 1, 32_768, CORES)

    def world(name: str, n: int) -> list[Measurement]:
        with side(CORES) as me:
            return world_case(me, name, n, CORES)

    def saving() -> list[Measurement]:
        rows = []
        for editor in ("rome", "alphaedit"):
            with side(CORES) as me:
                rows += saving_case(me, editor, "world", "world:300", CORES)
        return rows

    return {
        "rome": lambda: side_by_side(rome_case, cpu_job(made(), "rome"), extent, CORES),
        "memit": lambda: side_by_side(memit_case, cpu_job(made(), "memit"), extent, CORES),
        "restraint": restraint,
        "kappa": kappa,
        "moments-gpt2": moments_gpt2,
        "moments-world": moments_world,
        "world": lambda: world("world", 1_000),
        "saving": saving,
        "world-long": lambda: world("world-long", 10_000),
    }


def gpu_cases(shared: Path, folder: Path, extent: Extent) -> Mapping[str, Case]:
    """The cases of one GPU, at Llama-3-8B's shapes with GPT-2's tokenizer and C = I. Both sides stay on the card at
    once, so that MEMIT in float32, the last, takes some 80 GB. The reference restraint is on the host, as published."""

    @cache
    def made() -> Path:
        words = (yardstick.llama_3_8b(), yardstick.gpt2_tokenizer(shared), yardstick.counterfact(shared, BATCH))
        with side(HOST_CORES) as call:
            call(yardstick.make, folder, *words, ())
        return folder

    def edits(name: str, dtype: str, case: Callable[..., list[Measurement]]) -> Case:
        return lambda: side_by_side(case, gpu_job(made(), name, dtype), extent, HOST_CORES)

    def restraint() -> list[Measurement]:
        with side(HOST_CORES, "gpu") as me, side(HOST_CORES) as other:
            return restraint_case(me, other, LLAMA_3, 1_000)

    return {
        "rome-bfloat16": edits("rome", "bfloat16", rome_case),
        "memit-bfloat16": edits("memit", "bfloat16", memit_case),
        "rome-float32": edits("rome", "float32", rome_case),
        "restraint": restraint,
        "memit-float32": edits("memit", "float32", memit_case),
    }


def side_by_side(case: Callable[..., list[Measurement]], job: Job, extent: Extent, cores: int) -> list[Measurement]:
    """A case of editing, each side in its own process."""
    with side(cores, job.device) as me, side(cores, job.device) as pytorch:
        return case(me, pytorch, job, extent, cores)
