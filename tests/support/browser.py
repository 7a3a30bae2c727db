#!/usr/bin/env python3
"""Opens a page in a headless browser without any network and prints what is there, as JSON.

  browser.py PAGE [--dark] [--picture OUT.png] [--size WIDTHxHEIGHT]

console: what scripts and the browser complained of; outside: addresses that the page names to load; sections: ids;
pictures: {label, marks} of each canvas, marks null when nothing was drawn; tables: captions; text: what a reader sees.
"""
import argparse
import html.parser
import json
import os
import re
import subprocess
import sys
import tempfile


class Document(html.parser.HTMLParser):
    """What is looked at of a page."""
    hidden = ("script", "style", "title")

    def __init__(self):
        super().__init__()
        self.sections, self.pictures, self.outside, self.tables, self.text = [], [], [], [], []
        self.inside = []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "section":
            self.sections.append(attributes.get("id"))
        if tag == "canvas":
            marks = attributes.get("data-marks")
            self.pictures.append({"label": attributes.get("aria-label"), "marks": marks and int(marks)})
        for name in ("src", "href", "action"):
            address = attributes.get(name, "#")
            if not address.startswith(("#", "data:")):
                self.outside.append(address)
        if tag not in ("meta", "link", "br", "img", "input", "hr"):
            self.inside.append(tag)

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if any(tag in self.hidden for tag in self.inside):
            return
        if self.inside and self.inside[-1] == "caption":
            self.tables.append(data)
        if data.strip():
            self.text.append(data.strip())


def browse(page, *options):
    """Standard output and the console's lines of one visit."""
    with tempfile.TemporaryDirectory() as profile:
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                   "--enable-logging=stderr", "--virtual-time-budget=3000", f"--user-data-dir={profile}", *options,
                   "file://" + os.path.abspath(page)]
        if os.geteuid() == 0:  # others may not take their network away
            command = ["unshare", "-n"] + command
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    if done.returncode != 0:
        sys.exit(f"browser.py: chromium ended with {done.returncode}: {done.stderr[-2000:]}")
    console = re.findall(r":CONSOLE[:(]\d+\)?\] (.*)", done.stderr)
    return done.stdout, [line for line in console if "source: chrome://" not in line]  # of its own pages


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("page")
    arguments.add_argument("--dark", action="store_true")
    arguments.add_argument("--picture")
    arguments.add_argument("--size", default="1100x800")
    given = arguments.parse_args()
    options = ["--window-size=" + given.size.replace("x", ",")]
    if given.dark:
        options.append("--blink-settings=preferredColorScheme=0")
    if given.picture:
        browse(given.page, *options, "--screenshot=" + os.path.abspath(given.picture))
    text, console = browse(given.page, *options, "--dump-dom")
    document = Document()
    document.feed(text)
    print(json.dumps({"console": console, "outside": document.outside, "sections": document.sections,
                      "pictures": document.pictures, "tables": document.tables, "text": "\n".join(document.text)}))


if __name__ == "__main__":
    main()
