import json
import socket
import subprocess
import sys
import threading

import pytest
from packaging.requirements import Requirement

from retrace_pl.cli import main
from retrace_pl.pipeline import doctor
from retrace_pl.pipeline.doctor import Finding, answers, data_sets, examine, extras, package, places


def by_name(findings):
    return {finding.name: finding for finding in findings}


def test_an_audit_can_run_where_the_tests_run(tmp_path, capsys):
    assert main(["doctor", "--offline", "--output", str(tmp_path), "--json"]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert printed.err == ""
    assert report["can_run"]
    states = {finding["name"]: finding["state"] for finding in report["findings"]}
    assert {"python", "torch", "lightning", "cpu", "digits", "output", "disk space", "chromium"} <= states.keys()
    assert "missing" not in states.values()


def test_people_get_lines_with_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("RETRACE_DATA", raising=False)
    assert main(["doctor", "--offline", "--output", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "  note     RETRACE_DATA" in shown
    assert "-> set RETRACE_DATA to a folder" in shown
    assert shown.rstrip().endswith("an audit can run here")


def test_what_is_missing_ends_with_an_error(tmp_path, capsys, monkeypatch):
    broken = Finding("packages", "torch", "missing", "1.0, not >=2.9", "pip install 'torch>=2.9'")
    monkeypatch.setattr(doctor, "packages", lambda: iter([broken]))
    assert main(["doctor", "--offline", "--output", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert "-> pip install 'torch>=2.9'" in printed.out
    assert "1 to mend" in printed.out
    assert printed.err.strip() == "retrace: error: an audit cannot run here: torch"


@pytest.mark.parametrize(
    ("wanted", "state", "remedy"),
    [
        ("pytest>=1", "ok", ""),
        ("pytest<1", "missing", "pip install 'pytest<1'"),
        ("no-such-package>=2,<3", "missing", "pip install 'no-such-package<3,>=2'"),
    ],
)
def test_versions_are_compared_with_their_range(wanted, state, remedy):
    found = package(Requirement(wanted))
    assert (found.state, found.remedy) == (state, remedy)


def test_it_runs_without_torch_and_says_so(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None; from retrace_pl.cli import main; "
        f"sys.exit(main(['doctor', '--offline', '--output', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "missing  torch" in done.stdout
    assert "cannot run here: torch" in done.stderr


def test_it_loads_neither_rich_nor_lightning(tmp_path):
    code = (
        "import sys; from retrace_pl.cli import main; "
        f"main(['doctor', '--offline', '--json', '--output', {str(tmp_path)!r}]); "
        "print([name for name in ('rich', 'lightning', 'jsonargparse') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_data_sets_in_the_data_folder_are_named(tmp_path, monkeypatch):
    (tmp_path / "FashionMNIST").mkdir()
    (tmp_path / "cifar100" / "cifar-100-python").mkdir(parents=True)
    monkeypatch.setenv("RETRACE_DATA", str(tmp_path))
    found = by_name(data_sets(offline=True))
    assert found["RETRACE_DATA"].value == f"{tmp_path}: Fashion-MNIST, CIFAR-100"
    assert found["hub"].state == "note"
    monkeypatch.setenv("RETRACE_DATA", str(tmp_path / "nowhere"))
    assert by_name(data_sets(offline=True))["RETRACE_DATA"].remedy == "mend or unset RETRACE_DATA"


def test_a_hub_that_does_not_answer_is_no_error(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(doctor, "answers", lambda endpoint: False)
    hub = by_name(data_sets())["hub"]
    assert hub.state == "note"
    assert "offline" in hub.value
    assert "RETRACE_DATA" in hub.remedy


def test_a_hub_answers_where_something_listens(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert answers(f"http://127.0.0.1:{port}", timeout=2.0)
    assert not answers(f"http://127.0.0.1:{port}", timeout=2.0)


def test_a_name_that_cannot_be_looked_up_is_not_waited_for(monkeypatch):
    answered = threading.Event()

    def look_up(*arguments):
        answered.wait(60)
        raise socket.gaierror

    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.setattr(doctor.socket, "create_connection", look_up)
    assert not answers("https://nowhere.invalid", timeout=0.1)
    answered.set()


def test_an_output_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    found = by_name(places(tmp_path / "file"))["output"]
    assert (found.state, found.remedy) == ("missing", "choose another folder with --output")
    assert by_name(places(tmp_path / "new" / "runs"))["output"].state == "ok"
    assert not (tmp_path / "new").exists()


def test_little_space_is_told(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 0.5e9})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    assert by_name(places(tmp_path))["disk space"].state == "missing"


def test_optional_parts_never_prevent_an_audit(monkeypatch):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    found = list(extras())
    assert {finding.state for finding in found} == {"note"}
    assert by_name(found)["rl"].remedy == "pip install 'retrace_pl[rl]'"


def test_every_finding_that_is_not_there_has_a_remedy(tmp_path):
    for finding in examine(tmp_path, offline=True):
        assert finding.state == "ok" or finding.remedy or finding.name in ("cuda", "hub"), finding
