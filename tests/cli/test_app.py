"""The command as a whole."""

import builtins

import lossdoctor


def test_version_is_printed(call):
    assert call("--version") == (0, f"lossdoctor {lossdoctor.__version__}\n", "")


def test_without_a_verb_help_is_shown_and_the_exit_code_is_2(call):
    code, out, _ = call()
    assert code == 2
    for verb in ("analyze", "rules", "demo"):
        assert verb in out


def test_help_exits_with_0(call):
    assert call("--help")[0] == call("analyze", "-h")[0] == call("rules", "list", "--help")[0] == 0


def test_an_unknown_verb_is_one_line(call):
    code, out, err = call("analise")
    assert (code, out) == (2, "")
    assert err.startswith("error: No such command 'analise'")
    assert err.count("\n") == 1


def test_the_module_is_the_command(process):
    result = process("-m", "lossdoctor", "--version")
    assert (result.returncode, result.stdout.decode()) == (0, f"lossdoctor {lossdoctor.__version__}\n")


def test_the_demo_without_its_packages_says_what_to_install(call, monkeypatch):
    real = builtins.__import__

    def without_torch(name, *arguments, **options):
        if name.partition(".")[0] in {"torch", "lossdoctor.demo"} or name == "lossdoctor.demo":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    assert call("demo") == (2, "", "error: the demo needs torch; install it with: pip install lossdoctor[demo]\n")
