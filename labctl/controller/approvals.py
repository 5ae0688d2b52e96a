"""Asks the program or the server of the spec whether a batch may begin, beside the loop."""

import json
import logging
import threading
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic

from labctl.controller.clock import now as read_clock
from labctl.controller.extensions import last_line
from labctl.controller.lab import Lab
from labctl.controller.signals import Signal
from labctl.controller.upgrade_control import approve_batch, reject_batch
from labctl.drivers.program import run_program
from labctl.drivers.webhook import post
from labctl.errors import HostError, LabError, NotFoundError, RefusedError
from labctl.model.control import ApprovalPolicy
from labctl.model.event import EventKind
from labctl.model.plan import ScaleSet
from labctl.model.upgrade import Upgrade
from labctl.planner import find_approval
from labctl.planner.batch import choose_batch
from labctl.planner.situation import survey
from labctl.store.events import add_event

_FIRST_PAUSE = timedelta(seconds=1)
_LONGEST_PAUSE = timedelta(minutes=1)
_CALL = timedelta(seconds=30)
_PATIENCE = timedelta(seconds=6)  # a program that is told to end may take five seconds
_OK, _LATER = 200, 202
_REASON_LIMIT = 300  # characters

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One batch that waits for its approval."""

    scale_set: str
    upgrade: int
    batch: int
    asked_at: datetime
    until: datetime
    policy: ApprovalPolicy
    document: str  # JSON, what is told


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer to a question."""

    approves: bool
    reason: str


class Asker:
    """Asks for one reconciler, in a thread; the answer is recorded as a person's would be."""

    def __init__(self, lab: Lab, wake: Callable[[], None]) -> None:
        self._lab = lab
        self._wake = wake
        self._question: Question | None = None
        self._left: list[threading.Thread] = []  # those of programs that are told to end
        self._signal = Signal()
        self._thread: threading.Thread | None = None

    def consider(self, view: ScaleSet) -> None:
        """Ask what is to be asked now; a question that nobody asks any more is given up."""
        question = find_question(view)
        if _key(question) == _key(self._question):
            return
        self._give_up()
        self._question = question
        if question is None:
            return
        self._signal = Signal()
        self._thread = threading.Thread(
            target=self._ask,
            args=(question, self._signal),
            name=f"approval-{view.name}",
            daemon=True,  # a server that hangs must not keep a command from its end
        )
        self._thread.start()

    def close(self) -> None:
        """Stop asking; the next controller asks again. Programs are waited for, servers not."""
        self._give_up()
        end = monotonic() + _PATIENCE.total_seconds()
        for thread in self._left:
            thread.join(max(end - monotonic(), 0))

    def _give_up(self) -> None:
        """Take no answer any more, without waiting for whoever was asked."""
        self._signal.cancel()
        asked = self._question
        if self._thread is not None and asked is not None and asked.policy.command is not None:
            self._left = [each for each in (*self._left, self._thread) if each.is_alive()]
        self._thread = self._question = None

    def _ask(self, question: Question, signal: Signal) -> None:
        pause, told = _FIRST_PAUSE, ""
        while not _is_over(question, signal):
            trouble = self._ask_once(question, signal)
            if trouble is None or _is_over(question, signal):
                return
            if trouble and trouble != told and self._note(question, trouble):
                told = trouble
            signal.event.wait(pause.total_seconds())
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _ask_once(self, question: Question, signal: Signal) -> str | None:
        """Why there is no answer yet, empty: without a reason; None: there is one on record."""
        try:
            verdict = ask(self._lab, question, signal)
            if verdict is None or _is_over(question, signal):
                return ""
            self._record(question, verdict)
        except HostError:
            return ""  # the store is away for a moment; the loop tells it
        except LabError as error:
            return error.brief
        except Exception:
            # A thread that ends here would leave the answer to the default of the policy.
            log.exception("internal error in the question about upgrade %s", question.upgrade)
            return "internal error"
        return None

    def _record(self, question: Question, verdict: Verdict) -> None:
        by, moment = question.policy.asked, read_clock()
        asked = (question.upgrade, question.batch)
        try:
            with self._lab.database.write() as connection:
                if verdict.approves:
                    approve_batch(
                        connection,
                        question.scale_set,
                        now=moment,
                        by=by,
                        asked=asked,
                        reason=verdict.reason,
                    )
                else:
                    reject_batch(
                        connection,
                        question.scale_set,
                        reason=verdict.reason,
                        now=moment,
                        by=by,
                        asked=asked,
                    )
        except (RefusedError, NotFoundError):
            return  # a person was faster, or the upgrade has ended
        self._wake()

    def _note(self, question: Question, trouble: str) -> bool:
        """Tell it; False: the store is away."""
        message = f"{question.policy.asked} gave no answer: {_clean(trouble)}"
        try:
            with self._lab.database.write() as connection:
                add_event(
                    connection,
                    at=read_clock(),
                    scale_set=question.scale_set,
                    upgrade=question.upgrade,
                    kind=EventKind.WARNING,
                    message=f"{message}; asked again until {question.until:%Y-%m-%d %H:%M} UTC",
                )
        except LabError:
            return False
        except Exception:
            log.exception("internal error in the note that %s", message)
            return False
        return True


def _is_over(question: Question, signal: Signal) -> bool:
    return signal.event.is_set() or read_clock() >= question.until


def find_question(view: ScaleSet) -> Question | None:
    """What a program or a server is to be asked now."""
    upgrade = view.upgrade
    if upgrade is None or upgrade.paused_at or upgrade.cancel_asked_at or view.is_deleting:
        return None
    policy, asked_at = find_approval(upgrade), upgrade.approval_asked_at
    if policy is None or asked_at is None or (policy.command is None and policy.webhook is None):
        return None
    return Question(
        scale_set=view.name,
        upgrade=upgrade.id,
        batch=upgrade.batches + 1,
        asked_at=asked_at,
        until=asked_at + policy.timeout,
        policy=policy,
        document=_describe(view, upgrade, policy, asked_at),
    )


def ask(lab: Lab, question: Question, signal: Signal) -> Verdict | None:
    """Ask once; None: the answer comes later. Raises LabError when there is no sensible answer."""
    policy, left = question.policy, question.until - read_clock()
    left = max(left, timedelta(seconds=1))
    if policy.command is not None:
        done = run_program(
            policy.command,
            stdin=question.document,
            variables={
                "LABCTL_SCALE_SET": question.scale_set,
                "LABCTL_UPGRADE": str(question.upgrade),
                "LABCTL_BATCH": str(question.batch),
            },
            timeout=left,
            check=signal.check,
            lock=lab.settings.locks_dir / f"_approval-{question.scale_set}.lock",
        )
        if done.exit_code is None:
            raise LabError("it did not end in time")
        return Verdict(approves=done.exit_code == 0, reason=_clean(last_line(done.output)))
    if policy.webhook is None:
        raise LabError("there is nobody to ask")
    answer = post(policy.webhook, question.document.encode(), timeout=min(left, _CALL))
    if answer.status == _LATER:
        return None
    if answer.status != _OK:
        raise LabError(f"{policy.webhook.host} answered {answer.status}")
    return _read_answer(answer.body, policy.webhook.host)


def _read_answer(body: bytes, host: str) -> Verdict:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    decision = found.get("decision") if isinstance(found, dict) else None
    if not isinstance(decision, str) or decision not in {"Approve", "Reject"}:
        raise LabError(f'{host} answered without "decision": "Approve" or "Reject"')
    reason = found.get("reason")
    text = _clean(reason) if isinstance(reason, str) else ""
    return Verdict(approves=decision == "Approve", reason=text)


def _clean(text: str) -> str:
    """One line that every store and terminal takes, whatever somebody has answered."""
    whole = text.encode("utf-8", "replace").decode()  # JSON may hold half a character
    plain = (" " if unicodedata.category(each) == "Cc" else each for each in whole)
    return " ".join("".join(plain).split())[:_REASON_LIMIT]


def _describe(view: ScaleSet, upgrade: Upgrade, policy: ApprovalPolicy, asked_at: datetime) -> str:
    batch = choose_batch(survey(view), upgrade).batch
    document = {
        "id": f"{view.name}-{upgrade.id}-{upgrade.batches + 1}",
        "scaleSet": view.name,
        "upgrade": upgrade.id,
        "batch": upgrade.batches + 1,
        "instances": [situation.instance.name for situation in batch],
        "target": {
            "version": upgrade.target_version,
            "modelRevision": upgrade.model_revision,
        },
        "purpose": upgrade.purpose.value,
        "startedBy": upgrade.started_by.value,
        "askedAt": asked_at.isoformat(),
        "until": (asked_at + policy.timeout).isoformat(),
        "onTimeout": policy.on_timeout.value,
    }
    return json.dumps(document)


def _key(question: Question | None) -> tuple[object, ...] | None:
    if question is None:
        return None
    return (question.upgrade, question.batch, question.asked_at)
