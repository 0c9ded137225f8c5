"""Pages in a headless Chromium: no error, no request, every plot drawn, buttons that do what they say, text stays text.

A probe is put into a copy of the page: it notes errors from the start, presses buttons at the end, and leaves what it
found in the document, which Chromium prints.
"""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.forecast.test_lines import world
from tests.planted.enumerable import World
from tests.report.test_report import made_study
from tests.report.written import write_report
from tiltlab.evaluation.run import from_elsewhere
from tiltlab.forecast.forecast import base_forecast
from tiltlab.report.compare import compare_runs, write_comparison
from tiltlab.report.evaluation import write_evaluation_page
from tiltlab.report.forecast import write_forecast_page
from tiltlab.report.verdict import write_verdict_page
from tiltlab.storage.files import read_json, write_text
from tiltlab.tasks.sums import Sums
from tiltlab.verdict.verdict import Evidence, decide

EVIL = "<script>alert(1)</script>"
LINE = {"problem": "p0", "logp": [-0.1, -5.0], "ref_logp": [-0.1, -0.2], "ranks": [0, 1], "pieces": ["so ", EVIL]}
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")

EARS = """<script>
window.heard = []; addEventListener("error", e => heard.push(e.message)); alert = m => heard.push(m);
</script>"""
PROBE = """<script>addEventListener("load", () => {
  const all = selector => [...document.querySelectorAll(selector)];
  const drawn = () => all(".plot").filter(plot => plot.querySelector(".main-svg")).length;
  const hidden = () => all(".plot").flatMap(plot => plot.data).filter(trace => trace.visible === false).length;
  const found = { plots: all(".plot").length, drawn: drawn(), hidden: [hidden()], shift: [] };
  const name = all(".legend button")[0], colours = all("[data-colour]");
  if (name) for (let i = 0; i < 2; i++) { name.click(); found.hidden.push(hidden()); }
  for (const button of [...colours].reverse()) { button.click(); found.shift.push(document.body.className); }
  found.requests = performance.getEntriesByType("resource").map(entry => entry.name);
  found.heard = heard;
  const told = document.createElement("pre");
  told.id = "told";
  told.textContent = JSON.stringify(found);
  document.body.append(told);
});</script>"""


def probed(page: Path) -> dict[str, Any]:
    assert CHROMIUM is not None
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < 6e6
    copy = page.with_name("probed.html")
    copy.write_text(text.replace("<head>", "<head>" + EARS, 1).replace("</body>", PROBE + "</body>"), encoding="utf-8")
    quiet = "--headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run"
    once = f"--user-data-dir={page.parent / 'profile'} --virtual-time-budget=10000 --dump-dom"
    arguments = [CHROMIUM, *quiet.split(), *once.split(), copy.as_uri()]
    dom = subprocess.run(arguments, capture_output=True, text=True, timeout=600, check=True).stdout
    told = re.search(r'<pre id="told">(.*?)</pre>', dom, re.DOTALL)
    assert told, dom[-2000:]
    found: dict[str, Any] = json.loads(html.unescape(told[1]))
    return found


def test_the_page_of_a_study(tmp_path: Path) -> None:
    run = made_study(tmp_path / "run", text=EVIL)
    write_text(run / "cells" / "lazy-sum" / "base" / "seed-0" / "tokens-last.jsonl", json.dumps(LINE) + "\n")
    found = probed(write_report(run))
    assert found["heard"] == found["requests"] == []
    assert found["plots"] == found["drawn"] > 8
    none, some, again = found["hidden"]
    assert none == again == 0
    assert some > 0
    assert found["shift"] == ["by-shift", ""]


def test_the_page_of_a_verdict(tmp_path: Path) -> None:
    enumerated = World.make("lazy", 0, 20)
    base, _ = enumerated.drawn(enumerated.logp_PS, 8, 1)
    tuned = [replace(record, text=EVIL) for record in enumerated.drawn(enumerated.taught(), 8, 2)[0]]
    made = {"command": ["tiltlab", EVIL], "versions": {}, "python": "3", "machine": "x", "commit": None}
    tokens = {side: [LINE | {"problem": base[0].problem}] for side in ("base", "tuned")}
    page = tmp_path / "page.html"
    write_verdict_page(decide(Evidence(base, tuned)), base, tuned, tokens, {}, made, page)
    found = probed(page)
    assert found["heard"] == found["requests"] == []
    assert found["plots"] == found["drawn"] == 7
    assert found["shift"] == ["by-shift", ""]


def test_the_page_of_a_comparison(tmp_path: Path) -> None:
    runs = [made_study(tmp_path / name, text=EVIL) for name in ("one", "two")]
    found = probed(write_comparison(compare_runs(runs), tmp_path / "out"))
    assert found["heard"] == found["requests"] == []
    assert found["plots"] == found["drawn"] == 2


def test_the_page_of_an_evaluation(tmp_path: Path) -> None:
    task = Sums("noisy-sum")
    problem = task.problems("test")[0]
    file = tmp_path / "responses.jsonl"
    write_text(file, json.dumps({"problem": problem.id, "text": EVIL}) + "\n")
    from_elsewhere(file, task, tmp_path / "out")
    write_text(tmp_path / "out" / "tokens.jsonl", json.dumps(LINE | {"problem": problem.id}) + "\n")
    about = read_json(tmp_path / "out" / "sample.json") | {"recipe": {"reference": "base"}}
    write_text(tmp_path / "out" / "sample.json", json.dumps(about))
    found = probed(write_evaluation_page(tmp_path / "out"))
    assert found["heard"] == found["requests"] == []
    assert found["plots"] == found["drawn"] == 2
    assert found["shift"] == ["by-shift", ""]


def test_the_page_of_a_forecast(tmp_path: Path) -> None:
    made = {"command": ["tiltlab", EVIL], "versions": {}, "python": "3", "machine": "x", "commit": None}
    page = tmp_path / "page.html"
    write_forecast_page(base_forecast(world("spread")), made, page)
    found = probed(page)
    assert found["heard"] == found["requests"] == []
    assert found["plots"] == found["drawn"] == 2
