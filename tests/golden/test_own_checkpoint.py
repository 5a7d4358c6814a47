"""The notebook "How do I edit my own checkpoint?" on somebody's checkpoint, top to bottom, by its parameters alone."""

import json
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "20_how_do_i_edit_my_own_checkpoint.ipynb"


def test_it_runs_on_a_trained_llama(shared: Path, tmp_path: Path) -> None:
    requests = [
        {"prompt": "Once upon a time, there was a little girl named {}. She loved to play with her"}
        | {"subject": "Lily", "target_new": "dragon"},
        {"prompt": "{} was very sad because he lost his", "subject": "Tim", "target_new": "piano"},
    ]
    (tmp_path / "requests.jsonl").write_text("\n".join(map(json.dumps, requests)), encoding="utf-8")
    parameters = {
        "model": str(shared / "data" / "models" / "TinyStories-656K"),
        "text": str(shared / "data" / "text" / "tinyshakespeare_input.txt"),
        "requests": str(tmp_path / "requests.jsonl"),
        "editor": "rome",
        "preset": "",
        "settings": {"layers": "0", "steps": 40, "clamp": 50.0, "weight_decay": 0.0},
        "restraint": "log:1.2",
        "keys_a_dimension": 20,
        "seed": 0,
    }
    notebook = nbformat.read(NOTEBOOK, 4)
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    assert all(name in cell.source for name in parameters)
    cell.source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    text = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", ()))
    assert "holds: the exported folder says what the run measured" in text
    assert "holds: the small file gives the same bits as the folder" in text
    assert "does not hold" not in text
