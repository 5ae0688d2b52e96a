import requests

from tests.api.serving import Api


def test_what_az_cloud_register_asks_is_one_object_without_a_token(api: Api):
    answer = requests.get(
        f"{api.url}/metadata/endpoints", params={"api-version": "2022-09-01"}, timeout=10
    )
    assert answer.status_code == 200
    found = answer.json()
    assert found["resourceManager"] == f"{api.url}/"
    assert found["authentication"]["loginEndpoint"] == f"{api.url}/adfs"
    assert found["authentication"]["audiences"] == ["https://management.lab"]
    assert isinstance(found["suffixes"], dict)


def test_an_older_az_gets_the_older_shape(api: Api):
    answer = requests.get(
        f"{api.url}/metadata/endpoints", params={"api-version": "2015-01-01"}, timeout=10
    )
    assert answer.json() == {
        "galleryEndpoint": f"{api.url}/",
        "graphEndpoint": f"{api.url}/",
        "portalEndpoint": f"{api.url}/",
        "authentication": {
            "loginEndpoint": f"{api.url}/adfs",
            "audiences": ["https://management.lab"],
        },
    }


def test_links_have_the_name_that_the_client_used(api: Api):
    port = api.url.rpartition(":")[2]
    answer = requests.get(f"http://localhost:{port}/metadata/endpoints", timeout=10)
    assert answer.json()["galleryEndpoint"] == f"http://localhost:{port}/"
