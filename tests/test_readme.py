"""The README's Python, run as it stands on a short run."""

from pathlib import Path

import pytest

from prunejax.cli import main

README = Path(__file__).parents[1] / "README.md"


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main("edit --model world --requests world:2 --editor rome --set steps=2 --out build/run".split())
    assert ended.value.code == 0
    (block,) = [part.partition("```")[0] for part in README.read_text(encoding="utf-8").split("```python\n")[1:]]
    capsys.readouterr()
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["none", "log:e", "scaled-log:e"]
    assert all("'ability:" in line for line in lines)
