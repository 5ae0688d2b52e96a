"""Everything that the controller works with, put together once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Connection

from labctl.controller.share import Share
from labctl.controller.subnets import address_of
from labctl.drivers.acceleration import Acceleration, AccelerationKind, find_acceleration
from labctl.drivers.host import boots_at_once, read_host_facts
from labctl.drivers.hypervisor import Hypervisor
from labctl.drivers.keys import ensure_controller_key, make_agent_token, make_key_pair, make_mac
from labctl.drivers.ports import choose_ports
from labctl.model.instance import Identity
from labctl.settings import Settings
from labctl.store.database import Database
from labctl.store.instances import load_reserved_ports

NewIdentity = Callable[[Connection, str, int], Identity]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """One host with its store and its hypervisor."""

    settings: Settings
    database: Database
    hypervisor: Hypervisor
    acceleration: Acceleration
    boots_at_once: int
    controller_public_key: str
    share: Share = field(default_factory=Share)

    @property
    def is_emulating(self) -> bool:
        """Is there no hardware virtualisation to use?"""
        return self.acceleration.kind is AccelerationKind.TCG

    @property
    def overhead_per_instance(self) -> int:
        """Bytes that an emulator takes beside the guest's memory; measured with a bounded cache."""
        return (256 if self.is_emulating else 64) * 2**20

    def check(self) -> None:
        """Raises HostError when the hypervisor does not answer; called before anything changes."""
        self.hypervisor.list_domains(self.settings.state_dir)

    def close(self) -> None:
        """Let go of the hypervisor; instances run on."""
        self.hypervisor.close()

    def blob(self, digest: str) -> Path:
        """The file of an image version."""
        return self.settings.blobs_dir / f"{digest}.qcow2"

    def new_identity(self, subnet: str | None) -> NewIdentity:
        """How to assign an identity to an instance of a scale set with this subnet."""

        def assign(connection: Connection, name: str, ordinal: int) -> Identity:
            ssh, agent, probe = choose_ports(3, taken=load_reserved_ports(connection))
            host_key = make_key_pair(name)
            return Identity(
                uuid=uuid4(),
                mac=make_mac(),
                ssh_port=ssh,
                agent_port=agent,
                probe_port=probe,
                address=None if subnet is None else address_of(subnet, ordinal),
                host_key=host_key.private,
                host_key_public=" ".join(host_key.public.split()[:2]),
                agent_token=make_agent_token(),
            )

        return assign


def open_lab(settings: Settings, database: Database) -> Lab:
    """Probe the host and connect lazily; nothing on the host changes.

    Raises HostError when the state directory cannot be used.
    """
    acceleration = find_acceleration(settings)
    facts = read_host_facts(settings.state_dir)
    return Lab(
        settings=settings,
        database=database,
        hypervisor=Hypervisor(settings.uri, state_dir=settings.state_dir),
        acceleration=acceleration,
        boots_at_once=boots_at_once(facts.cpus, acceleration.kind),
        controller_public_key=ensure_controller_key(settings),
    )
