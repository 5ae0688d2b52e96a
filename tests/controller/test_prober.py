from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from labctl.controller import prober as module
from labctl.controller.prober import Prober
from labctl.drivers.probe import ProbeResult, TcpTarget
from labctl.model.instance import NOT_CHECKED, Health, HealthState

NOW = datetime(2026, 11, 23, tzinfo=UTC)
SECOND = timedelta(seconds=1)
TARGET = TcpTarget(host="127.0.0.1", port=1)
HEALTHY, UNHEALTHY, UNKNOWN = HealthState.HEALTHY, HealthState.UNHEALTHY, HealthState.UNKNOWN


class Answers:
    """Stands in for the network: the next answer is what the test says."""

    def __init__(self) -> None:
        self.state = HEALTHY
        self.metrics = ""
        self.is_silent = False
        self.asked = 0

    def __call__(self, target, *, timeout):
        self.asked += 1
        if self.is_silent:
            return ProbeResult(state=UNKNOWN, detail="no answer", is_silence=True)
        return ProbeResult(state=self.state, detail=self.state.value, custom_metrics=self.metrics)


@pytest.fixture
def answers(monkeypatch):
    made = Answers()
    monkeypatch.setattr(module, "check", made)
    return made


@pytest.fixture
def prober(answers):
    with ThreadPoolExecutor(2) as pool:
        yield Prober(pool, lambda: None)


def watch(prober, *, needed=1, generation=1, known=NOT_CHECKED):
    prober.watch(
        "web_0",
        TARGET,
        generation=generation,
        interval=5 * SECOND,
        needed=needed,
        known=known,
    )


def turn(prober, now):
    """Ask what is due, wait for the answer, take it in; returns the news."""
    news = prober.step(now)
    prober.await_answers(5 * SECOND)
    return {**news, **prober.step(now)}


def test_the_first_answer_is_a_verdict(prober):
    watch(prober)
    assert prober.health("web_0").state is HealthState.INITIALIZING
    assert turn(prober, NOW) == {"web_0": Health(state=HEALTHY, since=NOW, detail="Healthy")}


def test_what_is_known_already_is_no_news(prober):
    known = Health(state=HEALTHY, since=NOW - 60 * SECOND, detail="Healthy")
    watch(prober, known=known)
    assert turn(prober, NOW) == {}
    assert prober.health("web_0") == known


def test_a_healthy_instance_is_asked_at_its_interval_and_another_one_sooner(prober, answers):
    watch(prober)
    turn(prober, NOW)
    assert prober.next_due() == NOW + 5 * SECOND
    turn(prober, NOW + SECOND)
    assert answers.asked == 1
    answers.state = UNHEALTHY
    turn(prober, NOW + 5 * SECOND)
    assert prober.next_due() < NOW + 6 * SECOND


def test_an_instance_that_stays_unhealthy_is_asked_less_and_less_often(prober, answers):
    answers.state = UNHEALTHY
    watch(prober)
    moment = NOW
    for _ in range(60):
        turn(prober, moment)
        moment = prober.next_due()
    assert moment > NOW + 120 * SECOND
    answers.is_silent = True
    turn(prober, moment)
    assert prober.next_due() < moment + SECOND  # something is happening: look closely


def test_a_verdict_changes_after_as_many_equal_answers_as_are_needed(prober, answers):
    watch(prober, needed=2)
    assert turn(prober, NOW) == {}
    assert turn(prober, NOW + SECOND)["web_0"].state is HEALTHY
    answers.state = UNHEALTHY
    assert turn(prober, NOW + 10 * SECOND) == {}
    answers.state = HEALTHY
    assert turn(prober, NOW + 20 * SECOND) == {}
    answers.state = UNHEALTHY
    assert turn(prober, NOW + 30 * SECOND) == {}
    assert turn(prober, NOW + 35 * SECOND)["web_0"].state is UNHEALTHY


def test_consecutive_answers_of_one_that_was_healthy_come_an_interval_apart(prober, answers):
    watch(prober, needed=3)
    for number in range(3):  # until the first Healthy, as fast as may be
        assert prober.next_due() is None or prober.next_due() < NOW + 2 * SECOND
        turn(prober, NOW + number * SECOND)
    assert prober.health("web_0").state is HEALTHY
    answers.state, moment = UNHEALTHY, NOW + 7 * SECOND
    for _ in range(2):
        assert turn(prober, moment) == {}
        assert prober.next_due() == moment + 5 * SECOND
        moment += 5 * SECOND
    assert turn(prober, moment)["web_0"].state is UNHEALTHY
    answers.state = HEALTHY
    for _ in range(2):
        moment += 5 * SECOND
        assert turn(prober, moment) == {}
        assert prober.next_due() == moment + 5 * SECOND
    assert turn(prober, moment + 5 * SECOND)["web_0"].state is HEALTHY


def test_one_good_answer_among_bad_ones_begins_the_count_anew(prober, answers):
    watch(prober, needed=2)
    turn(prober, NOW)
    turn(prober, NOW + SECOND)
    for number in range(10):
        answers.state = HEALTHY if number % 2 else UNHEALTHY
        assert turn(prober, NOW + (number + 2) * 5 * SECOND) == {}


def test_an_agent_that_says_unknown_has_counted_already(prober, answers):
    watch(prober)
    turn(prober, NOW)
    answers.state = UNKNOWN
    assert turn(prober, NOW + 10 * SECOND)["web_0"].state is UNKNOWN


def test_custom_metrics_are_news_and_silence_takes_nothing_back(prober, answers):
    watch(prober)
    turn(prober, NOW)
    answers.metrics = "{}"
    told = Health(state=HEALTHY, since=NOW, detail="Healthy", custom_metrics="{}")
    assert turn(prober, NOW + 5 * SECOND) == {"web_0": told}
    assert turn(prober, NOW + 10 * SECOND) == {}
    answers.is_silent = True
    for number in range(3):
        turn(prober, NOW + (15 + number) * SECOND)
    assert prober.health("web_0").state is UNKNOWN
    assert prober.health("web_0").custom_metrics == "{}"
    answers.is_silent, answers.metrics = False, ""
    assert turn(prober, NOW + 30 * SECOND)["web_0"].custom_metrics == ""


def test_an_agent_that_is_initializing_is_waited_for(prober, answers):
    watch(prober)
    answers.state = HealthState.INITIALIZING
    assert turn(prober, NOW) == {}
    assert prober.health("web_0").state is HealthState.INITIALIZING
    assert prober.health("web_0").since == NOW
    assert not prober.has_open


def test_one_or_two_missed_answers_do_not_make_an_instance_unknown(prober, answers):
    watch(prober)
    turn(prober, NOW)
    answers.is_silent = True
    assert turn(prober, NOW + 10 * SECOND) == {}
    assert turn(prober, NOW + 11 * SECOND) == {}
    assert turn(prober, NOW + 12 * SECOND)["web_0"].state is UNKNOWN


def test_a_new_generation_starts_without_a_verdict(prober):
    watch(prober)
    turn(prober, NOW)
    watch(prober, generation=2, known=prober.health("web_0"))
    assert prober.health("web_0").state is HealthState.INITIALIZING


def test_another_question_on_the_same_generation_starts_anew_and_the_same_one_does_not(prober):
    watch(prober)
    turn(prober, NOW)
    known = prober.health("web_0")
    watch(prober, known=known)
    assert prober.health("web_0").state is HEALTHY
    watch(prober, needed=2, known=known)
    assert prober.health("web_0").state is HealthState.INITIALIZING


def test_the_latest_answers_are_kept_for_evidence(prober):
    watch(prober)
    for number in range(module.KEPT_SAMPLES + 5):
        turn(prober, NOW + number * 10 * SECOND)
    samples = prober.samples("web_0")
    assert len(samples) == module.KEPT_SAMPLES
    assert samples[-1].at == NOW + (module.KEPT_SAMPLES + 4) * 10 * SECOND
    prober.forget("web_0")
    assert prober.samples("web_0") == ()


def test_a_clock_that_was_set_back_does_not_put_questions_off(prober, answers):
    watch(prober)
    turn(prober, NOW)
    asked = answers.asked
    turn(prober, NOW - timedelta(hours=1))
    turn(prober, NOW - timedelta(hours=1) + 10 * SECOND)
    assert answers.asked > asked


def test_a_step_tells_whether_any_verdict_turned(prober, answers):
    watch(prober, known=Health(state=HEALTHY, since=NOW, detail="Healthy"))
    turn(prober, NOW)
    assert prober.has_turned  # nothing to record, but "not asked yet" is over
    prober.step(NOW + 5 * SECOND)
    prober.await_answers(5 * SECOND)
    assert prober.step(NOW + 5 * SECOND) == {}
    assert not prober.has_turned
    answers.state = UNHEALTHY
    turn(prober, NOW + 10 * SECOND)
    assert prober.has_turned
