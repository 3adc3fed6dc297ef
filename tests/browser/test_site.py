"""The course's site in a real browser: every page, on a desktop and on a phone, in daylight and at night.

The first test builds it as `make site` does. `build/screenshots/report.html` shows all pages and what was found, after
the pictures that test_lab.py took.
"""

import functools
import html
import http.server
import subprocess
import sys
import threading
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest

pytest.importorskip("nbgrader", reason="the site folds solutions with nbgrader: pip install '.[site]'")

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]
WIDTHS = {"desktop": 1280, "phone": 375}
GRAVE = ("serious", "critical")


@pytest.fixture(scope="module")
def site():
    # a process of its own: the browser's event loop runs in this one, and a kernel needs another
    subprocess.run([sys.executable, ROOT / "tools" / "build_site.py"], check=True)
    return ROOT / "build" / "site"


@pytest.fixture(scope="module")
def address(site):
    """The site, served on this machine alone."""

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def pages(site):
    return sorted(str(path.relative_to(site)) for path in site.rglob("*.html") if "_static" not in path.parts)


@pytest.fixture(scope="module")
def visits(site, address, browser):
    """What a visit to each page in each view showed: a dict a page and view."""
    from axe_playwright_python.sync_playwright import Axe

    axe, found, begun = Axe(), [], time.monotonic()
    screenshots = ROOT / "build" / "screenshots"
    screenshots.mkdir(parents=True, exist_ok=True)
    for device, width in WIDTHS.items():
        # without motion, colours do not fade into each other while axe measures them
        tab = browser.new_page(viewport={"width": width, "height": 900}, reduced_motion="reduce")
        for name in pages(site):
            said, asked = [], []
            tab.on("console", listen := lambda message, said=said: said.append((message.type, message.text)))
            tab.on("request", ask := lambda request, asked=asked: asked.append(request.url))
            tab.goto(address + name)
            tab.wait_for_load_state("networkidle")
            errors = [text for kind, text in said if kind == "error"]  # before axe, which reads style sheets anew
            for scheme in ("light", "dark"):
                tab.emulate_media(color_scheme=scheme)
                results = axe.run(tab).response
                picture = screenshots / f"{name.replace('/', '-')[:-5]}-{width}-{scheme}.png"
                tab.screenshot(path=picture)
                found.append({
                    "page": name, "view": f"{device}, {scheme}", "picture": picture.name,
                    "violations": [f"{one['impact']}: {one['id']}: {node['target']}" for one in results["violations"]
                                   for node in one["nodes"] if one["impact"] in GRAVE],
                    "errors": errors,
                    "elsewhere": [url for url in asked if not url.startswith((address, "data:", "blob:"))],
                    "too wide": tab.evaluate("document.documentElement.scrollWidth > window.innerWidth"),
                    "without text": tab.evaluate(
                        "[...document.images].filter(one => !one.alt.trim()).map(one => one.src)"),
                    "dark": tab.evaluate("document.documentElement.dataset.theme") == "dark",
                })
            tab.remove_listener("console", listen)
            tab.remove_listener("request", ask)
        tab.close()
    write_report(screenshots / "report.html", found, time.monotonic() - begun)
    return found


def write_report(path, found, seconds):
    """One page with a picture of each page in each view, and what was found on it."""
    counts = Counter({key: sum(len(visit[key]) for visit in found)
                      for key in ("violations", "errors", "elsewhere", "without text")})
    lab = [(picture.name, picture.stem.replace("-", " ")) for picture in sorted(path.parent.glob("lab-*.png"))]
    pictures = [*lab, *((visit["picture"], f"{visit['page']}, {visit['view']}") for visit in found)]
    shown = "\n".join(f'<figure><a href="{name}"><img src="{name}" alt="" width="240"></a><figcaption>'
                      f"{html.escape(caption)}</figcaption></figure>" for name, caption in pictures)
    text = (f"{len(found)} visits to {len({visit['page'] for visit in found})} pages in {seconds:.0f} s: "
            + ", ".join(f"{count} {what}" for what, count in counts.items()))
    print(f"\n{text}")
    path.write_text('<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>In the browser</title><style>'
                    "body{font-family:sans-serif}figure{display:inline-block;vertical-align:top;margin:.5em}</style>"
                    f"<h1>JupyterLab, and the site page by page</h1><p>The site: {text}.</p>{shown}</html>\n",
                    encoding="utf-8")


@pytest.mark.parametrize(("what", "key"), [
    ("grave violations of accessibility", "violations"), ("errors in the console", "errors"),
    ("requests to other hosts", "elsewhere"), ("pictures without a description", "without text")])
def test_no_page_has(visits, what, key):
    found = {f"{visit['page']} ({visit['view']})": visit[key] for visit in visits if visit[key]}
    assert not found, f"{what}: {found}"


def test_no_page_scrolls_sideways(visits):
    assert not [f"{visit['page']} ({visit['view']})" for visit in visits if visit["too wide"]]


def test_every_page_follows_the_dark_mode_of_the_system(visits):
    assert {visit["dark"] for visit in visits if "dark" in visit["view"]} == {True}
    assert {visit["dark"] for visit in visits if "light" in visit["view"]} == {False}


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes[key] for key in ("id", "name") if attributes.get(key)}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])


def test_every_link_within_the_site_leads_somewhere(site):
    parsed = {name: Page((site / name).read_text(encoding="utf-8")) for name in pages(site)}
    broken, followed = [], 0
    for name, page in parsed.items():
        for link in page.links:
            if "://" in link or link.startswith("mailto:"):
                continue
            target, anchor = urldefrag(urljoin(name, link))
            target = unquote(target)
            followed += 1
            if not (site / target).is_file() or (anchor and target in parsed
                                                 and unquote(anchor) not in parsed[target].anchors):
                broken.append(f"{name}: {link}")
    print(f"\n{followed} links followed")
    assert followed > 500 and not broken


def test_the_site_has_what_a_reader_looks_for(site):
    there = set(pages(site))
    for folder in ("notebooks", "exercises"):
        assert {f"{folder}/{path.stem}.html" for path in (ROOT / folder).glob("0*.py")} <= there
    assert {"index.html", "figures.html", "glossary.html", "api/index.html", "INSTRUCTORS.html"} <= there
    exercise = (site / "exercises/02_baseline.html").read_text(encoding="utf-8")
    assert "Show a solution" in exercise and "Model answer" in exercise
    assert "BEGIN" not in exercise and "HIDDEN TESTS" not in exercise


def test_searching_finds_the_confusion_matrix(site, address, browser):
    tab = browser.new_page()
    tab.goto(f"{address}search.html?q=confusion+matrix")
    found = tab.locator("#search-results li a")
    found.first.wait_for()
    assert any("06_comparison" in (link.get_attribute("href") or "") for link in found.all())
    tab.close()


def test_a_solution_is_folded_and_opens(site, address, browser):
    tab = browser.new_page()
    tab.goto(f"{address}exercises/02_baseline.html")
    folded = tab.locator("details.hide").first
    code = folded.locator("pre").first
    assert not code.is_visible()
    folded.locator("summary").click()
    assert code.is_visible()
    tab.close()
