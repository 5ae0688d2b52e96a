"""Rules across fields of the spec."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.model.spec_rules import (
    find_key_fault,
    find_order_faults,
    find_repeated,
    find_size_fault,
    find_subnet_fault,
)

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


def test_repeated_values_name_the_entry_that_has_them():
    assert find_repeated(["a", None, "b", "a", None, "a"], "name", "name") == [
        ((3, "name"), "name 'a' is taken by entry 1"),
        ((5, "name"), "name 'a' is taken by entry 1"),
    ]


def test_a_possible_order_has_no_faults():
    assert find_order_faults({"a": [], "b": ["a"], "c": ["a", "b"], "d": ["c", "a"]}) == []


def test_unknown_names_and_waiting_for_oneself_are_faults():
    assert find_order_faults({"a": ["x"], "b": ["b", "a"]}) == [
        ((0, "provisionAfterExtensions", 0), "there is no extension 'x'; there are: a, b"),
        ((1, "provisionAfterExtensions", 0), "extension 'b' cannot wait for itself"),
    ]


def test_a_cycle_is_spelled_out():
    assert find_order_faults({"z": ["a"], "a": ["b"], "b": ["c"], "c": ["a"]}) == [
        ((1, "provisionAfterExtensions"), "extensions wait for one another: a -> b -> c -> a")
    ]


def test_a_long_chain_is_no_problem():
    names = [f"e{number}" for number in range(5000)]
    after = {name: names[place : place + 1] for place, name in enumerate(["last", *names])}
    assert find_order_faults(after) == []


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abcde"), st.lists(st.sampled_from("abcde"), max_size=3)))
def test_an_order_has_faults_exactly_when_it_cannot_be_carried_out(after):
    done = set()
    while ready := [n for n, others in after.items() if n not in done and set(others) <= done]:
        done.update(ready)
    assert (find_order_faults(after) == []) == (done == set(after))


@pytest.mark.parametrize("key", [KEY, f"{KEY} me@host with blanks"])
def test_public_keys_are_taken(key):
    assert find_key_fault(key) is None


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ("", "one OpenSSH public key"),
        ("ssh-ed25519", "one OpenSSH public key"),
        (f"{KEY}\n{KEY}", "one OpenSSH public key"),
        ("ssh-dss AAAAB3NzaC1kc3M=", "one OpenSSH public key"),
        (f'command="x" {KEY}', "one OpenSSH public key"),
        (f"{KEY[:-1]}", "not base64"),
        (KEY.replace("ssh-ed25519", "ssh-rsa"), "not of type ssh-rsa"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nsecret", "this is a private key"),
    ],
)
def test_other_text_is_no_key_and_is_never_repeated(key, fault):
    found = find_key_fault(key)
    assert fault in found
    assert "secret" not in found


@pytest.mark.parametrize("subnet", ["10.87.1.0/24", "192.168.0.0/16", "172.16.0.8/29"])
def test_private_networks_are_taken(subnet):
    assert find_subnet_fault(subnet) is None


@pytest.mark.parametrize(
    ("subnet", "fault"),
    [
        ("10.87.1.1/24", "host bits"),
        ("10.0.0.0/8", "/16 to /29"),
        ("10.0.0.0/30", "/16 to /29"),
        ("8.8.8.0/24", "private"),
        ("127.0.0.0/16", "private"),
        ("169.254.0.0/16", "private"),
        ("fd00::/64", "IPv4"),
        ("web", "IPv4"),
        ("", "IPv4"),
    ],
)
def test_other_networks_are_refused_with_the_reason(subnet, fault):
    assert fault in find_subnet_fault(subnet)


def test_sizes_count_bytes_not_characters():
    assert find_size_fault("\u00e4" * 5, 10) is None
    assert find_size_fault("\u00e4" * 6, 10) == "has 12 bytes; at most 10 are allowed"
    assert find_size_fault(None, 0) is None
