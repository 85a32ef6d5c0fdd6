"""Weights & Biases, asked for as in BasicSR: what would end the run once its folder is made."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlparse

from kd_plugins.checks.findings import Findings
from kd_plugins.home import expand
from kd_plugins.mappings import mapping
from kd_plugins.messages import show

_PATH = ("logger", "wandb")


def check_wandb(findings: Findings, opt: Mapping[str, Any]) -> None:
    """Report a project that cannot be logged to: no package, no TensorBoard log to send, nobody logged in."""
    logger = mapping(opt.get("logger"))
    project = mapping(logger.get("wandb")).get("project")
    if project is None or "debug" in str(opt.get("name")):  # a run that is only tried is not sent
        return
    said = f"{show(project)}, expected"
    if find_spec("wandb") is None:
        findings.error((*_PATH, "project"), f"{said} the package wandb (pip install wandb), or nothing")
    elif logger.get("use_tb_logger") is not True:
        findings.error(
            ("logger", "use_tb_logger"), f"{show(logger.get('use_tb_logger'))}, expected true: wandb sends TensorBoard's log"
        )
    elif not _is_ready():
        findings.error((*_PATH, "project"), f"{said} somebody logged in (wandb login, WANDB_API_KEY), or WANDB_MODE=offline")


def _is_ready() -> bool:
    """Whether wandb would start without a question."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        return True
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return host in netrc.netrc(os.environ.get("NETRC") or expand("~/.netrc")).hosts
    except (OSError, netrc.NetrcParseError):
        return False
