"""Token by token on the page: what is coloured, what is counted, and that text stays text."""

import json
import math
from pathlib import Path

import pytest

from tests.report.test_report import made_study
from tests.report.written import write_report
from tiltlab.report.tokens import moved_by_part, ranks, share_off_top, shown, where
from tiltlab.storage.files import write_text

EVIL = "<script>alert(1)</script>"
LINE = {
    "problem": "p0",
    "logp": [math.log(0.95), math.log(0.9), math.log(0.001)],
    "ref_logp": [math.log(0.95), math.log(0.04), math.log(0.3)],
    "ranks": [0, 3, 1],
    "pieces": ["so ", EVIL, ""],
}


def test_a_token_is_coloured_by_the_base_and_by_the_shift() -> None:
    tokens = shown(LINE)
    assert tokens is not None
    assert [(t.text, t.likely, t.shift) for t in tokens] == [("so ", 0, 0), (EVIL, 3, 2), ("·", 2, -2)]
    assert tokens[1].title == "base: p = 0.04, choice number 4; here: p = 0.9"
    assert shown(None) is shown(LINE | {"pieces": None}) is None


def test_shares_are_of_positions_with_an_interval_over_problems() -> None:
    share = share_off_top([LINE, LINE | {"ranks": [0, 0, 0]}])
    assert share is not None
    assert share.value == pytest.approx(1 / 3)
    assert share_off_top([]) is None
    bars = {bar.name: list(bar.x) for bar in ranks({"tuned": [LINE], "unknown": []}).data}
    assert bars == {"2nd": [1 / 3], "3rd": [0], "4th to 10th": [1 / 3], "11th to 100th": [0], "beyond": [0]}


def test_the_tenths_of_a_response_add_up_to_its_kl() -> None:
    parts = moved_by_part([LINE])
    moved = [a - b for a, b in zip(LINE["logp"], LINE["ref_logp"], strict=True)]
    assert [round(part, 6) for part in parts if part] == [round(value, 6) for value in moved if value]
    assert parts[1] == moved[0]  # the middle of the first of three tokens is at 1/6
    long = LINE | {"logp": [0.1 * i for i in range(57)], "ref_logp": [0.0] * 57}
    assert sum(moved_by_part([long, LINE])) == pytest.approx((sum(long["logp"]) + sum(moved)) / 2)
    (heat,) = where({"tuned": [long], "unknown": []}).data
    assert list(heat.y) == ["tuned"]
    assert sum(heat.z[0]) == pytest.approx(sum(long["logp"]))


def test_tokens_show_on_the_page_and_stay_text(tmp_path: Path) -> None:
    run = made_study(tmp_path)
    assert 'class="b' not in write_report(run).read_text()
    write_text(run / "cells" / "lazy-sum" / "base" / "seed-0" / "tokens-last.jsonl", json.dumps(LINE) + "\n")
    page = write_report(run).read_text()
    assert '<span class="b3 s4" title="base: p = 0.04, choice number 4; here: p = 0.9">&lt;script&gt;' in page
    assert EVIL not in page
    assert 'id="ranks-0"' in page
