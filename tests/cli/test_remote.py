"""`lossdoctor analyze` of logs that lie elsewhere."""

import sys

import pytest

fsspec = pytest.importorskip("fsspec")

TABLE = "epoch,loss,val_loss\n" + "".join(f"{e},{3 / (e + 1)},{3.1 / (e + 1)}\n" for e in range(40))


@pytest.fixture
def bucket():
    system = fsspec.filesystem("memory")
    system.pipe({"/bucket/a/metrics.csv": TABLE.encode(), "/bucket/b/metrics.csv": TABLE.encode()})
    system.pipe({"/bucket/a/model.safetensors": b"x" * 1000})
    yield "memory://bucket"
    system.rm("/bucket", recursive=True)


def test_logs_elsewhere_are_reported_under_their_address(call, workplace, bucket):
    code, out, err = call("analyze", bucket, "--fail-on", "never")
    assert (code, err) == (0, "")
    assert [line.rpartition("run=")[2] for line in out.splitlines()[-2:]] == [
        "memory://bucket/a/metrics.csv",
        "memory://bucket/b/metrics.csv",
    ]
    code, out, err = call("analyze", f"{bucket}/a/metrics.csv", "--fail-on", "never")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith("memory://bucket/a/metrics.csv: ")


def test_nothing_elsewhere_is_one_line(call, workplace, bucket):
    for address in (f"{bucket}/nowhere", "nonsense://bucket/x"):
        code, _, err = call("analyze", address)
        assert code == 2
        assert err.count("\n") == 1
        assert err.startswith(f"error: {address}: ")


def test_without_fsspec_the_extra_is_named(call, workplace, monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    code, _, err = call("analyze", "s3://bucket/x")
    assert code == 2
    assert "pip install 'lossdoctor[remote]'" in err
