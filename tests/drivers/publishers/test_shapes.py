import pytest

from labctl.drivers.publishers.failure import PublisherError
from labctl.drivers.publishers.shapes import Node, parse_listing, parse_sums
from labctl.model.publisher import Algorithm, Checksum
from tests.drivers.publishers.server import listing


def test_a_listing_gives_the_plain_names_of_its_folder_only():
    page = listing("a.qcow2", "b/", "./c.img", "%64.img") + "".join(
        f'<a href="{target}">x</a>'
        for target in (
            "../up.qcow2",
            "/etc/passwd",
            "https://evil.test/x",
            "//evil.test/x",
            "..%2f..%2fetc",
            "a/b",
            ".hidden",
            "x y",
            "x\\y",
            "?C=M",
        )
    )
    assert parse_listing("rocky", "https://x/", page) == ("a.qcow2", "b/", "c.img", "d.img")


def test_a_page_without_names_is_no_listing():
    with pytest.raises(PublisherError) as caught:
        parse_listing("rocky", "https://x/", "<html>Please log in</html>")
    assert caught.value.brief == "the index of publisher 'rocky' cannot be understood"
    assert caught.value.detail == "https://x/: it lists no files"


def test_sums_are_read_in_both_styles_and_weak_ones_are_passed_over():
    one, two = "a" * 64, "B" * 128
    text = (
        f"# x.qcow2: 5 bytes\nSHA256 (x.qcow2) = {one}\n{one} *y.img\n{'c' * 32}  z.bz2\n"
        f"{'d' * 40}  z.bz2\n{two}  z.bz2\n{one}  z.bz2\nMD5 (m) = {'e' * 32}\nSHA256 (s) = abc\n"
        f"{one}  ./folder/w.img\n"
    )
    assert parse_sums(text) == {
        "x.qcow2": Checksum(algorithm=Algorithm.SHA256, digest=one),
        "y.img": Checksum(algorithm=Algorithm.SHA256, digest=one),
        "z.bz2": Checksum(algorithm=Algorithm.SHA512, digest=two.lower()),
        "w.img": Checksum(algorithm=Algorithm.SHA256, digest=one),
    }


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (lambda top: top.get("nothing"), "the top has no 'nothing'"),
        (lambda top: top.get("list").items(), "list is not a mapping"),
        (lambda top: top.get("map").elements(), "map is not a list"),
        (lambda top: top.get("map").get("number").text(), "map.number is not text"),
        (lambda top: top.get("list").elements()[0].size(), "list.0 is not a number of bytes"),
        (
            lambda top: top.get("text").checksum(Algorithm.SHA256),
            "text is not a sha256 checksum",
        ),
    ],
)
def test_an_index_of_another_shape_says_where(ask, why):
    top = Node(
        {"list": ["x"], "map": {"number": 1}, "text": "12"}, "ubuntu", "https://x/index.json"
    )
    with pytest.raises(PublisherError) as caught:
        ask(top)
    assert caught.value.detail == f"https://x/index.json: {why}"


def test_sizes_may_be_text():
    assert Node("583729152", "fedora", "https://x").size() == 583729152
    assert Node(0, "fedora", "https://x").size() is None
