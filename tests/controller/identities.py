"""Identities of instances that never run."""

from uuid import uuid4

from labctl.model.instance import Identity


def make_identity(connection, name, ordinal):
    return Identity(
        uuid=uuid4(),
        mac=f"52:54:00:00:00:{ordinal:02x}",
        ssh_port=1000 + ordinal * 3,
        agent_port=1001 + ordinal * 3,
        probe_port=1002 + ordinal * 3,
        address=None,
        host_key="key",
        host_key_public="ssh-ed25519 AAAA",
        agent_token="t",
    )
