"""The API's part in `labctl serve`: setting it up, and running it beside the daemon."""

import logging
import resource
import shlex
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labctl.api.server import (
    Endpoint,
    make_context,
    open_socket,
    parse_endpoint,
    serving_api,
    told_address,
)
from labctl.cli.context import Context, current_options
from labctl.cli.follow import opened_store
from labctl.cli.output import Output, print_document
from labctl.controller.clock import now
from labctl.drivers.certificates import (
    ServerIdentity,
    check_host,
    ensure_identity,
    has_authority,
    load_identity,
)
from labctl.drivers.keys import make_access_secret
from labctl.drivers.signing_key import ensure_signing_key
from labctl.errors import InvalidError, LabError
from labctl.model.access import Scope
from labctl.settings import Settings
from labctl.store.lab_identity import LabIdentity, ensure_lab_identity, find_lab_identity
from labctl.store.tokens import add_token, load_tokens

if TYPE_CHECKING:
    from labctl.controller.board import Board
    from labctl.controller.lab import Lab
    from labctl.controller.operations import Operations
    from labctl.store.database import Database

_AGAIN = 5  # seconds
_FILES = 8192  # open at once, where the host allows it: each connection is one

DEFAULT_LISTEN = "127.0.0.1:8443"

log = logging.getLogger(__name__)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiOptions:
    """What the command line says of the API."""

    listen: str
    is_off: bool = False
    certificate: Path | None = None
    key: Path | None = None  # None: in the file of the certificate

    def check(self) -> None:
        """Raises InvalidError for what cannot be meant."""
        parse_endpoint(self.listen)
        if self.key is not None and self.certificate is None:
            raise InvalidError("--tls-key goes with --tls-cert", hint="name the certificate, too")

    @property
    def words(self) -> list[str]:
        """The same for another command line; files by their whole path."""
        if self.is_off:
            return ["--no-api"]
        given = [] if self.listen == DEFAULT_LISTEN else ["--listen", self.listen]
        for word, path in (("--tls-cert", self.certificate), ("--tls-key", self.key)):
            if path is not None:
                given += [word, str(path.absolute())]
        return given


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """The API before it serves: a socket that listens."""

    options: ApiOptions
    endpoint: Endpoint  # with the port that was found
    socket: socket.socket

    @property
    def url(self) -> str:
        """Where this host reaches it."""
        host = "127.0.0.1" if self.endpoint.is_any else self.endpoint.host
        return f"https://{Endpoint(host=host, port=self.endpoint.port)}"


def set_up_api(context: Context, options: ApiOptions, hosts: tuple[str, ...]) -> None:
    """Make certificates, ids and a first token, whatever of them is missing; tell what is next."""
    names = tuple(check_host(host) for host in hosts)
    settings, moment = context.settings, now()
    secret = make_access_secret()
    if options.certificate is not None:
        load_identity(options.certificate, options.key or options.certificate, now=moment)
    with opened_store(context) as database:
        with database.write() as connection:
            lab = ensure_lab_identity(connection, hosts=names)
        if options.certificate is None:
            _ensure_own(settings, lab, ())
        ensure_signing_key(settings)
        with database.write() as connection:
            token = None
            if not load_tokens(connection):
                token = add_token(
                    connection,
                    name="admin",
                    scope=Scope.ADMIN,
                    secret=secret,
                    expires_at=None,
                    now=moment,
                )
    trusted = None if options.certificate is not None else settings.ca_certificate
    made = {} if token is None else {"clientId": token.id, "token": secret}
    document = {
        "subscriptionId": lab.subscription_id,
        "tenantId": lab.tenant_id,
        "hosts": lab.hosts,
        "caCertificate": trusted,
        **made,
    }
    if context.output is not Output.TABLE:
        print_document(document, context.output)
        return
    _tell_set_up(lab, trusted, options, made)


def open_door(settings: Settings, options: ApiOptions) -> Door | None:
    """Listen, before anything else begins; None: there is to be no API, or it is not set up.

    Raises InvalidError for files or an address that cannot be used, HostError for a taken port.
    """
    if options.is_off or (options.certificate is None and not has_authority(settings)):
        return None
    if options.certificate is not None:
        key = options.key or options.certificate
        make_context(load_identity(options.certificate, key, now=now()))
    wanted = parse_endpoint(options.listen)
    door = open_socket(wanted)
    endpoint = Endpoint(host=wanted.host, port=door.getsockname()[1])
    return Door(options=options, endpoint=endpoint, socket=door)


@contextmanager
def running_api(door: Door, lab: "Lab", board: "Board", say: Say) -> Iterator[None]:
    """Serve the API, and take its long-running operations further."""
    from labctl.api.app import App
    from labctl.api.desk import Desk
    from labctl.api.routes import make_routes
    from labctl.api.steps import make_steps
    from labctl.controller.commands import remove_leftovers
    from labctl.controller.operations import Operations
    from labctl.controller.uploads import remove_old_uploads, remove_parts

    remove_leftovers(lab.settings)
    remove_parts(lab.settings)
    remove_old_uploads(lab.settings, now=now())
    _allow_open_files()
    who = _load_identity(lab.database)
    ensure_signing_key(lab.settings)
    desk = Desk(
        settings=lab.settings,
        database=lab.database,
        board=board,
        subscription_id=who.subscription_id,
        tenant_id=who.tenant_id,
    )
    routes = make_routes()
    steps = make_steps(desk, lab, routes)
    operations = Operations(lab.database, board, quick=steps.quick, slow=steps.slow)
    worker = threading.Thread(target=_run, args=(operations, desk.stop), name="operations")

    def find_identity() -> ServerIdentity:
        return _find_certificate(door, lab.settings, _load_identity(lab.database))

    with (
        serving_api(desk, App(desk, routes), door.socket, find_identity),
        told_address(desk, door.url),
    ):
        worker.start()
        say(f"API: {door.url}")
        if not door.endpoint.is_loopback:
            say(f"warning: {door.endpoint} can be reached from other hosts; tokens protect it")
        try:
            yield
        finally:
            desk.stop.set()
            worker.join()


def _run(operations: "Operations", stop: threading.Event) -> None:
    """A store that is away for a while must not leave operations open for ever."""
    while not stop.is_set():
        try:
            operations.run(stop)
        except LabError:
            log.exception("the operations of the API are looked at again in %s s", _AGAIN)
            stop.wait(_AGAIN)


def _load_identity(database: "Database") -> LabIdentity:
    """As it is now: `--init` may be run beside us. Assigned here if there is only a certificate."""
    with database.read() as connection:
        found = find_lab_identity(connection)
    if found is not None:
        return found
    with database.write() as connection:
        return ensure_lab_identity(connection)


def _find_certificate(door: Door, settings: Settings, lab: LabIdentity) -> ServerIdentity:
    options = door.options
    if options.certificate is not None:
        return load_identity(options.certificate, options.key or options.certificate, now=now())
    # What it listens on, clients will use as its name.
    extra = () if door.endpoint.is_any else (check_host(door.endpoint.host),)
    return _ensure_own(settings, lab, extra)


def _ensure_own(settings: Settings, lab: LabIdentity, extra: tuple[str, ...]) -> ServerIdentity:
    return ensure_identity(
        settings, (*lab.hosts, *extra), host_name=socket.gethostname(), now=now()
    )


def _allow_open_files() -> None:
    """Many connections must not keep the controller from opening its own files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _tell_set_up(
    lab: LabIdentity, trusted: Path | None, options: ApiOptions, made: dict[str, str]
) -> None:
    endpoint = parse_endpoint(options.listen)
    host = endpoint.host
    if endpoint.is_any:
        host = lab.hosts[0] if lab.hosts else socket.gethostname()
    elif endpoint.is_loopback:
        host = "localhost"
    url = f"https://{Endpoint(host=host, port=endpoint.port)}"
    print(f"subscription  {lab.subscription_id}")
    print(f"tenant        {lab.tenant_id}")
    if trusted is not None:
        print(f"CA            {trusted}")
    if made:
        print(f"client id     {made['clientId']}")
        print(f"token         {made['token']}")
        print("The token 'admin' is shown this once. Who has it may do anything in this lab.")
    else:
        print("Tokens were made before; another one: labctl token create NAME --scope admin")
    client = made.get("clientId", "CLIENT_ID")
    given = current_options().state_dir
    place = [] if given is None else ["--state-dir", shlex.quote(str(given))]
    serve = " ".join(["labctl serve", *options.words, *place])
    verify = "" if trusted is None else f" --cacert {shlex.quote(str(trusted))}"
    trust = [] if trusted is None else [f"export REQUESTS_CA_BUNDLE={trusted}"]
    sdk = f', connection_verify="{trusted}"' if trusted is not None else ""
    lines = [
        "",
        "Start it:",
        f"  {serve}",
        "",
        "Try it:",
        f'  curl{verify} -H "Authorization: Bearer TOKEN" \\',
        f'      "{url}/subscriptions?api-version=2024-11-01"',
        "",
        "The az command:",
        *(f"  {line}" for line in trust),
        f"  az cloud register -n lab --endpoint-resource-manager {url}",
        "  az cloud set -n lab",
        f"  az login --service-principal -u {client} -p TOKEN --tenant adfs",
        "",
        "An SDK for Python; the credential's get_token gives AccessToken(TOKEN, expires_on):",
        f'  ComputeManagementClient(credential, "{lab.subscription_id}", base_url="{url}",',
        f'      credential_scopes=["https://management.lab/.default"]{sdk})',
    ]
    print("\n".join(lines))
