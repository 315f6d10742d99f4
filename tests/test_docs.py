"""What the documentation promises: settings that compose, tests and files that exist."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from fwi_lightning.commands import CONF

ROOT = CONF.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ROWS = re.findall(
    r"^\| (.+?) \| `(.+?)` \| `(tests/.+?)::(.+?)` \|$", (ROOT / "docs" / "submissions.md").read_text(), re.MULTILINE
)


@pytest.mark.parametrize(("technique", "words", "file", "test"), ROWS)
def test_every_technique_has_its_setting_and_its_test(technique, words, file, test):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose("train", overrides=words.split())
    assert re.search(rf"^ *def {test}\(", (ROOT / file).read_text(), re.MULTILINE), f"{technique}: no {test} in {file}"


def test_the_table_is_found():
    assert len(ROWS) > 30


def test_every_submission_of_the_page_is_an_experiment_and_the_other_way_round():
    named = set(re.findall(r"^\| \w[\w-]* \| `(\w+)` \|", (ROOT / "docs" / "submissions.md").read_text(), re.MULTILINE))
    there = {path.stem for path in (CONF / "experiment").glob("*.yaml")}
    assert named == there - {"openfwi_inversionnet", "starter"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / Path(link)).exists()]
    assert missing == []
