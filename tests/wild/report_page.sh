#!/usr/bin/env bash
# The report of the smoke run in Debian's Chromium, driven by Playwright.
set -euo pipefail
command -v chromium > /dev/null || { apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium > /dev/null; }
[ -x "$WILD/browser/bin/playwright" ] || { python3 -m venv "$WILD/browser" && "$WILD/browser/bin/pip" install --quiet --disable-pip-version-check 'playwright==1.*'; }
rm -rf "$WILD/report"
.venv/bin/failsight run smoke --out "$WILD/report" > /dev/null
"$WILD/browser/bin/python" tests/wild/report_page.py "$WILD/report/report.html" "$WILD/shots"
