"""`labctl --server` against a running API: the same commands, files, faults and exit codes."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from labctl import __version__
from labctl.api.app import App
from labctl.api.routes import make_routes
from labctl.api.server import Endpoint, open_socket, serving_api
from labctl.cli.app import TREE, Branch, main
from labctl.cli.remote import split_command
from labctl.cli.remote_words import take_target
from labctl.controller.clock import now as read_clock
from labctl.controller.desired import load_wish
from labctl.controller.lock import try_lock
from labctl.controller.remote_rules import RULES, find_scope
from labctl.drivers.certificates import ensure_identity
from labctl.errors import ExitCode, InvalidError, RefusedError
from labctl.model.access import Scope
from labctl.model.event import EventKind
from labctl.store.audit import load_audit_entries
from labctl.store.events import add_event
from labctl.store.tokens import revoke_token
from tests.api.conftest import api  # noqa: F401  the fixture
from tests.api.serving import Api

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
SPEC = "name: web\ncapacity: 0\nimage: {definition: tiny}\n"


@pytest.fixture(autouse=True)
def _no_trial(monkeypatch):
    monkeypatch.setenv("LABCTL_ACCELERATION", "tcg")  # each test has a lab of its own


@pytest.fixture
def client(api: Api, tmp_path, monkeypatch):  # noqa: F811
    """A directory to work in, and the environment of a client with the scope operate."""
    monkeypatch.setenv("LABCTL_SERVER", api.url)
    monkeypatch.setenv("LABCTL_TOKEN", api.secrets[Scope.OPERATE])
    folder = tmp_path / "client"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A client whose server does not answer."""
    monkeypatch.setenv("LABCTL_SERVER", "http://127.0.0.1:1")
    monkeypatch.setenv("LABCTL_TOKEN", "x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _as(monkeypatch, api: Api, scope: Scope) -> None:  # noqa: F811
    monkeypatch.setenv("LABCTL_TOKEN", api.secrets[scope])


def _ask(api: Api, argv, scope=Scope.OPERATE, **more):  # noqa: F811
    return api.ask(
        "POST",
        "/labctl/v1/commands",
        body={"argv": argv, **more},
        scope=scope,
        version=None,
    )


def _lines(answer):
    return [json.loads(line) for line in answer.iter_lines() if line.strip()]


def test_every_command_has_a_rule():
    for name, entry in TREE.items():
        inner = entry.entries if isinstance(entry, Branch) else [None]
        for each in inner:
            path = (name,) if each is None else (name, each)
            assert path in RULES or path[:1] in RULES, path


def test_a_spec_is_applied_with_the_files_that_it_names(api: Api, client, capsys):  # noqa: F811
    (client / "specs").mkdir()
    (client / "id.pub").write_text(f"{KEY} me@client\n")
    (client / "specs" / "first.sh").write_text("#!/bin/sh\necho first\n")
    (client / "specs" / "secret.yaml").write_text("password: hidden\n")
    (client / "specs" / "secret.yaml").chmod(0o600)
    (client / "specs" / "data.sh").write_text("#!/bin/sh\necho data\n")
    (client / "specs" / "web.yaml").write_text(
        SPEC + f"sshKeys: [../id.pub]\ncustomData: {{file: {client}/specs/data.sh}}\n"
        "extensions:\n- {name: one, file: ./first.sh, protectedSettingsFile: secret.yaml}\n"
    )
    assert main(["apply", "specs/web.yaml", "--no-wait"]) == 0
    assert "web: recorded; run: labctl apply specs/web.yaml" in capsys.readouterr().out
    with api.desk.database.read() as connection:
        spec = load_wish(connection, "web")
    assert spec.ssh_keys == (f"{KEY} me@client",)
    assert spec.custom_data.inline == "#!/bin/sh\necho data\n"
    assert spec.extensions[0].script == "#!/bin/sh\necho first\n"
    assert spec.extensions[0].protected_settings == {"password": "hidden"}
    assert list((api.desk.settings.api_dir / "commands").iterdir()) == []


def test_faults_of_a_spec_stand_where_the_client_wrote_them(client, capsys):
    (client / "open.yaml").write_text("a: b\n")
    (client / "open.yaml").chmod(0o644)
    (client / "web.yaml").write_text(
        SPEC + "capacty: 3\ncustomData: {file: nowhere.sh}\n"
        "extensions:\n- {name: one, script: x, protectedSettingsFile: open.yaml}\n"
    )
    assert main(["apply", "web.yaml"]) == ExitCode.INVALID
    error = capsys.readouterr().err.splitlines()
    assert error[0] == "labctl: 3 errors in web.yaml; nothing was changed"
    assert error[1].startswith("  web.yaml:4:1: capacty: unknown key")
    assert error[2] == (
        "  web.yaml:5:20: customData.file: file 'nowhere.sh' does not exist; "
        f"looked in {str(client)!r}"
    )
    assert "web.yaml:7:" in error[3]
    assert "may be used by others (mode 0644); run: chmod 600" in error[3]


def test_exit_codes_and_formats_are_those_of_the_command(client, capsys):
    assert main(["show", "nothing"]) == ExitCode.NOT_FOUND
    assert capsys.readouterr().err.startswith("labctl: scale set 'nothing' does not exist\n")
    assert main(["-o", "json", "list"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["list", "--bogus"]) == ExitCode.INVALID


def test_stdin_is_sent_as_the_spec(api: Api, client):  # noqa: F811
    done = subprocess.run(
        [sys.executable, "-m", "labctl", "apply", "-", "--no-wait"],
        input=SPEC,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    with api.desk.database.read() as connection:
        assert load_wish(connection, "web").capacity == 0


HOST = {
    "approval: {command: [touch, /tmp/x]}": "upgradePolicy.approval.command",
    "hooks: {drain: {command: [touch, /tmp/x]}}": "upgradePolicy.hooks.drain.command",
    "approval: {webhook: {url: https://a.example/, secretFile: /etc/passwd}}": "upgradePolicy."
    "approval.webhook.secretFile",
}


def test_what_reaches_into_the_host_needs_admin(client, capsys):
    for policy, key in HOST.items():
        (client / "web.yaml").write_text(SPEC + f"upgradePolicy:\n  {policy}\n")
        assert main(["apply", "web.yaml", "--dry-run"]) == ExitCode.REFUSED
        assert f": {key}\n" in capsys.readouterr().err


def test_only_files_that_were_sent_can_be_named(api: Api):  # noqa: F811
    spec = SPEC + "customData: {file: /etc/passwd}\n"
    files = [{"use": "spec", "name": "web.yaml", "content": _encode(spec)}]
    for scope in (Scope.OPERATE, Scope.ADMIN):
        lines = _lines(_ask(api, ["apply", "web.yaml", "--dry-run"], scope, files=files))
        assert lines[-1] == {"exit": 2}
        text = "".join(line.get("stderr", "") for line in lines)
        assert "file '/etc/passwd' was not sent by the client" in text
    lines = _lines(_ask(api, ["apply", "/etc/passwd"], Scope.ADMIN))
    assert lines[-1] == {"exit": 2}


def _encode(text: str) -> str:
    import base64

    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "argv",
    [
        ["list", "--state-dir", "/tmp/other"],
        ["list", "--state-dir=/tmp/other"],
        ["upgrade", "reject", "web", "--reason", "--", "--uri", "test:///default"],
        ["list", "--server", "http://127.0.0.1:1"],
        ["serve"],
        ["serve", "--systemd-unit"],
        ["instance", "console", "web_0"],
        ["image", "build", "/tmp", "--version", "1.0.0", "--copy-to=/etc/passwd"],
    ],
    ids=" ".join,
)
def test_words_that_lead_away_from_the_lab_are_refused(argv):
    with pytest.raises(RefusedError):
        find_scope(argv)


@pytest.mark.parametrize(
    "argv", [["-o", "json", "list"], ["--state-dir", "/x", "list"], ["image"], ["nothing"], [""]]
)
def test_a_command_line_must_begin_with_a_known_command(argv):
    with pytest.raises(InvalidError):
        find_scope(argv)


def test_the_command_itself_refuses_what_slipped_through(api: Api):  # noqa: F811
    argv = ["instance", "ssh", "-o", "--", "--state-dir=/tmp/other", "web_0"]
    lines = _lines(_ask(api, argv))
    assert lines[-1]["exit"] != 0
    assert not Path("/tmp/other").exists()


@pytest.mark.parametrize(
    ("argv", "needed"),
    [
        (["list"], Scope.READ),
        (["doctor"], Scope.READ),
        (["doctor", "--fix"], Scope.ADMIN),
        (["scale", "web", "3"], Scope.OPERATE),
        (["image", "import", "x"], Scope.ADMIN),
        (["token", "create", "x"], Scope.ADMIN),
        (["instance", "ssh", "web_0", "--", "ls", "--uri", "x"], Scope.OPERATE),
    ],
    ids=str,
)
def test_a_command_needs_its_scope(argv, needed):
    assert find_scope(argv) is needed


def test_a_token_whose_scope_is_not_enough_is_refused(api: Api, client, monkeypatch, capsys):  # noqa: F811
    _as(monkeypatch, api, Scope.READ)
    assert main(["scale", "web", "3"]) == ExitCode.REFUSED
    error = capsys.readouterr().err
    assert "AuthorizationFailed" in error
    assert "labctl scale web needs 'operate'" in error
    with api.desk.database.read() as connection:
        entry = load_audit_entries(connection)[-1]
    assert (entry.status, entry.path) == (403, "/labctl/v1/commands labctl scale web 3")


def test_a_wrong_token_says_what_to_do(client, monkeypatch, capsys):
    monkeypatch.setenv("LABCTL_TOKEN", "wrong")
    assert main(["list"]) == ExitCode.REFUSED
    assert "next: make a token on the server's host: labctl token create" in capsys.readouterr().err


def test_an_image_is_sent_checked_and_removed(api: Api, client, monkeypatch, capsys):  # noqa: F811
    _as(monkeypatch, api, Scope.ADMIN)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "disk.qcow2", "8M"], check=True)
    words = ["image", "import", "disk.qcow2", "--definition", "own", "--version", "1.0.0"]
    assert main(words) == 0
    assert "own/1.0.0: imported" in capsys.readouterr().out
    assert list((api.desk.settings.api_dir / "uploads").iterdir()) == []


def test_a_recipe_is_sent_with_what_it_includes(api: Api, client, monkeypatch, capsys):  # noqa: F811
    _as(monkeypatch, api, Scope.ADMIN)
    (client / "images" / "shared").mkdir(parents=True)
    (client / "images" / "shared" / "words").write_text("from what is shared\n")
    recipe = client / "images" / "own"
    recipe.mkdir()
    (recipe / "recipe.yaml").write_text("name: own\nosType: linux\ninclude: [../shared]\n")
    (recipe / "build").write_text('#!/bin/sh\ncat "$(dirname "$0")/../shared/words"; exit 3\n')
    (recipe / "build").chmod(0o755)
    assert main(["image", "build", "images/own", "--version", "1.0.0"]) == ExitCode.FAILED
    assert "from what is shared" in capsys.readouterr().err


def test_a_recipe_cannot_be_written_elsewhere(api: Api):  # noqa: F811
    files = [{"use": "recipe", "name": "../../x", "content": ""}]
    argv = ["image", "build", "x", "--version", "1.0.0"]
    answer = _ask(api, argv, Scope.ADMIN, files=files, recipes={"x": "x"})
    assert answer.status_code == 400
    answer = _ask(api, argv, Scope.ADMIN, recipes={"x": "/etc"})
    assert answer.status_code == 400
    assert _ask(api, ["list"], Scope.OPERATE, files=files).status_code == 403


def test_a_damaged_upload_is_refused_and_leaves_nothing(api: Api):  # noqa: F811
    answer = api.ask(
        "POST", "/labctl/v1/uploads", body={}, version=None, query={"sha256": "0" * 64}
    )
    assert (answer.status_code, answer.json()["error"]["target"]) == (400, "sha256")
    assert list((api.desk.settings.api_dir / "uploads").iterdir()) == []
    answer = api.ask("POST", "/labctl/v1/uploads", body={}, scope=Scope.OPERATE, version=None)
    assert answer.status_code == 403


def test_uploads_of_others_cannot_be_named_by_path(api: Api):  # noqa: F811
    argv = ["image", "import", "x", "--definition", "own", "--version", "1.0.0"]
    answer = _ask(api, argv, Scope.ADMIN, uploads={"x": "../../labctl.db"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "ResourceNotFound")


def test_malformed_requests_are_refused(api: Api):  # noqa: F811
    for body in (
        [],
        {},
        {"argv": []},
        {"argv": [1]},
        {"argv": "list"},
        {"argv": ["list"], "files": [1]},
    ):
        answer = api.ask("POST", "/labctl/v1/commands", body=body, version=None)
        assert answer.status_code == 400, body


@contextmanager
def _watching(api: Api):  # noqa: F811
    """A command of a client that waits for what this process, which holds the lock, never does."""
    assert _lines(_ask(api, ["apply", "web.yaml", "--no-wait"], files=_FILES))[-1] == {"exit": 0}
    with try_lock(api.desk.settings, "web") as is_ours:
        assert is_ours
        process = subprocess.Popen(
            [sys.executable, "-m", "labctl", "scale", "web", "2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            for line in process.stdout:
                if "watching" in line:
                    break
            yield process
        finally:
            process.kill()
            process.communicate()


_FILES = [{"use": "spec", "name": "web.yaml", "content": _encode(SPEC)}]


def _wait_until_nothing_runs(api: Api) -> None:  # noqa: F811
    while api.desk.commands.running:
        with api.desk.database.read():
            pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_client_that_goes_ends_its_command_and_the_wish_stays(api: Api, client, number):  # noqa: F811
    with _watching(api) as process:
        process.send_signal(number)
        _, error = process.communicate(timeout=30)
        if number is signal.SIGINT:
            assert process.returncode == ExitCode.INTERRUPTED
            assert "interrupted; the work so far is kept" in error
        _wait_until_nothing_runs(api)
    with api.desk.database.read() as connection:
        assert load_wish(connection, "web").capacity == 2


def test_who_has_no_token_any_more_cannot_go_on_with_a_command(api: Api, client, monkeypatch):  # noqa: F811
    monkeypatch.setattr("labctl.api.handlers.commands._HEARTBEAT", 0.05)
    with _watching(api) as process:
        with api.desk.database.write() as connection:
            revoke_token(connection, "operate", now=NOW)
        process.communicate(timeout=30)
        assert process.returncode != ExitCode.OK
        _wait_until_nothing_runs(api)


def test_who_may_only_read_sends_no_large_commands(api: Api):  # noqa: F811
    argv = ["list", "x" * 2**20]
    assert _ask(api, argv, scope=Scope.READ).status_code == 413
    assert _ask(api, argv).status_code == 400


@pytest.mark.parametrize("url", ["https://127.1/x", "https://localhost/x", "https://[::1]/x"])
def test_addresses_of_the_server_itself_need_the_scope_admin(api: Api, url):  # noqa: F811
    key = "notifications: [{name: chat, url: 'URL'}]\n".replace("URL", url)
    extension = f"extensions: [{{name: x, url: '{url}', sha256: {'0' * 64}}}]\n"
    for more in (key, extension):
        files = [{"use": "spec", "name": "web.yaml", "content": _encode(SPEC + more)}]
        argv = ["apply", "web.yaml", "--no-wait"]
        *output, last = _lines(_ask(api, argv, files=files))
        assert last == {"exit": int(ExitCode.REFUSED)}
        assert "scope 'admin'" in "".join(line.get("stderr", "") for line in output)
    assert _lines(_ask(api, argv, scope=Scope.ADMIN, files=files))[-1] == {"exit": 0}


def test_a_server_that_stops_ends_the_commands_of_its_clients(api: Api, client):  # noqa: F811
    with _watching(api) as process:
        api.desk.stop.set()
        process.communicate(timeout=30)
        assert process.returncode == ExitCode.INTERRUPTED


def test_events_are_told_as_they_come_and_output_is_verbatim(api: Api, client):  # noqa: F811
    with _watching(api) as process:
        with api.desk.database.write() as connection:
            add_event(
                connection, at=NOW, scale_set="web", kind=EventKind.STEP, message="Grüße \u2713"
            )
        line = next(line for line in process.stdout if "step" in line)
        assert line == "2026-11-23T12:00:00Z web step Grüße \u2713\n"


def test_the_certificate_is_always_verified(api: Api, client, capsys):  # noqa: F811
    def find_identity():
        return ensure_identity(api.desk.settings, (), host_name="lab.example", now=read_clock())

    find_identity()
    door = open_socket(Endpoint(host="127.0.0.1", port=0))
    port = door.getsockname()[1]
    with door, serving_api(api.desk, App(api.desk, make_routes()), door, find_identity):
        url = f"https://127.0.0.1:{port}"
        assert main(["--server", url, "schema"]) == ExitCode.HOST
        assert "is not to be trusted" in capsys.readouterr().err
        authority = str(api.desk.settings.ca_certificate)
        assert main(["--server", url, "--ca", authority, "example"]) == 0
        assert capsys.readouterr().out.startswith("#")
        assert main(["list", "--server", url, "--ca", str(client / "none.pem")]) == ExitCode.INVALID


def test_another_version_at_the_server_is_told(client, monkeypatch, capsys):
    monkeypatch.setattr("labctl.cli.remote.__version__", "9.9.9")
    assert main(["example"]) == 0
    assert f"runs labctl {__version__}, this is 9.9.9" in capsys.readouterr().err


def test_plain_http_to_a_server_that_speaks_https_is_told_so(outside, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:  # as the server does with what is no TLS
            listener.accept()[0].close()

        answering = threading.Thread(target=hang_up)
        answering.start()
        port = listener.getsockname()[1]
        monkeypatch.setenv("LABCTL_SERVER", f"http://127.0.0.1:{port}")
        assert main(["list"]) == ExitCode.HOST
        answering.join()
    told = capsys.readouterr().err
    assert f"next: labctl serve speaks https only: --server https://127.0.0.1:{port}\n" in told


def test_an_unreachable_server_is_a_matter_of_the_host(outside, capsys):
    assert main(["list"]) == ExitCode.HOST
    assert capsys.readouterr().err == (
        "labctl: no connection with http://127.0.0.1:1\n  Connection refused\n"
        "next: is labctl serve running there, and is the address right?\n"
    )


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://lab.example", "would send the token in the clear"),
        ("ftp://127.0.0.1", "is no URL of a server"),
        ("https://me:secret@127.0.0.1", "takes no user"),
        ("https://[::1", "is no URL"),
    ],
)
def test_only_safe_addresses_are_taken(outside, capsys, url, text):
    assert main(["--server", url, "list"]) == ExitCode.INVALID
    error = capsys.readouterr().err
    assert text in error
    assert "secret" not in error


def test_a_token_file_that_others_may_read_is_refused(outside, capsys):
    (outside / "token").write_text("x\n")
    (outside / "token").chmod(0o640)
    assert main(["list", "--token-file", "token"]) == ExitCode.INVALID
    assert "next: run: chmod 600 token" in capsys.readouterr().err


def test_a_local_lab_and_a_server_exclude_one_another(outside, capsys):
    assert main(["list", "--state-dir", "/tmp/x"]) == ExitCode.INVALID
    assert "--state-dir and --server cannot both be given" in capsys.readouterr().err
    assert main(["serve"]) == ExitCode.REFUSED


def test_options_of_the_client_are_found_wherever_options_may_stand():
    words = ["--server=https://a", "list", "--ca", "c", "-o", "json", "--token-file=t"]
    target, rest = take_target(words, {})
    assert target is not None
    assert (target.server, target.ca, target.token_file) == ("https://a", "c", "t")
    assert rest == ["list", "-o", "json"]
    assert take_target(["instance", "ssh", "w_0", "--", "x", "--server", "y"], {})[0] is None
    with pytest.raises(InvalidError):
        take_target(["list", "--ca", "c"], {})
    with pytest.raises(InvalidError):
        take_target(["list", "--server"], {})


def test_help_needs_no_server_and_never_becomes_a_command_of_this_host(outside, capsys):
    assert main(["--help"]) == 0
    assert main(["upgrade", "reject", "--help"]) == 0
    assert main(["image", "import", "--help"]) == 0
    assert "Usage: labctl image import" in capsys.readouterr().out
    assert main(["upgrade", "reject", "web", "--reason", "--help"]) == ExitCode.INVALID
    assert "nothing was done" in capsys.readouterr().err


def test_the_command_is_told_from_its_options():
    known = {"list": (), "image": ("list", "show")}
    assert split_command(["-o", "json", "list", "x"], known) == (("list",), ["-o", "json", "x"])
    assert split_command(["image", "-ojson", "show", "a"], known)[0] == ("image", "show")
    for words in (["-x", "list"], ["image"], ["image", "nope"], ["nope"], ["-v"]):
        with pytest.raises(InvalidError):
            split_command(words, known)


def test_nothing_of_the_lab_is_imported_for_a_server():
    code = (
        "import sys; from labctl.cli.app import main; code = main(sys.argv[1:]); "
        "print([n for n in ('sqlalchemy', 'libvirt', 'pydantic', 'paramiko', 'requests', 'rich')"
        " if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--server", "http://127.0.0.1:1", "list"],
        capture_output=True,
        text=True,
        env=os.environ | {"LABCTL_TOKEN": "x"},
        timeout=30,
    )
    assert done.stdout == "[]\n"


_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b'\n{"stdout": "one\\n"}\n{"stdo', "was lost before the command ended"),
        (b"<html>\nsorry</html>\n", "is not labctl serve"),
        (b'{"exit": null}\n', "is not labctl serve"),
    ],
)
def test_an_answer_that_breaks_off_or_is_anothers_is_no_fault_of_labctl(
    outside, monkeypatch, capsys, answer, text
):
    def serve() -> None:
        connection, _ = door.accept()
        with connection:
            received = b""
            while b'"argv"' not in received:
                received += connection.recv(65536)
            connection.sendall(_HEAD + f"{len(answer):x}\r\n".encode() + answer + b"\r\n")

    with socket.create_server(("127.0.0.1", 0)) as door:
        monkeypatch.setenv("LABCTL_SERVER", f"http://127.0.0.1:{door.getsockname()[1]}")
        thread = threading.Thread(target=serve)
        thread.start()
        code = main(["list"])
        thread.join()
    assert (code, text in capsys.readouterr().err) == (ExitCode.HOST, True)
