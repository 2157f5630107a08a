#!/usr/bin/env bash
# openpi's own client against `failsight serve`: protocol, token, pictures to the bit, errors.
set -euo pipefail
env="$WILD/openpi-client-env"
if [ ! -f "$env/.installed" ]; then
  rm -rf "$env"
  python3 -m venv "$env"
  "$env/bin/pip" install --quiet --disable-pip-version-check openpi-client==0.1.2 typing_extensions
  touch "$env/.installed"
fi
"$env/bin/pip" list --disable-pip-version-check 2>/dev/null | grep -iE '^(openpi-client|websockets|numpy|pillow) '
port=18732
FAILSIGHT_TOKEN=wild-token .venv/bin/failsight serve tabletop-strong --host 0.0.0.0 --port $port \
  --outcomes "$WILD/openpi-client.jsonl" &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
for _ in $(seq 60); do
  curl --silent --fail "http://127.0.0.1:$port/healthz" >/dev/null && break
  sleep 1
done
"$env/bin/python" tests/wild/openpi_talk.py $port wild-token "$WILD/openpi-client.npz"
.venv/bin/python - "$WILD/openpi-client.npz" <<'PYTHON'
import sys

import numpy as np

from failsight.core.pictures import resize_with_pad

pictures = np.load(sys.argv[1])
for name in ("224", "64"):
    size = int(name)
    assert np.array_equal(resize_with_pad(pictures["camera"], size, size), pictures[name]), name
print("resize_with_pad: equal to openpi's to the bit")
PYTHON
.venv/bin/failsight outcomes "$WILD/openpi-client.jsonl"
