"""README.md does what it says: every snippet runs as printed, every table is current, every command exists."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(?P<language>\w*)(?P<tags>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
RULES = re.compile(r"<!-- rules: begin \((?P<command>.*?)\) -->\n(?P<table>.*?)<!-- rules: end -->", re.DOTALL)


class Snippet(NamedTuple):
    """A fenced block: its language, its text, and the line of README.md on which the text begins."""

    language: str
    code: str
    line: int


def _snippets() -> list[Snippet]:
    return [
        Snippet(found["language"], found["code"], README.count("\n", 0, found.start("code")) + 1)
        for found in FENCE.finditer(README)
    ]


def _run(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command as a reader types it; `lossdoctor` is the one of this environment."""
    name, *arguments = command.split()
    assert name == "lossdoctor", f"README runs {name!r}, which this test does not"
    program = [sys.executable, "-m", "lossdoctor", *arguments]
    environment = os.environ | {"COLUMNS": "80", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        program, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=120, encoding="utf-8"
    )


def _commands(code: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output printed below it."""
    parts = re.split(r"^\$ (.*)\n", code, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def test_every_snippet_runs_as_printed(tmp_path, monkeypatch):
    """In order, as someone reads: Python blocks share a namespace, console blocks a directory."""
    shutil.copytree(ROOT / "sample_runs", tmp_path / "sample_runs")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "readme"}
    ran = set()
    for language, code, line in _snippets():
        ran.add(language)
        if language == "python":
            # Padded with empty lines, so that a traceback names the line of README.md.
            exec(compile("\n" * (line - 1) + code, "README.md", "exec"), namespace)  # noqa: S102
        elif language == "console":
            for command, printed in _commands(code):
                done = _run(command, tmp_path)
                assert done.returncode in {0, 1}, f"README.md:{line}: {command}: {done.stderr}"
                assert not done.stderr, f"README.md:{line}: {command}: {done.stderr}"
                if printed:
                    assert done.stdout.rstrip() == printed.rstrip(), f"README.md:{line}: {command}"
        elif language == "toml":
            (tmp_path / "lossdoctor.toml").write_text(code, encoding="utf-8")
        else:
            assert language == "sh", f"README.md:{line}: a block of {language!r} is not tested"
    assert ran >= {"sh", "python", "console"}


def test_the_shell_commands_for_setting_up_exist():
    """They set up environments, so they are not run from inside one: the targets and extras they name must exist."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for _, code, line in (snippet for snippet in _snippets() if snippet.language == "sh"):
        for command in code.splitlines():
            words = command.partition("#")[0].split()
            if words[0] == "make":
                assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), f"README.md:{line}: {command}"
            else:
                assert words[:2] == ["pip", "install"], f"README.md:{line}: {command}"
                for extra in re.findall(r"\[(\w+)\]", command):
                    assert re.search(rf"^{extra} = \[", project, re.MULTILINE), f"README.md:{line}: {command}"


def test_the_table_of_rules_is_current():
    found = RULES.search(README)
    assert found, "the markers are gone"
    done = _run(found["command"], ROOT)
    assert done.returncode == 0, done.stderr
    assert found["table"].strip() == done.stdout.strip(), f"put the output of `{found['command']}` between the markers"


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_to_files_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert not [link for link in links if not (ROOT / link).exists()]
