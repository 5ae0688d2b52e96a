"""Rich health states (2.0): one contract for both agents, agent.py and agent.sh."""

import json
from pathlib import Path

import pytest

from .conftest import Agent, Application, free_port
from .test_agent import self_signed

METRICS = '{"rollingUpgrade": {"PhaseOrderingNumber": 0, "SkipUpgrade": true}}'
HEALTHY = {"ApplicationHealthState": "Healthy"}


def says(**values):
    return json.dumps(values).encode()


@pytest.fixture
def rich(agent, application):
    """Starts the agent on the application; its grace period is long, unless told otherwise."""
    application.body = says(**HEALTHY)

    def start(**config):
        values = {"typeHandlerVersion": "2.0", "gracePeriodSeconds": 60}
        agent.start(**{"appPort": application.port, **values, **config})
        return agent

    return start


def state_of(agent):
    return agent.verdict()[0]


@pytest.mark.parametrize("status", [200, 202, 299])
def test_any_2xx_with_a_state_in_its_body_is_an_answer(rich, application, status):
    application.status = status
    agent = rich()
    seen = f"HTTP {status} from /health"
    agent.wait(lambda: agent.verdict() == ("Healthy", f"{seen}: Healthy"))
    application.body = says(ApplicationHealthState="Unhealthy")
    agent.wait(lambda: agent.verdict() == ("Unhealthy", f"{seen}: Unhealthy"))


@pytest.mark.parametrize(
    ("body", "state"),
    [
        (b'{"applicationHealthState": "Healthy"}', "Healthy"),
        (b'{"APPLICATIONHEALTHSTATE":"HEALTHY"}', "Healthy"),
        (b' \r\n{ "ApplicationHealthState"\t:\n" unhealthy " }\n\n', "Unhealthy"),
        (b'{"a": [1, -2.5e3, {"b": null}, []], "ApplicationHealthState": "Healthy"}', "Healthy"),
        (b'{"quote": "\\" \\u00e9 }", "ApplicationHealthState": "Healthy"}', "Healthy"),
        (b'{"name": "\xc3\xa9 \xff", "ApplicationHealthState": "Healthy"}', "Healthy"),
        (b"", "Unknown"),
        (b"ok\n", "Unknown"),
        (b"{}", "Unknown"),
        (b'{"ApplicationHealthState": "Initializing"}', "Unknown"),
        (b'{"ApplicationHealthState": true}', "Unknown"),
        (b'{"ApplicationHealthState": ["Healthy"]}', "Unknown"),
        (b'{"inner": {"ApplicationHealthState": "Healthy"}}', "Unknown"),
        (b'{"ApplicationHealthState": "Healthy"', "Unknown"),
        (b'{"ApplicationHealthState": "Healthy",}', "Unknown"),
        (b'{"a": "\\q", "ApplicationHealthState": "Healthy"}', "Unknown"),
        (b'{"a": "two\nlines", "ApplicationHealthState": "Healthy"}', "Unknown"),
        (b'{"a": ' + b"[" * 5000 + b"}", "Unknown"),
        (b'{"a": "' + b"x" * 20_000 + b'", "ApplicationHealthState": "Healthy"}', "Unknown"),
    ],
)  # fmt: skip
def test_the_state_is_read_leniently_and_everything_else_is_unknown(rich, application, body, state):
    application.body = body
    agent = rich(gracePeriodSeconds=0)
    agent.wait(lambda: state_of(agent) == state)
    if state == "Unknown":
        assert "HTTP 200 from /health, without a valid ApplicationHealthState" in agent.verdict()[1]


@pytest.mark.parametrize("status", [302, 404, 503])
def test_any_other_status_is_unknown_whatever_the_body_says(rich, application, status):
    application.status = status
    agent = rich(gracePeriodSeconds=0)
    agent.wait(lambda: state_of(agent) == "Unknown")
    agent.wait(lambda: agent.verdict() == ("Unknown", f"HTTP {status} from /health"))


def test_an_application_that_is_not_up_yet_stays_initializing_in_its_grace_period(
    rich, application
):
    application.status = 503
    agent = rich()
    agent.wait(lambda: len(application.paths) >= 3)
    assert agent.verdict() == ("Initializing", "not probed yet")
    application.status = 200
    agent.wait(lambda: state_of(agent) == "Healthy")
    application.status = 503  # it happens once only
    agent.wait(lambda: state_of(agent) == "Unknown")


def test_the_end_of_the_grace_period_makes_it_unknown_with_the_reason(rich):
    agent = rich(appPort=free_port(), gracePeriodSeconds=2)
    reason = "no steady answer within 2 s; /health: Connection refused"
    agent.wait(lambda: agent.verdict() == ("Unknown", reason))


def test_the_end_of_the_grace_period_comes_although_answers_change_all_the_time(rich, application):
    agent = rich(numberOfProbes=24, gracePeriodSeconds=2)
    agent.wait(lambda: state_of(agent) == "Unknown")
    assert "no steady answer within 2 s; HTTP 200" in agent.verdict()[1]


def test_the_grace_period_is_interval_times_probes_unless_told_otherwise(agent, application):
    application.status = 503
    agent.start(
        appPort=application.port, typeHandlerVersion="2.0", intervalSeconds=1, numberOfProbes=2
    )
    agent.wait(lambda: "no steady answer within 2 s" in agent.verdict()[1])


def test_as_many_equal_answers_as_are_needed_end_initializing(rich, application):
    application.body = says(ApplicationHealthState="Unhealthy")
    agent = rich(numberOfProbes=3)
    assert state_of(agent) == "Initializing"
    agent.wait(lambda: state_of(agent) == "Unhealthy")
    assert len(application.paths) >= 3


def test_tcp_knows_no_unknown_and_its_grace_period_ends_unhealthy(rich, application):
    agent = rich(
        protocol="tcp", requestPath="", appPort=free_port(), numberOfProbes=24, gracePeriodSeconds=2
    )
    agent.wait(lambda: state_of(agent) == "Unhealthy")
    assert "no steady answer within 2 s" in agent.verdict()[1]


def test_tcp_needs_the_handshake_only(rich, application):
    agent = rich(protocol="tcp", requestPath="")
    agent.wait(lambda: agent.verdict() == ("Healthy", f"port {application.port} accepts"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("customMetrics", METRICS),
        ("CustomMetrics", METRICS.replace(" ", "\n ")),
        ("customMetrics", json.loads(METRICS)),  # not double-encoded
        ("customMetrics", "no JSON at all: \" \\ ' $(id) `id` é"),
    ],
)
def test_custom_metrics_are_passed_on(rich, application, key, value):
    application.body = says(**HEALTHY, **{key: value})
    agent = rich()
    agent.wait(lambda: state_of(agent) == "Healthy")
    passed = agent.get()[1]["customMetrics"]
    if isinstance(value, dict):
        assert json.loads(passed) == value
    else:
        assert passed == value


def test_custom_metrics_outlast_silence_but_not_an_answer_without_them(rich, application):
    application.body = says(**HEALTHY, customMetrics=METRICS)
    agent = rich()
    agent.wait(lambda: state_of(agent) == "Healthy")
    application.status = 503
    agent.wait(lambda: state_of(agent) == "Unknown")
    assert agent.get()[1]["customMetrics"] == METRICS
    application.status, application.body = 200, says(**HEALTHY)
    agent.wait(lambda: "customMetrics" not in agent.get()[1])


@pytest.mark.parametrize("value", ["x" * 5000, None, 7, ["a"]])
def test_other_custom_metrics_are_left_out(rich, application, value):
    application.body = says(**HEALTHY, customMetrics=value)
    agent = rich()
    agent.wait(lambda: state_of(agent) == "Healthy")
    assert "customMetrics" not in agent.get()[1]


def test_1_0_does_not_look_at_the_body(agent, application):
    application.body = says(ApplicationHealthState="Unhealthy", customMetrics=METRICS)
    agent.start(appPort=application.port, typeHandlerVersion="1.0")
    agent.wait(lambda: state_of(agent) == "Healthy")
    assert "customMetrics" not in agent.get()[1]


def test_https_is_rich_too(agent, tmp_path):
    application = Application(tls=self_signed(tmp_path / "tls.pem"))
    application.body = says(**HEALTHY, customMetrics=METRICS)
    agent.start(
        appPort=application.port, protocol="https", typeHandlerVersion="2.0", gracePeriodSeconds=60
    )
    agent.wait(lambda: agent.verdict() == ("Healthy", "HTTP 200 from /health: Healthy"))
    assert agent.get()[1]["customMetrics"] == METRICS
    application.status = 302
    agent.wait(lambda: agent.verdict() == ("Unknown", "HTTP 302 from /health"))
    application.close()


@pytest.mark.parametrize("kind", ["py", "sh"])
def test_an_answer_in_chunks_of_a_server_that_does_not_hang_up_is_read(kind, tmp_path, raw_server):
    body = says(**HEALTHY)
    raw_server.answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
        % (len(body), body)
    )
    agent = Agent(kind, tmp_path)
    try:
        agent.start(appPort=raw_server.port, typeHandlerVersion="2.0", gracePeriodSeconds=60)
        agent.wait(lambda: state_of(agent) == "Healthy")
    finally:
        agent.stop()


def test_the_python_agent_stays_small_with_rich_answers_over_https(tmp_path):
    application = Application(tls=self_signed(tmp_path / "tls.pem"))
    application.body = says(**HEALTHY, customMetrics=METRICS, padding="x" * 7000)
    agent = Agent("py", tmp_path)
    agent.start(
        appPort=application.port, protocol="https", typeHandlerVersion="2.0", gracePeriodSeconds=60
    )
    try:
        agent.wait(lambda: state_of(agent) == "Healthy")
        agent.wait(lambda: len(application.paths) >= 5)
        status = Path(f"/proc/{agent.process.pid}/status").read_text()
    finally:
        agent.stop()
        application.close()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    assert int(resident.split()[1]) < 20_000  # kB
