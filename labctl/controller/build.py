"""From records to what the drivers take: domains, seeds, disks, targets of SSH and probes."""

import ipaddress
import json
from datetime import timedelta
from pathlib import Path
from typing import assert_never

from labctl.controller.lab import Lab
from labctl.drivers.cloudbase_seed import CloudbaseSeed, shorten_hostname
from labctl.drivers.disks import DataDisk, OsGenerationFiles, data_disk_path, os_generation_files
from labctl.drivers.domain import (
    DataDiskFile,
    DomainConfig,
    FirmwareFile,
    Hardware,
    NatNetwork,
    PortForward,
    UserNetwork,
)
from labctl.drivers.ignition import IgnitionContent, find_entry_name
from labctl.drivers.network import DhcpHost, NatNetworkConfig, nat_network
from labctl.drivers.probe import AgentTarget, HttpTarget, ProbeTarget, TcpTarget
from labctl.drivers.readiness import Deadlines
from labctl.drivers.seed import SeedContent
from labctl.drivers.ssh import SshTarget
from labctl.guest.boot_script import (
    AgentConfig,
    BootConfig,
    DataDiskMount,
    build_boot_script,
    build_vendor_data,
)
from labctl.guest.windows_scripts import WindowsBootConfig, build_windows_boot_script
from labctl.model.health_source import ApplicationHealth, HealthProbe, Protocol
from labctl.model.instance import Generation, Identity, Instance
from labctl.model.plan import ScaleSet
from labctl.model.spec import ScaleSetSpec
from labctl.model.windows import DriverKind
from labctl.store.data_disks import DataDiskRow
from labctl.store.gallery import find_os_type

GUEST_USER = "labctl"
SSH_PORT = 22
AGENT_PORT = 17800
_LOOPBACK = "127.0.0.1"
_BOOT = timedelta(minutes=2)
_WINDOWS_BOOT = timedelta(minutes=15)  # the first boot of a prepared image restarts a few times
_CUSTOM_DATA = timedelta(minutes=10)


def generation_files(lab: Lab, scale_set: str, instance: str, number: int) -> OsGenerationFiles:
    """The files of one OS generation."""
    return os_generation_files(lab.settings.scale_set_dir(scale_set), instance, number)


def console_log(lab: Lab, scale_set: str, instance: str) -> Path:
    """Everything that an instance ever wrote to its serial console."""
    return lab.settings.scale_set_dir(scale_set) / f"{instance}.console.log"


def new_data_disks(
    lab: Lab, scale_set: str, instance: Instance, model: ScaleSetSpec
) -> list[DataDisk]:
    """The data disks that the model asks for."""
    return [
        DataDisk(
            path=data_disk_path(lab.settings.scale_set_dir(scale_set), instance.name, disk.name),
            name=disk.name,
            serial=f"data-{disk.name}",
            size=disk.size,
        )
        for disk in model.data_disks
    ]


def build_domain(
    lab: Lab,
    view: ScaleSet,
    instance: Instance,
    generation: Generation,
    identity: Identity,
    disks: list[DataDiskRow],
) -> DomainConfig:
    """The domain of an instance on one of its generations."""
    model = view.models[generation.model_revision]
    files = generation_files(lab, view.name, instance.name, generation.number)
    wanted = {disk.name for disk in model.data_disks}
    entry = find_ignition_entry(lab, generation, model)
    return DomainConfig(
        name=instance.name,
        scale_set=view.name,
        uuid=identity.uuid,
        generation=generation.number,
        vcpus=model.size.vcpus,
        memory=model.size.memory,
        acceleration_kind=lab.acceleration.kind.value,
        cpu_model=lab.acceleration.cpu_model,
        os_disk=files.overlay,
        base_image=lab.blob(generation.image_digest),
        seed=files.seed,
        firmware_file=FirmwareFile(name=entry, path=files.ignition)
        if entry is not None and files.ignition is not None
        else None,
        hardware=_hardware(model),
        data_disks=tuple(
            DataDiskFile(name=disk.name, path=disk.path, serial=disk.serial)
            for disk in disks
            if disk.ordinal == instance.ordinal and disk.name in wanted
        ),
        mac=identity.mac,
        network=_network(view, model, identity),
        console_log=console_log(lab, view.name, instance.name),
        state_dir=lab.settings.state_dir,
    )


def build_seed(
    lab: Lab, instance: Instance, generation: Generation, model: ScaleSetSpec, identity: Identity
) -> SeedContent | CloudbaseSeed:
    """The seed of an instance on one of its generations."""
    name = instance.name
    agent = model.health.application_health
    # cloud-init runs custom data again only for a new instance-id, so the generation is in it.
    instance_id = f"{name}-g{generation.number}-{identity.uuid.hex[:8]}"
    if model.windows_configuration is not None:
        return _build_windows_seed(lab, instance_id, name, model, identity)
    script = build_boot_script(
        BootConfig(
            instance_id=instance_id,
            host_key=identity.host_key,
            host_key_public=identity.host_key_public,
            controller_public_key=lab.controller_public_key,
            authorized_keys=model.ssh_keys,
            data_disks=_list_mounts(model),
            health=None if agent is None else _agent_config(agent, identity),
        )
    )
    return SeedContent(
        instance_id=instance_id,
        hostname=name.replace("_", "-"),
        public_keys=(lab.controller_public_key, *model.ssh_keys),
        user_data=custom_data(model),
        vendor_data=build_vendor_data(script, identity.host_key, identity.host_key_public),
        network_config=_network_config(identity),
        boot_script=script,
    )


def _build_windows_seed(
    lab: Lab, instance_id: str, name: str, model: ScaleSetSpec, identity: Identity
) -> CloudbaseSeed:
    agent = model.health.application_health
    keys = (lab.controller_public_key, *model.ssh_keys)
    users = custom_data(model).decode()
    config = WindowsBootConfig(
        instance_id=instance_id,
        host_key=identity.host_key,
        host_key_public=identity.host_key_public,
        authorized_keys=keys,
        enable_automatic_updates=model.windows_configuration is not None
        and model.windows_configuration.enable_automatic_updates,
        custom_data=users,
        data_disks=_list_mounts(model),
        health=None if agent is None else _agent_config(agent, identity),
    )
    return CloudbaseSeed(
        instance_id=instance_id,
        hostname=shorten_hostname(name),
        public_keys=keys,
        custom_data=users,
        boot_script=build_windows_boot_script(config),
    )


def _list_mounts(model: ScaleSetSpec) -> tuple[DataDiskMount, ...]:
    return tuple(
        DataDiskMount(name=disk.name, file_system=disk.file_system, mount_point=disk.mount_point)
        for disk in model.data_disks
    )


def _hardware(model: ScaleSetSpec) -> Hardware:
    windows = model.windows_configuration
    if windows is None:
        return Hardware.LINUX
    match windows.drivers:
        case DriverKind.STANDARD:
            return Hardware.WINDOWS
        case DriverKind.VIRTIO:
            return Hardware.WINDOWS_VIRTIO
        case _:
            assert_never(windows.drivers)


def find_ignition_entry(lab: Lab, generation: Generation, model: ScaleSetSpec) -> str | None:
    """Where the image of a generation looks for an Ignition config; None: it has cloud-init."""
    with lab.database.read() as connection:
        os_type = find_os_type(connection, generation.image_digest, model.image.definition)
    return find_entry_name(os_type)


def build_ignition(
    lab: Lab, instance: Instance, model: ScaleSetSpec, identity: Identity
) -> IgnitionContent:
    """The Ignition config of an instance on one of its generations."""
    return IgnitionContent(
        hostname=instance.name.replace("_", "-"),
        user=GUEST_USER,
        public_keys=(lab.controller_public_key, *model.ssh_keys),
        host_key=identity.host_key,
        host_key_public=identity.host_key_public,
        custom_data=custom_data(model),
    )


def custom_data(model: ScaleSetSpec) -> bytes:
    """The user's custom data; empty when there is none."""
    if model.custom_data is None or model.custom_data.inline is None:
        return b""
    return model.custom_data.inline.encode()


def build_network(
    lab: Lab, scale_set: str, subnet: str, identities: dict[str, Identity]
) -> NatNetworkConfig:
    """The libvirt network of a scale set with network type nat."""
    return nat_network(
        lab.settings.state_dir,
        scale_set,
        ipaddress.IPv4Network(subnet),
        tuple(
            DhcpHost(
                mac=identity.mac,
                address=ipaddress.IPv4Address(identity.address),
                hostname=instance.replace("_", "-"),
            )
            for instance, identity in sorted(identities.items())
            if identity.address is not None
        ),
    )


def network_name(scale_set: str) -> str:
    """The libvirt network of a scale set."""
    return f"labctl-{scale_set}"


def ssh_target(lab: Lab, identity: Identity, *, is_windows: bool = False) -> SshTarget:
    """Where and as whom labctl logs in."""
    host, port = _reach(identity, identity.ssh_port, SSH_PORT)
    return SshTarget(
        host=host,
        port=port,
        user=GUEST_USER,
        host_key_public=identity.host_key_public,
        key_path=lab.settings.controller_key,
        is_windows=is_windows,
    )


def probe_target(model: ScaleSetSpec, identity: Identity) -> ProbeTarget | None:
    """What the controller asks for health; None when power state and extensions decide."""
    if model.health.application_health is not None:
        host, port = _reach(identity, identity.agent_port, AGENT_PORT)
        return AgentTarget(host=host, port=port, token=identity.agent_token)
    probe = model.health.probe
    if probe is None:
        return None
    host, port = _reach(identity, identity.probe_port, application_port(probe))
    if probe.protocol is Protocol.TCP:
        return TcpTarget(host=host, port=port)
    return HttpTarget(
        scheme=probe.protocol.value, host=host, port=port, path=probe.request_path or "/"
    )


def application_port(probe: HealthProbe) -> int:
    """The port that a probe asks; http and https have their usual ones."""
    if probe.port is not None:
        return probe.port
    return 443 if probe.protocol is Protocol.HTTPS else 80


def deadlines(lab: Lab, model: ScaleSetSpec) -> Deadlines:
    """How long the rungs of a boot may take on this host."""
    factor = lab.acceleration.boot_factor
    boot = _WINDOWS_BOOT if model.is_windows else _BOOT
    return Deadlines(
        ssh=model.timeouts.boot or boot * factor,
        custom_data=model.timeouts.custom_data or _CUSTOM_DATA * factor,
    )


def _network(view: ScaleSet, model: ScaleSetSpec, identity: Identity) -> UserNetwork | NatNetwork:
    if model.network.type == "nat":
        return NatNetwork(name=network_name(view.name))
    forwards = [
        PortForward(host_port=identity.ssh_port, guest_port=SSH_PORT),
        PortForward(host_port=identity.agent_port, guest_port=AGENT_PORT),
    ]
    if model.health.probe is not None:
        forwards.append(
            PortForward(
                host_port=identity.probe_port, guest_port=application_port(model.health.probe)
            )
        )
    return UserNetwork(forwards=tuple(forwards))


def _reach(identity: Identity, forwarded: int, guest_port: int) -> tuple[str, int]:
    """Address and port: forwarded on loopback (network user) or the guest's own (nat)."""
    if identity.address is None:
        return _LOOPBACK, forwarded
    return identity.address, guest_port


def _agent_config(agent: ApplicationHealth, identity: Identity) -> AgentConfig:
    return AgentConfig(
        token=identity.agent_token,
        port=AGENT_PORT,
        protocol=agent.protocol.value,
        app_port=application_port(agent),
        request_path=agent.request_path,
        interval=agent.interval,
        number_of_probes=agent.number_of_probes,
        type_handler_version=agent.type_handler_version,
        grace_period=agent.grace_period,
    )


def _network_config(identity: Identity) -> str:
    # JSON is YAML, and needs no quoting rules.
    return json.dumps(
        {
            "version": 2,
            "ethernets": {
                "labnic": {"match": {"macaddress": identity.mac}, "dhcp4": True},
            },
        },
        indent=2,
    )
