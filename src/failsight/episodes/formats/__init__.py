"""Files of other systems: one row per format, imported when it is tried. What a row needs says `formats.format`."""

LOGS = {
    "actprobe": "failsight.episodes.formats.actprobe:FORMAT",
    "csv": "failsight.episodes.formats.csv_rows:FORMAT",
    "json-lines": "failsight.episodes.formats.json_rows:FORMAT",
    "npz": "failsight.episodes.formats.npz_arrays:FORMAT",
    "parquet": "failsight.episodes.formats.parquet_rows:FORMAT",
    "hdf5": "failsight.episodes.formats.hdf5_groups:FORMAT",
    "lerobot": "failsight.episodes.formats.lerobot_log:FORMAT",
    "safe": "failsight.episodes.formats.safe:FORMAT",
    "fiper": "failsight.episodes.formats.fiper:FORMAT",
    "mist": "failsight.episodes.formats.mist:FORMAT",
}
"""Logs to fit and judge on: `failsight import`."""
DEMONSTRATIONS = {
    "mobile-vla": "failsight.episodes.formats.mobile_vla:FORMAT",
    "lerobot": "failsight.episodes.formats.lerobot:FORMAT",
    "run": "failsight.labels.run_demonstrations:FORMAT",
}
"""Data a policy can be trained on: `failsight train-policy --data`."""
LOG_GROUP, DEMONSTRATION_GROUP = "failsight.formats", "failsight.formats.demonstrations"
"""Entry points of other packages that add a row; `--format package.module:ATTRIBUTE` needs none."""
