import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
ABSOLUTE = re.compile(
    r"""(?<![\w./:<])/(?:home|root|Users|tmp|work|mnt|media|opt|srv|var|usr|etc|data|private|content|kaggle)/"""
    r"""|\b[A-Za-z]:\\|(?<!\w)~/|file://"""
)

STRIP = (
    "strip it before committing: jupyter nbconvert --inplace --clear-output --ClearMetadataPreprocessor.enabled=True "
    """--ClearMetadataPreprocessor.preserve_nb_metadata_mask='{("language_info","name"),"kernelspec"}' FILE"""
)

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def sources(notebook, kind):
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_there_are_notebooks():
    assert NOTEBOOKS


@every_notebook
def test_notebook_is_valid(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-zA-Z0-9-_]{1,64}", name) for name in ids)
    assert sources(notebook, "markdown")[0].startswith("# ")
    for code in sources(notebook, "code"):
        ast.parse(code)


@every_notebook
def test_notebook_follows_the_schema(path):
    nbformat = pytest.importorskip("nbformat", reason="needs the extra `notebooks`")
    nbformat.validate(json.loads(path.read_text(encoding="utf-8")))


@every_notebook
def test_notebook_is_stripped(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["metadata"] == METADATA, STRIP
    for cell in notebook["cells"]:
        assert cell["metadata"] == {}, cell["id"]
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], f"cell {cell['id']} has outputs; {STRIP}"
            assert cell["execution_count"] is None, f"cell {cell['id']} was executed; {STRIP}"


@every_notebook
def test_notebook_has_no_absolute_path(path):
    assert ABSOLUTE.findall(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("text", ['Path("/home/me/x")', "/tmp/run", r"C:\\data", "open('~/x')", "see file:///x"])
def test_absolute_paths_are_recognised(text):
    assert ABSOLUTE.search(text)


@pytest.mark.parametrize("text", ["https://host.org/home/x", "runs/first_audit", "and/or", "a / b", "`runs/data/x`"])
def test_other_slashes_are_not_taken_for_paths(text):
    assert not ABSOLUTE.search(text)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("default")  # Jupyter's own packages warn about one another; a cell's error still fails
@every_notebook
def test_notebook_runs(path, tmp_path, monkeypatch):
    pytest.importorskip("ipykernel", reason="needs the extra `notebooks`")
    nbclient = pytest.importorskip("nbclient", reason="needs the extra `notebooks`")
    import nbformat

    # The tests draw without a screen; a notebook has to show its figures.
    monkeypatch.delenv("MPLBACKEND", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = path.read_bytes()
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert path.read_bytes() == before
    cells = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}
    for name, cell in cells.items():
        assert not [output.text for output in cell.outputs if output.get("name") == "stderr"], name
        draws = "plt.show()" in cell.source or "display(Image(" in cell.source
        pictures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        assert len(pictures) == draws, f"cell {name} shows {len(pictures)} figures"
    runs = sorted((tmp_path / "runs").glob("*/metrics.json"))
    for metrics in runs:
        assert json.loads(metrics.read_text())["verdict"] != "invalid"
        assert metrics.with_name("report.html").is_file()
    assert runs
