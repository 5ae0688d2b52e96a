"""Indexes in the shape of each publisher's own, small; the image is the same everywhere."""

import bz2
import functools
import json
import lzma

from tests.drivers.publishers.server import listing, sha256, sha512

OTHER = "0" * 64


@functools.cache
def pack(packer, image):
    return packer.compress(image)


def fill(server, image):
    """Put every publisher's indexes and one downloadable version of each on the server."""
    for shelf in (ubuntu, debian, fedora, rocky, almalinux, centos, flatcar, fedora_coreos):
        shelf(server, image)


def set_mirrors(server, monkeypatch):
    names = "UBUNTU DEBIAN FEDORA ROCKY ALMALINUX CENTOS FLATCAR FEDORA_COREOS"
    for name in names.split():
        folder = name.lower().replace("_", "-")
        monkeypatch.setenv(f"LABCTL_MIRROR_{name}", f"{server.url}/{folder}")


def ubuntu(server, image):
    def item(stream, release, codename, build, digest):
        folder = f"server/releases/{codename}/release-{build}"
        name = f"ubuntu-{release}-server-cloudimg-amd64.img"
        if stream == "daily":
            folder = f"server/{codename}/{build}"
            name = f"{codename}-server-cloudimg-amd64.img"
        return {
            "items": {
                "disk1.img": {
                    "ftype": "disk1.img",
                    "md5": "0" * 32,
                    "path": f"{folder}/{name}",
                    "sha256": digest,
                    "size": len(image),
                },
                "manifest": {
                    "ftype": "manifest",
                    "md5": "0" * 32,
                    "path": f"{folder}/x.manifest",
                    "sha256": OTHER,
                    "size": 9995,
                },
            },
            "label": "release",
            "pubname": f"ubuntu-{codename}-{release}-amd64-server-{build}",
        }

    def product(stream, release, codename, title, builds):
        return {
            "aliases": f"{release},{codename[0]},{codename}",
            "arch": "amd64",
            "os": "ubuntu",
            "release": codename,
            "release_codename": codename,
            "release_title": title,
            "support_eol": "2029-05-31",
            "supported": True,
            "version": release,
            "versions": {
                build: item(stream, release, codename, build, digest)
                for build, digest in builds.items()
            },
        }

    def index(stream):
        prefix = "com.ubuntu.cloud" if stream == "released" else "com.ubuntu.cloud.daily"
        return {
            "content_id": f"com.ubuntu.cloud:{stream}:download",
            "creator": "cpc",
            "datatype": "image-downloads",
            "format": "products:1.0",
            "license": "https://ubuntu.com/legal/intellectual-property-policy",
            "products": {
                f"{prefix}:server:16.04:amd64": product(
                    stream, "16.04", "xenial", "16.04 LTS", {"20210928": OTHER}
                ),
                f"{prefix}:server:18.04:amd64": product(
                    stream, "18.04", "bionic", "18.04 LTS", {"20230607": OTHER}
                ),
                f"{prefix}:server:24.04:amd64": product(
                    stream,
                    "24.04",
                    "noble",
                    "24.04 LTS",
                    {
                        "20260826": sha256(image),
                        "20260826.1": sha256(image),
                        "20260905": sha256(image),
                        "beta-3": OTHER,
                    },
                ),
            },
            "updated": "Sat, 05 Sep 2026 10:00:00 +0000",
        }

    for folder, stream in (("releases", "released"), ("daily", "daily")):
        server.put(
            f"/ubuntu/{folder}/streams/v1/com.ubuntu.cloud:{stream}:download.json",
            json.dumps(index(stream)),
        )
    for build in ("20260826", "20260826.1", "20260905"):
        place = f"/ubuntu/releases/server/releases/noble/release-{build}"
        name = "ubuntu-24.04-server-cloudimg-amd64.img"
        server.put(f"{place}/{name}", image)
        server.put(f"{place}/SHA256SUMS", f"{OTHER} *other.img\n{sha256(image)} *{name}\n")
    return "/ubuntu/releases/server/releases/noble/release-20260905"


def debian(server, image):
    root = "/debian/images/cloud"
    server.put(f"{root}/", listing("OpenStack/", "bookworm/", "trixie/", "sid/"))
    builds = ("20250519-2117/", "20260821-2577/", "20261001-2600/")
    server.put(f"{root}/bookworm/", listing("daily/", "latest/", *builds))
    server.put(f"{root}/bookworm/daily/", listing("latest/", "20261101-2650/"))
    for build in builds:
        name = f"debian-12-genericcloud-amd64-{build.removesuffix('/')}.qcow2"
        server.put(f"{root}/bookworm/{build}{name}", image)
        server.put(
            f"{root}/bookworm/{build}SHA512SUMS",
            f"{'1' * 128}  debian-12-generic-amd64-{build.removesuffix('/')}.raw\n"
            f"{sha512(image)}  {name}\n",
        )


def fedora(server, image):
    folder = "https://download.fedoraproject.org/pub/fedora/linux/releases"

    def entry(release, name, arch="x86_64", subvariant="Cloud_Base"):
        return {
            "version": release,
            "arch": arch,
            "link": f"{folder}/{release}/Cloud/{arch}/images/{name}",
            "variant": subvariant.partition("_")[0],
            "subvariant": subvariant,
            "sha256": sha256(image),
            "size": str(len(image)),
        }

    server.put(
        "/fedora/releases.json",
        json.dumps(
            [
                entry("44", "Fedora-Cloud-Base-Generic-44-1.7.x86_64.qcow2"),
                entry("44", "Fedora-Cloud-Base-UEFI-UKI-44-1.7.x86_64.qcow2"),
                entry("44", "Fedora-Cloud-Base-Generic-44-1.7.aarch64.qcow2", arch="aarch64"),
                entry("43", "Fedora-Cloud-Base-Generic-43-1.6.x86_64.qcow2"),
                entry("40", "Fedora-Cloud-Base-Generic.x86_64-40-1.14.qcow2"),
                entry("45 Beta", "Fedora-Cloud-Base-Generic-45_Beta-1.3.x86_64.qcow2"),
                {
                    **entry("44", "Fedora-KDE-Live-44-1.7.x86_64.iso", subvariant="KDE"),
                    "size": None,
                },
            ]
        ),
    )
    place = "/fedora/pub/fedora/linux/releases/44/Cloud/x86_64/images"
    name = "Fedora-Cloud-Base-Generic-44-1.7.x86_64.qcow2"
    server.put(f"{place}/{name}", image)
    sums = f"# {name}: {len(image)} bytes\nSHA256 ({name}) = {sha256(image)}\n"
    server.put(f"{place}/Fedora-Cloud-44-1.7-x86_64-CHECKSUM", sums)
    return f"{place}/Fedora-Cloud-44-1.7-x86_64-CHECKSUM", sums


def rocky(server, image):
    names = (
        "Rocky-9-GenericCloud-Base-9.5-20241118.0.x86_64.qcow2",
        "Rocky-9-GenericCloud-Base-9.8-20260525.0.x86_64.qcow2",
        "Rocky-9-GenericCloud-Base-9.10-20260901.0.x86_64.qcow2",
    )
    old = "Rocky-9-GenericCloud-9.0-20220706.0.x86_64.qcow2"
    latest = "Rocky-9-GenericCloud-Base.latest.x86_64.qcow2"
    lvm = "Rocky-9-GenericCloud-LVM-9.8-20260525.0.x86_64.qcow2"
    server.put("/rocky/pub/rocky/", listing("10/", "8/", "9/", "9.8/", "RPM-GPG-KEY-Rocky-9"))
    place = "/rocky/pub/rocky/9/images/x86_64"
    server.put(f"{place}/", listing("CHECKSUM", latest, lvm, *names, f"{names[0]}.CHECKSUM"))
    server.put("/rocky/vault/rocky/", listing("8.4/", "9.0/", "9.1/"))
    server.put("/rocky/vault/rocky/9.0/images/x86_64/", listing(old, f"{old}.CHECKSUM"))
    for name in names:
        server.put(f"{place}/{name}", image)
        server.put(f"{place}/{name}.CHECKSUM", f"# {name}\nSHA256 ({name}) = {sha256(image)}\n")


def almalinux(server, image):
    names = (
        "AlmaLinux-9-GenericCloud-9.4-20240805.x86_64.qcow2",
        "AlmaLinux-9-GenericCloud-9.6-20250522.x86_64.qcow2",
    )
    latest = "AlmaLinux-9-GenericCloud-latest.x86_64.qcow2"
    server.put("/almalinux/almalinux/", listing("10/", "8/", "9/", "9.6/", "10.0/"))
    place = "/almalinux/almalinux/9/cloud/x86_64/images"
    server.put(f"{place}/", listing("CHECKSUM", "CHECKSUM.asc", latest, *names))
    sums = "".join(f"{sha256(image)}  {name}\n" for name in (*names, latest))
    server.put(f"{place}/CHECKSUM", sums)
    for name in names:
        server.put(f"{place}/{name}", image)
    server.put("/almalinux/", listing("8.3/", "9.0/"))
    old = "AlmaLinux-9-GenericCloud-9.0-20220527.x86_64.qcow2"
    server.put("/almalinux/9.0/cloud/x86_64/images/", listing(old, "CHECKSUM"))
    ten = "AlmaLinux-10-GenericCloud-10.0-20250528.0.x86_64.qcow2"
    server.put("/almalinux/almalinux/10/cloud/x86_64/images/", listing(ten))
    return f"{place}/CHECKSUM", sums


def centos(server, image):
    root = "/centos/centos"
    server.put(f"{root}/", listing("7/", "8/", "10-stream/", "8-stream/", "9-stream/"))
    nine = "CentOS-Stream-GenericCloud-9-20260526.0.x86_64.qcow2"
    place = f"{root}/9-stream/x86_64/images"
    server.put(
        f"{place}/",
        listing(
            "CentOS-Stream-GenericCloud-9-20240101.0.x86_64.qcow2",
            nine,
            "CentOS-Stream-GenericCloud-9-latest.x86_64.qcow2",
            "CHECKSUM",
        ),
    )
    server.put(f"{place}/CHECKSUM", f"# {nine}: 1 bytes\nSHA256 ({nine}) = {sha256(image)}\n")
    server.put(f"{place}/{nine}", image)
    ten = "CentOS-Stream-GenericCloud-x86_64-10-20251201.0.x86_64.qcow2"
    server.put(f"{root}/10-stream/x86_64/images/", listing(ten, f"{ten}.SHA256SUM"))
    seven = f"{root}/7/images"
    builds = ("1503", "1804_02", "1805", "1809", "1811", "2009", "2211")
    names = [f"CentOS-7-x86_64-GenericCloud-{build}.qcow2" for build in builds]
    server.put(
        f"{seven}/",
        listing(
            "CentOS-7-x86_64-GenericCloud.qcow2",
            "CentOS-7-x86_64-GenericCloud-20140916_01.qcow2",
            *names,
            f"{names[1]}.xz",
            "sha256sum.txt",
            "sha256sum.txt.asc",
        ),
    )
    sums = "".join(f"{sha256(image)}  {name}\n" for name in names)
    server.put(f"{seven}/sha256sum.txt", sums)
    for name in names:
        server.put(f"{seven}/{name}", image)
    return f"{seven}/sha256sum.txt", sums


def flatcar(server, image):
    def release(channel, *architectures):
        return {
            "channel": channel,
            "architectures": list(architectures),
            "release_date": "2025-01-30 18:31:43 +0000",
            "major_software": {"kernel": ["6.6.74"], "ignition": ["2.19.0"]},
            "release_notes": "Changes",
        }

    releases = {
        "4081.2.1": release("stable", "amd64", "arm64"),
        "4230.2.10": release("stable", "amd64", "arm64"),
        "4230.2.3": release("stable", "amd64"),
        "current": release("stable", "amd64", "arm64"),
    }
    server.put("/flatcar/releases-json/releases-stable.json", json.dumps(releases))
    packed = pack(bz2, image)
    name = "flatcar_production_qemu_image.img.bz2"
    path = f"/flatcar/amd64-usr/4230.2.10/{name}"
    server.put(path, packed)
    server.put(
        f"{path}.DIGESTS",
        f"# MD5 HASH\n{'0' * 32}  {name}\n# SHA1 HASH\n{'0' * 40}  {name}\n"
        f"# SHA512 HASH\n{sha512(packed)}  {name}\n",
    )
    return path, packed


def fedora_coreos(server, image):
    host = "https://builds.coreos.fedoraproject.org"
    packed = pack(lzma, image)

    def disk(version):
        path = (
            f"/prod/streams/stable/builds/{version}/x86_64/"
            f"fedora-coreos-{version}-qemu.x86_64.qcow2.xz"
        )
        server.put(f"/fedora-coreos{path}", packed)
        return {
            "location": f"{host}{path}",
            "signature": f"{host}{path}.sig",
            "sha256": sha256(packed),
            "uncompressed-sha256": sha256(image),
        }

    versions = ("43.20260401.3.0", "43.20260401.3.1", "44.20260817.3.0", "44.20260817.3.2")
    server.put(
        "/fedora-coreos/prod/streams/stable/releases.json",
        json.dumps(
            {
                "note": "For use only by Fedora CoreOS internal tooling.",
                "releases": [
                    {
                        "commits": [
                            {"architecture": "aarch64", "checksum": OTHER},
                            {"architecture": "x86_64", "checksum": OTHER},
                        ],
                        "version": version,
                        "metadata": f"{host}/prod/streams/stable/builds/{version}/release.json",
                    }
                    for version in versions
                ],
                "metadata": {"last-modified": "2026-09-01T10:00:00Z"},
                "stream": "stable",
            }
        ),
    )
    for version in versions[:-1]:
        server.put(
            f"/fedora-coreos/prod/streams/stable/builds/{version}/release.json",
            json.dumps(
                {
                    "release": version,
                    "stream": "stable",
                    "metadata": {"last-modified": "2026-09-01T10:00:00Z"},
                    "architectures": {
                        "x86_64": {
                            "commit": OTHER,
                            "media": {"qemu": {"artifacts": {"qcow2.xz": {"disk": disk(version)}}}},
                        }
                    },
                }
            ),
        )
    server.put(
        "/fedora-coreos/streams/stable.json",
        json.dumps(
            {
                "stream": "stable",
                "metadata": {"last-modified": "2026-09-01T10:00:00Z"},
                "architectures": {
                    "x86_64": {
                        "artifacts": {
                            "qemu": {
                                "release": versions[-1],
                                "formats": {"qcow2.xz": {"disk": disk(versions[-1])}},
                            }
                        }
                    }
                },
            }
        ),
    )
    path = (
        f"/fedora-coreos/prod/streams/stable/builds/{versions[-1]}/x86_64/"
        f"fedora-coreos-{versions[-1]}-qemu.x86_64.qcow2.xz"
    )
    return path, packed
