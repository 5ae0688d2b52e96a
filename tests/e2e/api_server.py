"""`labctl serve` with its API, as a process of its own that may be killed and started again."""

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import requests

from tests.e2e.harness import Lab, wait_for
from tests.e2e.serving import AT_ONCE, read_log

GROUP = "labctl"  # holds what was made without the API; also the name of its gallery


class ApiServer:
    """A server of one lab: where it is, who may use it."""

    def __init__(self, lab: Lab, *options: str) -> None:
        """Set the API up; `start` begins. `options` are further ones of `labctl serve`."""
        made = lab.json("serve", "--init")
        self.lab = lab
        self.options = options or AT_ONCE
        self.subscription: str = made["subscriptionId"]
        self.tenant: str = made["tenantId"]
        self.client_id: str = made["clientId"]
        self.token: str = made["token"]
        self.ca: str = made["caCertificate"]
        self.url = ""
        self.daemon: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Serve on a free port, and after that always on the same: links hold that clients have."""
        listen = self.url.removeprefix("https://") or "127.0.0.1:0"
        address = self.lab.state_dir / "api" / "address"
        address.unlink(missing_ok=True)  # what a killed server left behind
        with (self.lab.state_dir / "serve.log").open("a") as sink:
            self.daemon = subprocess.Popen(
                self.lab.command("serve", "--listen", listen, *self.options),
                stdout=sink,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self.lab.env,
                start_new_session=True,  # Ctrl-C is for the one who started it
            )
        daemon = self.daemon

        def find_url() -> str:
            assert daemon.poll() is None, read_log(self.lab)[-4000:]
            return address.read_text().strip() if address.exists() else ""

        self.url = wait_for(find_url, seconds=60, what="address of the API")

    def kill(self) -> None:
        """As a power cut would."""
        if self.daemon is not None:
            self.daemon.kill()
            self.daemon.wait()

    def stop(self) -> int:
        """End it by SIGTERM; returns its exit code."""
        if self.daemon is None or self.daemon.poll() is not None:
            return 0
        self.daemon.send_signal(signal.SIGTERM)
        return self.daemon.wait(timeout=120)

    def make_id(self, rest: str, group: str = GROUP) -> str:
        """The id of a resource of Microsoft.Compute."""
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{group}"
            f"/providers/Microsoft.Compute/{rest}"
        )

    def ask(self, method: str, path: str, **values) -> requests.Response:
        """A plain request, for what the SDK would not send."""
        headers = {"Authorization": f"Bearer {self.token}", **values.pop("headers", {})}
        params = {"api-version": "2024-11-01"}
        return requests.request(
            method,
            f"{self.url}{path}",
            headers=headers,
            params=params,
            verify=self.ca,
            timeout=60,
            **values,
        )


@contextlib.contextmanager
def serving_api(lab: Lab, *options: str) -> Iterator[ApiServer]:
    """A running server; it must end cleanly, and nothing that it was asked may have upset it."""
    server = ApiServer(lab, *options)
    server.start()
    try:
        yield server
        assert server.stop() == 0, read_log(lab)[-4000:]
        assert "Traceback" not in read_log(lab), read_log(lab)[-8000:]
    finally:
        server.kill()


def tiny_id(server: ApiServer, version: str = "", definition: str = "tiny") -> str:
    """An image of the lab's own gallery, or one version of it."""
    image = server.make_id(f"galleries/{GROUP}/images/{definition}")
    return f"{image}/versions/{version}" if version else image


def write_key(folder: Path) -> str:
    """A public SSH key, as clients give one to new instances."""
    path = folder / "id_ed25519"
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
    return path.with_suffix(".pub").read_text().strip()
