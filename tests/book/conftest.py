"""The built site and a browser for it."""

import os
import shutil
from pathlib import Path

import pytest
from pages import ROOT


@pytest.fixture(scope="session")
def site() -> Path:
    """Folder of the built site. Without it these tests fail: a skip would hide a broken build."""
    html = ROOT / "_build" / "html"
    if not (html / "index.html").is_file():
        pytest.fail("no built site: run make book first", pytrace=False)
    return html


@pytest.fixture(scope="session")
def chromium():
    """A headless browser; under CI its absence is a failure."""
    found = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if found is None:
        reason = "no Chromium found: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    # Chromium asks for updates and lists of its own accord; only the pages' requests count here.
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    quiet += ["--no-first-run", "--no-sandbox", "--disable-gpu"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=quiet)
        yield browser
        browser.close()
