#!/usr/bin/env bash
# All fuzz cases (the test suite runs a seeded tenth of them).
set -euo pipefail
FAILSIGHT_FUZZ=full .venv/bin/python -m pytest tests/fuzz -n 2
