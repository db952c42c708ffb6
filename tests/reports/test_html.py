"""The page: complete, self-contained, small, and deaf to what a log tells it to do."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import msgspec
import numpy as np
import pytest

from lossdoctor.reports import html
from lossdoctor.reports.html import fragment
from lossdoctor.reports.picture import picture_of
from lossdoctor.reports.views import view_of
from lossdoctor.rulebook import Rulebook
from lossdoctor.runs.info import LayerInfo, ModelInfo, RunInfo
from lossdoctor.runs.tables import Column, Run, Table
from tests.reports.strangers import EVIL, strange_run

VOID = {"meta", "img", "br", "hr", "input", "link", "path", "rect", "line"}


class Reader(HTMLParser):
    """Collects tags with their attributes and the text; fails on tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open[-1:]):
            self.text.append(data)

    @property
    def words(self):
        return " ".join("".join(self.text).split())


@pytest.fixture(scope="module")
def strange():
    run, diagnosis = strange_run()
    return html.page([(diagnosis, picture_of(run, diagnosis))] * 2)


def test_everything_a_diagnosis_says_is_on_the_page(examples):
    for diagnosis, run in (examples["divergence"], examples["vanishing_gradient"], examples["undecided"]):
        page = Reader(html.page([(diagnosis, picture_of(run, diagnosis) if run else None)]))
        first = {finding.rule: finding.message for finding in reversed(diagnosis.findings)}
        said = [*first.values(), *diagnosis.passed, *diagnosis.reasons]
        said += [fix.advice for finding in diagnosis.findings for fix in finding.prescriptions]
        said += [why.reason for why in diagnosis.undecided] + [act.action for act in diagnosis.interventions]
        for text in said:
            assert " ".join(text.split()) in page.words


def test_the_verdict_comes_before_the_findings_and_these_before_what_passed(examples):
    diagnosis, run = examples["divergence"]
    page = html.page([(diagnosis, picture_of(run, diagnosis))])
    places = [page.index(part) for part in ("<h1>", "<h2>Findings", "What was done", "<b>Passed", "<b>Not checked")]
    assert places == sorted(places)


def test_consequences_are_folded_under_their_cause(examples):
    diagnosis, run = examples["divergence"]
    page = html.page([(diagnosis, picture_of(run, diagnosis))])
    inside = page[page.index('<details class="consequences">') :].partition("</article>")[0]
    assert "Exploding gradient" in inside
    assert "Loss spike" in inside


def test_rules_give_a_finding_its_explanation_and_its_sources(examples):
    rule = next(rule for rule in Rulebook.load().rules.values() if rule.sources)
    diagnosis, run = examples["divergence"]
    finding = msgspec.structs.replace(diagnosis.findings[0], rule=rule.id)
    diagnosis = msgspec.structs.replace(diagnosis, verdict=rule.id, findings=[finding])
    page = Reader(html.page([(diagnosis, picture_of(run, diagnosis))], rules={rule.id: rule}))
    assert " ".join(rule.explain.split("\n\n")[0].split()) in page.words
    assert " ".join(rule.sources[0].split()) in page.words


def test_nothing_is_loaded_and_only_our_own_script_and_style_may_run(examples):
    page = html.page([(examples["healthy"][0], None)])
    reader = Reader(page)
    policy = next(of["content"] for tag, of in reader.tags if of.get("http-equiv") == "Content-Security-Policy")
    rules = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for tag, of in reader.tags:
        assert not {"src", "style", "srcset", "action"} & set(of), tag
        assert not [name for name in of if name.startswith("on")]
        assert of.get("href", "#").startswith("#")
    for kind in ("script", "style"):
        (body,) = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"
        assert "http" not in body.replace("http://www.w3.org/2000/svg", "")


def test_text_of_a_log_stays_text(strange):
    reader = Reader(strange)
    names = {tag for tag, _ in reader.tags}
    assert not names & {"img", "iframe", "object", "embed", "base", "form", "link", "b onload"}
    assert [tag for tag, _ in reader.tags].count("script") == 1
    assert [tag for tag, _ in reader.tags].count("style") == 1
    for text in (*EVIL[:6], "{{ 7 * 7 }}", "../../../../etc/passwd", "$\\frac{1}{0}$", "&lt;b&gt;"):
        assert text in reader.words


def test_what_cannot_be_seen_is_spelled_out(strange):
    assert "\\u202efdp.exe" in strange
    assert "\\x1b[2J" in strange
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", strange)
    strange.encode("utf-8")


def test_no_text_of_a_log_is_part_of_an_id_or_a_link(strange):
    for _, of in Reader(strange).tags:
        for name in ("id", "href", "data-finding", "class"):
            assert re.fullmatch(r"[#\w\s-]*", of.get(name) or ""), of


def _long_run(steps):
    rng = np.random.default_rng(0)
    names = ("train_loss", "train_accuracy", "learning_rate", "grad_norm", "grad_norm_clipped", "update_ratio")
    names += ("loss_scale", "samples_per_second")
    columns = {name: Column(rng.random(steps, np.float32)) for name in names}
    layers = [LayerInfo(name=f"blocks.{n}.attention.query", type="L", parameters=1, trainable=1) for n in range(100)]
    ticks = np.arange(0.0, steps, max(1, steps // 2000))
    heat = {name: Column(rng.lognormal(0, 3, (len(ticks), 100)).astype(np.float32))
            for name in ("layer_grad_to_param", "layer_update_ratio")}  # fmt: skip
    return Run(
        "long",
        html.__file__,
        RunInfo(model=ModelInfo(layers=layers), config={f"key_{n}": "x" * 200 for n in range(1000)}),
        Table({"step": Column(np.arange(1.0, steps + 1)), **columns}),
        layers=Table({"step": Column(ticks), **heat}),
    )


@pytest.mark.parametrize("steps", [1000, 1_000_000])
def test_a_page_stays_under_half_a_megabyte_however_long_and_noisy_the_run(steps, examples):
    run = _long_run(steps)
    diagnosis = msgspec.structs.replace(examples["divergence"][0], config=run.info.config)
    page = html.page([(diagnosis, picture_of(run, diagnosis))], rules=Rulebook.load().rules)
    assert len(page.encode()) <= 500_000


def test_several_runs_have_an_overview_with_a_curve_and_a_link_each(examples):
    runs = [(diagnosis, picture_of(run, diagnosis) if run else None) for diagnosis, run in examples.values()]
    page = html.page(runs)
    reader = Reader(page)
    links = [of["href"] for tag, of in reader.tags if tag == "a"]
    assert links == [f"#run-{number}" for number in range(1, len(runs) + 1)]
    assert {of.get("id") for _, of in reader.tags} >= {link[1:] for link in links}
    assert page.count('class="spark"') == len(runs)


def test_accepted_findings_say_so(examples):
    diagnosis, _ = examples["divergence"]
    known = msgspec.structs.replace(diagnosis, accepted=["divergence"])
    assert "accepted" in Reader(html.page([(known, None)])).words
    assert "accepted" not in Reader(html.page([(diagnosis, None)])).words


def test_a_fragment_for_a_notebook_has_no_script_and_styles_nothing_else(examples):
    diagnosis, run = examples["divergence"]
    part = fragment(view_of(diagnosis, picture_of(run, diagnosis)))
    reader = Reader(part)
    assert "script" not in {tag for tag, _ in reader.tags}
    (style,) = re.findall(r"<style>(.*?)</style>", part, re.DOTALL)
    depth, selector, tops = 0, "", []
    for char in re.sub(r"/\*.*?\*/", "", style, flags=re.DOTALL):
        if char == "{" and depth == 0:
            tops.append(selector.strip())
        depth += {"{": 1, "}": -1}.get(char, 0)
        selector = "" if char in "{}" else selector + char
    assert depth == 0
    assert all(".lossdoctor" in top or top.startswith("@media") for top in tops), tops


def test_equal_runs_give_equal_pages(examples):
    diagnosis, run = examples["divergence"]
    assert html.page([(diagnosis, picture_of(run, diagnosis))]) == html.page([(diagnosis, picture_of(run, diagnosis))])
