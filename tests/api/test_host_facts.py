"""What only the host can tell of a spec is checked for clients of the API, too."""

from tests.api.labs import GROUP, load, put_set


def test_a_window_in_a_time_zone_that_is_none_is_refused_with_its_path(api):
    put_set(api)
    before = load(api).spec

    def patch(zone: str):
        window = {"start": "22:00", "duration": "3h", "timeZone": zone}
        policy = {"upgradePolicy": {"maintenanceWindows": [window]}}
        return api.ask("PATCH", f"{GROUP}/Web", body={"properties": {"labctl": policy}})

    refused = patch("Mars/Olympus")
    assert refused.status_code == 400
    at = "properties.labctl.upgradePolicy.maintenanceWindows[0].timeZone"
    assert refused.json()["error"]["target"] == at
    assert load(api).spec == before
    assert patch("Europe/Berlin").status_code == 200
