"""What the lines of az need: az itself, a server of labctl, a lab with images and a scale set."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.e2e.api_server import ApiServer
from tests.e2e.harness import HEALTH, ROOT, Lab, share_build_cache, state_directory

LOCK = ROOT / ".setup" / "az.lock"
HOME = ROOT / ".az"
SET = "web"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """A running lab, and how az reaches it."""

    lab: Lab
    server: ApiServer
    az_env: dict[str, str]
    work: Path  # files that az is given


def ensure_az() -> Path:
    """Install azure-cli once, as .setup/az.lock has it; returns its Python."""
    python, stamp = HOME / "bin" / "python", HOME / ".labctl-setup"
    wanted = f"{ROOT} {hashlib.sha256(LOCK.read_bytes()).hexdigest()}"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"az: installing azure-cli into {HOME}, once; this takes a minute or two", flush=True)
        shutil.rmtree(HOME, ignore_errors=True)
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, HOME], check=True)
        # Hashes pin the files, wherever they come from. Nothing is built: that fetches more.
        options = ["--system-certs", "--require-hashes", "--no-build", "--compile-bytecode"]
        words = [uv, "pip", "sync", "-q", *options, "--python", python, LOCK]
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
        stamp.write_text(wanted)
    return python


@contextlib.contextmanager
def standing() -> Iterator[Stand]:
    """A lab with two real instances behind a server; all of it is deleted at the end."""
    with state_directory("az") as path:
        share_build_cache(path)
        lab = Lab(path)
        try:
            print("az: a lab with two versions of an image, and two real instances", flush=True)
            lab.build("1.0.0", "--publish")
            lab.build("1.1.0", "--publish", definition="next")
            lab.apply(
                SET,
                capacity=2,
                image={"definition": "tiny", "version": "latest"},
                health=HEALTH,
            )
            server = ApiServer(lab, "--first-within", "3h", "--rollout-after", "30m-60m")
            server.start()
            try:
                yield Stand(lab=lab, server=server, az_env=make_env(path, server), work=path)
            finally:
                print("az: tidying up", flush=True)
                server.stop()
                server.kill()
        finally:
            for row in lab.json("list"):
                lab.remove(row["name"])


def make_env(path: Path, server: ApiServer) -> dict[str, str]:
    """An az that knows nothing of this user, tells nobody anything, and meets only our server."""
    settings = path / "azure"
    keep_from_asking_for_updates(settings)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AZURE", "ARM_", "PYTHON")) and not name.lower().endswith("_proxy")
    }
    return {
        **kept,
        "AZURE_CONFIG_DIR": str(settings),
        "AZURE_CORE_COLLECT_TELEMETRY": "false",
        "AZURE_CORE_INSTANCE_DISCOVERY": "false",
        "AZURE_CORE_SURVEY_MESSAGE": "false",
        "AZURE_CORE_LOGIN_EXPERIENCE_V2": "off",
        "AZURE_CORE_NO_COLOR": "true",
        "AZURE_CORE_OUTPUT": "json",
        "AZURE_EXTENSION_USE_DYNAMIC_INSTALL": "no",
        "NO_PROXY": "*",
        "REQUESTS_CA_BUNDLE": server.ca,
    }


def keep_from_asking_for_updates(settings: Path) -> None:
    """Leave the note that az leaves when it has asked its maker for the newest version.

    Without it, the first line asks; no setting keeps az from that.
    """
    found = re.findall(r"^azure-cli(?:-(core|telemetry))?==(\S+)", LOCK.read_text(), re.MULTILINE)
    versions = {part or "azure-cli": {"local": version} for part, version in found}
    settings.mkdir(mode=0o700)
    note = {
        "versions": versions,
        "update_time": f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S.%f}",
    }
    (settings / "versionCheck.json").write_text(json.dumps(note))
