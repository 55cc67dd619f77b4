"""What a cell's folder holds of an earlier run: complete results, or parts of the same settings."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from canonxai.config import differing_keys, flat, result_settings
from canonxai.errors import UserError

BATCH_SIZE = "data.batch_size"  #: on which results depend by rounding alone, but parts as a whole


def complete(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The summary of a cell that is complete; ``None`` for one that is not.

    Args:
        folder: the cell's folder, which need not exist.
        settings: those of this run, as plain values of YAML.

    Raises:
        UserError: if the folder holds results of other settings.
    """
    try:
        before: Any = yaml.safe_load((folder / "config.yaml").read_text())
        summary: Any = json.loads(path.read_text()) if (path := folder / "summary.json").is_file() else None
        is_complete = isinstance(summary, dict) and (folder / "samples.parquet").is_file()
        has_results = is_complete or any((folder / "parts").glob("part-*"))
        first, second = ({**flat(result_settings(s)), BATCH_SIZE: s["data"]["batch_size"]} for s in (before, settings))
    except FileNotFoundError:
        return None
    except (ValueError, yaml.YAMLError, AttributeError, TypeError, KeyError) as error:
        raise UserError(
            f"folder: expected a readable config.yaml and summary.json in {str(folder)!r}, got {type(error).__name__}. "
            "run.resume=false computes all anew."
        ) from error
    keys = [key for key in differing_keys(first, second) if key != BATCH_SIZE or not is_complete]
    if has_results and keys:
        told = ", ".join(f"{key} ({first.get(key)} there, {second.get(key)} here)" for key in keys)
        raise UserError(
            f"folder: expected the settings of the results in {str(folder)!r}, got others: {told}. "
            "Choose another folder or study, or run.resume=false to compute all anew."
        )
    return summary if is_complete else None
