"""Mistakes made on purpose in each main rule: the other tests of the planner must notice them.

A mutant is the package with one text replaced. It meets the tests beside its module in a process
of its own (see nursery.py); if it lives on, the stories and some generated scenarios in this one,
under another name; and then all other tests of the planner, in a process again.
"""

import contextlib
import importlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.planner.mutation import Mutant
from tests.planner.nursery import Nursery
from tests.planner.scenarios import EVENTS, FATES, WISHES, Scenario, make_world
from tests.planner.stories import STORIES, tell
from tests.planner.test_properties import (
    check_as_many_as_wanted_and_no_disk_too_many,
    check_restored_have_the_disk_of_before,
    check_upgrade_has_ended,
)
from tests.planner.world import PlanFunction, real_plan

FOLDER = Path(__file__).parent

pytestmark = pytest.mark.timeout(600)  # each may need all other tests of the planner

# rule, file, text, what it becomes
MUTANTS = [
    # how many in a batch
    ("batch", "batch.py", "* policy.max_batch_instance_percent // 100)", "* 40 // 100)"),
    ("batch", "batch.py", "    if total <= _SMALL:\n        return 1\n", ""),
    ("batch", "batch.py", "return max(1, total", "return min(total, 1 + total"),
    ("batch", "batch.py", "len(down | {name}) > limit", "len(batch) == limit"),
    ("batch", "batch.py", "            down.add(name)\n", ""),
    ("batch", "batch.py", "not verdicts[s.instance.name].is_unhealthy)", "s.instance.ordinal)"),
    (
        "batch",
        "batch.py",
        "elif is_on_its_way(situation) or is_initializing",
        "elif is_initializing",
    ),
    # the check of the whole set before each batch
    ("set", "upgrade.py", "fault = find_unhealthy_set(situations, upgrade.policy)", "fault = None"),
    ("set", "limits.py", "count * 100 > percent * total", "count * 100 >= percent * total"),
    (
        "set",
        "limits.py",
        "reason if verdict.is_unhealthy else",
        "reason if not verdict.is_healthy else",
    ),
    (
        "set",
        "limits.py",
        "counted = [s for s in situations if s.is_counted]",
        "counted = situations",
    ),
    (
        "set",
        "upgrade.py",
        "            if upgrade.batches\n",
        "            if not upgrade.batches\n",
    ),
    # the share of the upgraded
    ("upgraded", "limits.py", "        if member.state.has_failed:", "        if False:"),
    ("upgraded", "limits.py", "_exceeds(len(failed), attempted,", "_exceeds(len(failed), 10**6,"),
    (
        "upgraded",
        "limits.py",
        "_exceeds(len(failed), attempted,",
        "_exceeds(len(failed), len(upgrade.members),",
    ),
    ("upgraded", "limits.py", "verdict is not None and verdict.is_unhealthy", "False"),
    # the time for health
    ("health", "upgrade.py", "now >= member.settled_at", "now > member.settled_at"),
    ("health", "upgrade.py", "now >= member.settled_at", "now < member.settled_at"),
    ("health", "upgrade.py", "member.settled_at is not None and now >=", "False and now >="),
    (
        "health",
        "upgrade.py",
        "now >= member.settled_at + upgrade.health_timeout",
        "now >= member.settled_at + upgrade.health_timeout * 2",
    ),
    ("health", "health.py", "health.since < started_at", "health.since > started_at"),
    # restore
    ("restore", "upgrade.py", "MemberState.ROLLING_BACK if is_restored else", ""),
    ("restore", "upgrade.py", "if is_restored else", "if True else"),
    ("restore", "upgrade.py", "if current.evidence_at is None:", "if False:"),
    ("restore", "upgrade.py", "name, MemberState.ROLLED_BACK,", "name, MemberState.SUCCEEDED,"),
    (
        "restore",
        "situation.py",
        "if self.member is not None and self.member.state is MemberState.ROLLING_BACK:\n"
        "            # The",
        "if False:\n            # The",
    ),
    # a refused credential
    (
        "credential",
        "upgrade.py",
        "upgrade.restores and not is_credential",
        "upgrade.restores or 0 and is_credential",
    ),
    (
        "credential",
        "upgrade.py",
        "refused = find_refused_credential(upgrade, situations)",
        "refused = None",
    ),
    (
        "credential",
        "health.py",
        "run.fault is ExtensionFault.CREDENTIAL for",
        "run.fault is None for",
    ),
    (
        "credential",
        "limits.py",
        "is MemberState.FAILED and member.carrier in refused",
        "is MemberState.FAILED",
    ),
    ("tag", "instance.py", "tag=extension.force_update_tag,", "tag=None,"),
    ("tolerated", "health.py", "and run.name not in tolerated", ""),
    # what may be thrown away
    (
        "discard",
        "instance.py",
        "    if situation.is_moving:\n        return None",
        "    if 0:\n        return",
    ),
    (
        "discard",
        "instance.py",
        "        if generation.number == instance.generation:\n            continue\n",
        "",
    ),
    ("discard", "instance.py", "if is_older or generation.evidence_at is not None", "if True"),
    ("discard", "instance.py", "if is_older or generation.evidence_at is not None", "if is_older"),
    ("discard", "instance.py", "    if not verdict.is_healthy:", "    if verdict.is_unhealthy:"),
    # cancel
    ("cancel", "upgrade.py", "if upgrade.cancel_asked_at is not None:", "if False:"),
    (
        "cancel",
        "upgrade.py",
        "    if moving:\n",
        "    if moving and upgrade.cancel_asked_at is None:\n",
    ),
    (
        "cancel",
        "upgrade.py",
        'return _end(upgrade, UpgradeCode.CANCELLED, f"{why}',
        'return _end(upgrade, UpgradeCode.COMPLETED, f"{why}',
    ),
    (
        "cancel",
        "gates.py",
        '    if now >= until:\n        return None\n    reason = f"pause',
        '    if now > until:\n        return None\n    reason = f"pause',
    ),
    # boots
    (
        "boot",
        "boot.py",
        "if self._booting >= self._boots_at_once",
        "if self._booting > self._boots_at_once",
    ),
    ("boot", "boot.py", "        self._booting += 1\n", ""),
    ("boot", "boot.py", "        self._free_memory -= memory\n", ""),
    ("boot", "boot.py", "if memory > self._free_memory", "if memory >= self._free_memory + 2**70"),
    ("boot", "boot.py", "is_unrecorded or isinstance(step, AwaitReady)", "is_unrecorded"),
    (
        "boot",
        "boot.py",
        "(_is_returning, _is_leaving, _is_new)",
        "(_is_new, _is_returning, _is_leaving)",
    ),
    ("boot", "boot.py", "isinstance(step, Start | Stop)):", "isinstance(step, Start)):"),
    # phases by custom metrics
    ("phase", "batch.py", "(phase is None, phase or 0)", "(phase is not None, phase or 0)"),
    ("phase", "batch.py", "(phase is None, phase or 0)", "(phase is None, -(phase or 0))"),
    ("phase", "batch.py", "    pending.sort(key=lambda s: _rank(s, upgrade))  #", "    #"),
    ("phase", "batch.py", "            break  # a phase", "            pass  # a phase"),
    ("phase", "batch.py", "for s in (*batch, *waiting))", "for s in batch)"),
    ("phase", "batch.py", "Counter(_rank(s, upgrade) for s", "Counter(1 for s"),
    ("phase", "members.py", "if judge(situation).is_healthy else None", ""),
    # who asked to be skipped
    ("skip", "batch.py", "situation.member.skips_upgrade:", "False:"),
    ("skip", "batch.py", "situation.member.skips_upgrade:", "situation.member.phase == 0:"),
    ("skip", "upgrade.py", " and not m.skips_upgrade", ""),
    ("skip", "members.py", "skips_upgrade=wish.skips", "skips_upgrade=False"),
    ("skip", "members.py", " if is_told else UpgradeWish()", ""),
    # rich states: who is initializing is waited for
    ("initializing", "batch.py", " or is_initializing(situation)", ""),
    ("initializing", "health.py", " and source.is_rich", ""),
    (
        "initializing",
        "health.py",
        "and judge(situation).state is HealthState.INITIALIZING\n    )",
        "and not judge(situation).is_healthy\n    )",
    ),
    # who leaves
    ("scale", "scale.py", "has_served(instance), 0, -ordinal", "has_served(instance), 0, ordinal"),
    ("scale", "scale.py", "has_served(instance), 0", "not has_served(instance), 0"),
    ("scale", "scale.py", "len(leaving) < excess", "len(leaving) <= excess"),
    ("scale", "scale.py", "if n not in leaving", ""),
    ("scale", "scale.py", "if i.wanted is not Wanted.DELETED]", "]"),
    # protection
    ("protection", "scale.py", "if not i.protect_from_scale_in]", "]"),
    (
        "protection",
        "scale.py",
        "if not i.protect_from_scale_in]",
        "if not i.protect_from_scale_set_actions]",
    ),
    ("protection", "scale.py", "    if leaving:\n", "    if True:\n"),
    (
        "protection",
        "batch.py",
        "elif situation.instance.protect_from_scale_set_actions:",
        "elif 0:",
    ),
    (
        "protection",
        "batch.py",
        "situation.instance.protect_from_scale_set_actions:",
        "situation.instance.is_protected:",
    ),
    ("protection", "admission.py", " or s.instance.protect_from_scale_set_actions", ""),
    # who leaves by a policy
    (
        "scale-in",
        "scale.py",
        "return has_served(instance), age, ordinal",
        "return has_served(instance), -age, ordinal",
    ),
    (
        "scale-in",
        "scale.py",
        "return has_served(instance), -age, -ordinal",
        "return has_served(instance), age, -ordinal",
    ),
    (
        "scale-in",
        "scale.py",
        "return has_served(instance), age, ordinal",
        "return has_served(instance), age, -ordinal",
    ),
    (
        "scale-in",
        "scale.py",
        "return has_served(instance), 0, -ordinal",
        "return has_served(instance), -age, -ordinal",
    ),
    # who leaves by zones and fault domains
    ("balance", "scale.py", "served, -zones[where.zone_number], -d", "served, 0, -d"),
    ("balance", "scale.py", "served, -zones[where", "served, zones[where"),
    ("balance", "scale.py", "        zones[where.zone_number] -= 1\n", ""),
    ("balance", "scale.py", "        domains[where.zone_number, where.fault_domain] -= 1\n", ""),
    ("balance", "scale.py", " * (rule is ScaleInRule.DEFAULT)", ""),
    ("balance", "scale.py", "        counts[zone] += 1\n", ""),
    ("balance", "scale.py", "(counts[z], free[z][0])", "free[z][0]"),
    # zones of a batch
    ("zone", "lanes.py", " and not upgrade.policy.enable_cross_zone_upgrade", ""),
    ("zone", "lanes.py", "placement.zone_number if", "-placement.zone_number if"),
    ("zone", "batch.py", ", find_lane(situation, upgrade).rank", ", (0, 0)"),
    ("zone", "lanes.py", "min(limit, -(-len(counted) // ", "min(limit, (len(counted) // "),
    (
        "zone",
        "batch.py",
        "limit = bound_in_zone(limit_next_batch(len(counted), upgrade), counted, upgrade)",
        "limit = limit_next_batch(len(counted), upgrade)",
    ),
    # update domains of a batch
    ("update domain", "lanes.py", "placement.update_domain if is_managed else 0", "0"),
    (
        "update domain",
        "lanes.py",
        "placement.update_domain if is_managed else 0",
        "-placement.update_domain",
    ),
    ("update domain", "lanes.py", "spec.cluster_manager is not None", "bool(spec.zones)"),
    ("update domain", "lanes.py", "spec.cluster_manager is not None", "True"),
    # how many repairs at once
    ("repair share", "repairs.py", "_PERCENT_AT_ONCE = 5", "_PERCENT_AT_ONCE = 6"),
    ("repair share", "repairs.py", "room = limit - len(open_repairs)", "room = limit"),
    ("repair share", "repairs.py", "len(decisions) >= room", "len(decisions) > room"),
    (
        "repair share",
        "repairs.py",
        "len(counted | {r.ordinal for r in open_repairs})",
        "len(counted)",
    ),
    # who is repaired
    ("repair whom", "repairs.py", "elif situation.instance.is_protected:", "elif False:"),
    ("repair whom", "repairs.py", "elif failure is not None:", "elif False:"),
    (
        "repair whom",
        "repairs.py",
        "and judge(situation).is_unhealthy",
        "and not judge(situation).is_healthy",
    ),
    ("repair whom", "repairs.py", "        or instance.is_settled\n", "        or True\n"),
    (
        "repair whom",
        "repairs.py",
        "return situation.is_counted and is_at_rest",
        "return is_at_rest",
    ),
    (
        "repair whom",
        "repairs.py",
        "    if upgrade is not None and not upgrade.code.is_final:",
        "    if False:",
    ),
    (
        "repair whom",
        "repairs.py",
        "    if not scale_set.spec.automatic_repairs_policy.enabled or",
        "    if",
    ),
    # when
    ("repair grace", "repairs.py", "elif now < until:", "elif now <= until:"),
    ("repair grace", "repairs.py", "elif now < until:", "elif False:"),
    ("repair grace", "repairs.py", "        current.ready_at,\n", ""),
    ("repair grace", "repairs.py", "        instance.created_at,\n", ""),
    ("repair grace", "repairs.py", "and now >= _find_grace_end(scale_set, s)", ""),
    ("repair grace", "repairs.py", "latest = max(", "latest = min("),
    # how a repair ends
    (
        "repair end",
        "repairs.py",
        "judge(situation).is_healthy and has_taken_effect(repair, instance)",
        "judge(situation).is_healthy",
    ),
    ("repair end", "repairs.py", "        and has_taken_effect(s.repair, s.instance)\n", ""),
    ("repair end", "repairs.py", "return None if is_old else", "return"),
    ("repair end", "repairs.py", "instance.created_at < repair.began_at", "True"),
    ("repair end", "repairs.py", "    if instance.is_protected:\n", "    if False:\n"),
    # when repairing is given up
    ("repair suspend", "repairs.py", "if tries >= TRIES:", "if tries > TRIES:"),
    ("repair suspend", "repairs.py", "if each.outcome is not RepairOutcome.FAILED:", "if False:"),
    ("repair suspend", "repairs.py", "r.ordinal == repair.ordinal and ", ""),
    ("repair suspend", "repairs.py", "    if service.is_suspended:", "    if False:"),
    ("repair suspend", "repairs.py", "resumed_at is None or repair.began_at >= resumed_at", "True"),
    ("repair suspend", "repairs.py", "bad * 2 <= len(latest)", "bad * 2 < len(latest)"),
    ("repair suspend", "repairs.py", "len(latest) < _ENOUGH", "len(latest) <= _ENOUGH"),
    ("repair suspend", "repairs.py", "        if reason is None:\n", "        if True:\n"),
    # one instance
    ("instance", "instance.py", "    if not current.prepared:", "    if False:"),
    ("instance", "instance.py", "    if failure is not None:", "    if False:"),
    ("instance", "health.py", "(started is None or asked > started)", "True"),
    ("instance", "health.py", "for name in after):", "for name in ()):"),
    ("instance", "health.py", "since is None or f.at >= since", "since is None"),
    # automatic upgrades: what is outdated, what has had its chance, when, and opting out
    ("outdated", "automatic.py", ") < VersionNumber.parse(", ") != VersionNumber.parse("),
    ("outdated", "automatic.py", "if s.is_counted and _is", "if _is"),
    ("outdated", "automatic.py", "    if not outdated:", "    if False:"),
    ("chance", "automatic.py", "        and upgrade.started_at >= enabled_at\n", ""),
    (
        "chance",
        "automatic.py",
        "        and upgrade.model_revision == scale_set.model_revision\n",
        "",
    ),
    ("chance", "automatic.py", "last.code is UpgradeCode.COMPLETED:", "False:"),
    ("chance", "automatic.py", "key=lambda upgrade: upgrade.id, ", ""),
    ("due", "automatic.py", "max(first, later)", "min(first, later)"),
    ("due", "automatic.py", "    if now < due:", "    if now <= due:"),
    ("due", "automatic.py", '_share(f"{name} {offer.digest}")', "_share(offer.digest)"),
    ("opt-out", "upgrade.py", "upgrade.started_by is StartedBy.PLATFORM and not", "not"),
    (
        "opt-out",
        "upgrade.py",
        "StartedBy.PLATFORM and not automatic.enable_automatic_os_upgrade",
        "StartedBy.PLATFORM and False",
    ),
    (
        "opt-out",
        "upgrade.py",
        "and not automatic.enable_automatic_os_upgrade",
        "and automatic.enable_automatic_os_upgrade",
    ),
    # what an upgrade brings, and who has it
    ("target", "batch.py", "or generation.model_revision >= upgrade.model_revision", "or True"),
    ("target", "batch.py", ">= upgrade.model_revision", "== upgrade.model_revision"),
    (
        "target",
        "batch.py",
        "return generation.image_digest == upgrade.target_digest and (",
        "return (",
    ),
    ("target", "admission.py", "if digests - {target_digest} else", "if True else"),
    ("target", "admission.py", "in survey(scale_set) if _takes_part(s)}", "in survey(scale_set)}"),
    ("target", "admission.py", "s.current.model_revision >= scale_set.model_revision", "True"),
    # what a change needs
    ("impact", "impact.py", 'Need.RESTART, "processors', 'Need.NOTHING, "processors'),
    ("impact", "impact.py", "key=lambda need: need.rank", "key=lambda need: -need.rank"),
    ("impact", "impact.py", "if before.get(e.name) != _content(e)", "if e.name not in before"),
    ("impact", "impact.py", "if is_forwarded and _find_port", "if _find_port"),
    ("impact", "impact.py", "if after[name] != disk:", "if False:"),
    # how an instance gets another model
    ("renewal", "renewal.py", "if keeps_way_back or current", "if current"),
    ("renewal", "renewal.py", " or current.image_digest != image_digest:", ":"),
    ("renewal", "renewal.py", "need.rank >= Need.OS_SWAP.rank", "need.rank > Need.OS_SWAP.rank"),
    ("renewal", "renewal.py", "run.name not in renewal.reruns and run", "run"),
    ("renewal", "renewal.py", "generation.prepared and not restarts", "generation.prepared"),
    ("renewal", "renewal.py", "run.finished_at is None for run", "False for run"),
    (
        "renewal",
        "upgrade.py",
        "verdict.is_healthy and not is_restart_due(situation)",
        "verdict.is_healthy",
    ),
    # paused by its user
    ("user pause", "gates.py", "    if upgrade.paused_at is None:\n", "    if True:\n"),
    ("user pause", "gates.py", "        _find_user_pause(scale_set, upgrade)\n        or ", ""),
    (
        "user pause",
        "upgrade.py",
        "    if upgrade.cancel_asked_at is not None:\n",
        "    if upgrade.cancel_asked_at is not None and upgrade.paused_at is None:\n",
    ),
    # maintenance windows
    ("window", "gates.py", "if is_open(windows, scale_set.clocks, now):", "if True:"),
    ("window", "gates.py", "None if upgrade.ignores_windows else", "None if False else"),
    (
        "window",
        "gates.py",
        'UTC"\n    return Hold(subject=scale_set.name, reason=reason, until=until)',
        'UTC"\n    return Hold(subject=scale_set.name, reason=reason)',
    ),
    ("window", "automatic.py", "    if closed is not None:", "    if False:"),
    ("window", "rollout.py", "    if closed is not None:", "    if False:"),
    ("window", "rollout.py", "find_closed_window(scale_set, now) if outdated else None", "None"),
    # approvals
    ("approval", "approval.py", "upgrade.approved_batch >= number", "upgrade.approved_batch"),
    ("approval", "approval.py", "is_needed = number == 1 or ", "is_needed = "),
    ("approval", "approval.py", "or now < asked_at + approval.timeout:", "or False:"),
    ("approval", "approval.py", "    if upgrade.approval_asked_at is None:", "    if False:"),
    ("approval", "approval.py", " or upgrade.paused_at is not None:", ":"),
    ("approval", "upgrade.py", "begin if wait is None else wait", "begin"),
    # canaries
    ("canary", "batch.py", "min(limit, canary.instances)", "limit"),
    ("canary", "batch.py", "canary is None or upgrade.batches else", "canary is None else"),
    ("canary", "gates.py", "    if ill:\n", "    if False:\n"),
    ("canary", "gates.py", "or upgrade.batches != 1 or", "or upgrade.batches == 1 or"),
    ("canary", "gates.py", "*(each for each in since if each is not None)", ""),
    ("canary", "gates.py", "    if now >= until:\n        return None\n    names", "    names"),
    ("canary", "upgrade.py", "ill = find_failed_canary(upgrade, situations, now)", "ill = None"),
    ("canary", "gates.py", "if last is not None and now >= last:", "if last is not None:"),
    ("canary", "gates.py", "max(ended_at, since) + upgrade.health_timeout", "max(ended_at, since)"),
    ("canary", "gates.py", "return max(ended_at, since) +", "return since +"),
    (
        "canary",
        "gates.py",
        "failure is None and instance.domain.power is not",
        "False and instance.domain.power is not",
    ),
    # a step that the host does not let through
    ("setback", "plan.py", "or now >= setback.until:", "or True:"),
    ("setback", "plan.py", "or now >= setback.until:", "or now > setback.until:"),
    ("setback", "plan.py", "type(step).__name__ != setback.step or", ""),
    # how many there will be
    ("change", "scale.py", "    if leaving:\n        return f", "    if 0:\n        return f"),
    ("change", "scale.py", "return decisions[0].reason if decisions else None", "return None"),
    ("change", "automatic.py", "    if change is not None:", "    if False:"),
    # what failed goes back where a limit is exceeded
    ("breach", "breach.py", "if not upgrade.policy.rollback", "if upgrade.policy.rollback"),
    ("breach", "breach.py", "(judge(situation).is_healthy and is_in_service)", "False"),
    ("undrain", "breach.py", " and is_in_service)", ")"),
    ("undrain", "limits.py", "else find_refused_undrain(situation)", "else None"),
    ("undrain", "batch.py", " or find_refused_undrain(s) is not None", ""),
    ("undrain", "hooks.py", "(is_out and not is_tried)", "is_out"),
    ("drain", "hooks.py", " or is_ill or is_broken", " or is_ill"),
    ("drain", "hooks.py", "admitted is not None and started > admitted:", "False:"),
    ("surge", "upgrade.py", "    if stuck is not None:", "    if False:"),
    ("surge", "surge.py", "failure.tries >= _DRAIN_TRIES", "failure.tries > _DRAIN_TRIES"),
    ("surge", "surge.py", " and find_spot(scale_set.spec, n) == where", ""),
    ("surge", "scale.py", " if room is None or n < room]", "]"),
    (
        "surge",
        "upgrade.py",
        "decisions += _note_refusal(upgrade, situation, step, decisions)",
        "pass",
    ),
    (
        "setback",
        "upgrade.py",
        "    refused = _find_setback(upgrade, situation, member, now)\n"
        "    if refused is not None:\n        return refused\n",
        "",
    ),
    ("setback", "upgrade.py", " if is_before and is_forward else None", " and None"),
    ("breach", "breach.py", "instance.protect_from_scale_set_actions or ", ""),
    ("breach", "instance.py", "    if situation.may_go_back:", "    if False:"),
    ("breach", "situation.py", "upgrade is None or upgrade.code.is_final:", "upgrade is None:"),
    (
        "breach",
        "upgrade.py",
        "    if upgrade.code is UpgradeCode.ROLLING_BACK and upgrade",
        "    if False and upgrade",
    ),
    (
        "breach",
        "breach.py",
        "instance.generation == member.to_generation != member.from_generation",
        "True",
    ),
    (
        "breach",
        "automatic.py",
        "        policy=scale_set.spec.upgrade_policy.automatic_limits,\n",
        "",
    ),
    # new instances that come for old ones
    (
        "surge",
        "surge.py",
        "    if not upgrade.policy.max_surge:\n        return Surge",
        "    if 0:\n        return Surge",
    ),
    ("surge", "surge.py", "    if situation.instance.is_protected:", "    if False:"),
    ("surge", "surge.py", "situation.model.data_disks or ", ""),
    ("surge", "surge.py", "| {m.ordinal for m in upgrade.members}", ""),
    ("surge", "surge.py", "    taken |= {_ordinal_of", "    {_ordinal_of"),
    ("surge", "surge.py", "    if memory > free:", "    if False:"),
    ("surge", "surge.py", "if s.is_counted and not s.is_powered", "if False"),
    ("surge", "surge.py", "capacity.free_memory - expected, 0", "capacity.free_memory, 0"),
    ("surge", "surge.py", "    if not names:\n", "    if True:\n"),
    (
        "surge",
        "surge.py",
        '        return (replace(move, reason=f"{new} is {move.reason}"), gone)',
        "        return (move,)",
    ),
    (
        "surge",
        "surge.py",
        "    return (replace(move, state=state, reason=reason), gone)",
        "    return (replace(move, state=state, reason=reason),)",
    ),
    (
        "surge",
        "surge.py",
        "MemberState.ROLLED_BACK if verdict.is_healthy else",
        "MemberState.ROLLED_BACK if True else",
    ),
    ("surge", "surge.py", "    if old.is_protected:", "    if False:"),
    ("surge", "surge.py", "    if now < until:\n", "    if True:\n"),
    (
        "surge",
        "surge.py",
        "m.replaced_by for m in upgrade.members if m.replaced_by and m.state.is_moving",
        "m.replaced_by for m in upgrade.members if m.replaced_by",
    ),
    ("surge", "scale.py", "if i.name not in newcomers]", "]"),
    ("surge", "scale.py", " | find_reserved(scale_set)", ""),
    ("surge", "limits.py", "verdicts.get(member.carrier)", "verdicts.get(member.instance)"),
    ("surge", "situation.py", "and self.instance.name == member.carrier", ""),
    ("surge", "upgrade.py", "    if departing is not None:", "    if False:"),
    # out of service before a stop, and back
    ("drain", "hooks.py", "or situation.is_set_deleting or", "or"),
    ("drain", "hooks.py", "situation.is_set_deleting or not _is_ready(situation)", "False"),
    ("drain", "hooks.py", "    if _is_drained(situation):\n        return None\n", ""),
    ("drain", "hooks.py", "is OnHookFailure.STOP and not _is_forced(situation)", "is not None"),
    ("drain", "hooks.py", "1 << min(failure.tries - 1, 10)", "1 << min(failure.tries, 10)"),
    ("drain", "instance.py", "find_drain(situation, reason) or Stop(", "Stop("),
    (
        "drain",
        "upgrade.py",
        "    refused = find_refused_drain(situation) or _find_refused_step",
        "    refused = _find_refused_step",
    ),
    ("drain", "foresight.py", "    if decision.is_untouched:\n", "    if False:\n"),
    ("undrain", "instance.py", "find_undrain(situation) or _find_discard", "_find_discard"),
    ("undrain", "upgrade.py", "is_proven and find_undrain(situation) is None", "is_proven"),
    ("undrain", "upgrade.py", "failure = find_refused_undrain(situation)", "failure = None"),
    ("undrain", "hooks.py", "out_of_service_since is not None and situation", "name and situation"),
    (
        "undrain",
        "foresight.py",
        "out_of_service_since=now if is_replacement(scale_set, ordinal) else None",
        "out_of_service_since=None",
    ),
    # when a model is rolled out by itself
    (
        "rollout",
        "rollout.py",
        "if running is not None and not running.code.is_final:",
        "if False:",
    ),
    (
        "rollout",
        "rollout.py",
        "if running is not None and not running.code.is_final:",
        "if running is not None:",
    ),
    ("rollout", "rollout.py", "UpgradeMode.ROLLING and outdated:", "UpgradeMode.ROLLING:"),
    ("rollout", "rollout.py", " if mode is UpgradeMode.AUTOMATIC else ()", ""),
    ("rollout", "rollout.py", "s.current.model_revision < scale_set", "False and scale_set"),
    ("rollout", "rollout.py", "        and not domain.is_stale\n", ""),
    ("rollout", "plan.py", "    if rollout.decisions:\n        return rollout\n", ""),
]
# A mutant whose text is the same shows that the check itself can tell dead from alive.
ALIVE = ("upgrade.py", "def plan_upgrade(", "def plan_upgrade(")


def make_scenarios(count: int) -> list[Scenario]:
    """The same ones in each run."""
    chance, told = random.Random(20260101), random.Random(4)
    return [
        Scenario(
            count=chance.randint(1, 9),
            batch_percent=chance.choice((20, 50, 100)),
            unhealthy_percent=chance.choice((20, 50, 100)),
            upgraded_percent=chance.choice((0, 20, 100)),
            pause=chance.choice((0, 45)),
            prioritizes=chance.random() < 0.5,
            restores=chance.random() < 0.5,
            boots_at_once=chance.randint(1, 3),
            spare=0,
            fates=tuple(chance.choice(FATES) for _ in range(16)),
            stubborn=tuple(chance.random() < 0.2 for _ in range(16)),
            events=tuple(
                (chance.randint(0, 200), chance.choice(EVENTS), chance.randint(0, 8))
                for _ in range(chance.randint(0, 5))
            ),
            seed=chance.randint(0, 99),
            wishes=tuple(told.choice(WISHES) for _ in range(16)) if number % 2 else (),
        )
        for number in range(count)
    ]


def find_fault(plan: PlanFunction) -> str:
    """What the stories and scenarios say against this planner; empty when nothing."""
    for story in STORIES:
        try:
            told = tell(story, plan)
        except Exception as error:  # noqa: BLE001 - a mutant may fail in any way
            return f"{story.__name__}: {error!r}"
        if told != (FOLDER / "stories" / f"{story.__name__}.txt").read_text():
            return f"{story.__name__}: told otherwise"
    for scenario in make_scenarios(8):
        try:
            world = make_world(scenario, plan).run(turns=1500)
            check_upgrade_has_ended(world)
            check_restored_have_the_disk_of_before(world)
            check_as_many_as_wanted_and_no_disk_too_many(world)
        except Exception as error:  # noqa: BLE001
            return f"{scenario}: {error!r}"
    return ""


# Where a mistake is looked for first, if not in the file of tests that is named like the module.
BESIDE: dict[str, tuple[str, ...]] = {
    "approval": ("gates",),
    "gates": (),  # a preview may wait for ever for a moment that has come; the stories see it
    "health": ("health", "extensions", "batch"),
    "members": ("preview", "batch"),
    "plan": ("rollout",),
    "repairs": ("repairs", "repair_ends"),
    "situation": ("instance", "upgrade"),
}
SLOW = ("control_properties", "repair_properties", "weeks")  # come last
ELSEWHERE = ("mutants", "properties", "stories")  # see `find_fault`


def order_tests(file: str) -> tuple[list[str], list[str]]:
    """The tests beside a module of the planner, and all others."""
    names = [path.stem.removeprefix("test_") for path in FOLDER.glob("test_*.py")]
    stem = Path(file).stem
    beside = [name for name in BESIDE.get(stem, (stem,)) if name in names]
    known = {*beside, *ELSEWHERE}
    others = sorted({*names} - known, key=lambda name: (name in SLOW, name))
    return _name_files(beside), _name_files(others)


def _name_files(names: list[str]) -> list[str]:
    return [f"tests/planner/test_{name}.py" for name in names]


@contextlib.contextmanager
def loaded(file: str, text: str, becomes: str) -> Iterator[PlanFunction]:
    """The `plan` of a mutant beside the real planner, for `find_fault`."""
    mutant = Mutant("mutant", file, text, becomes)
    sys.meta_path.insert(0, mutant)
    try:
        yield importlib.import_module("mutant.plan").plan
    finally:
        mutant.forget()


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    made = Nursery(tmp_path_factory.mktemp("nursery"))
    yield made
    made.close()


def find_notice(nursery: Nursery, file: str, text: str, becomes: str) -> str:
    """Who notices this mutant; empty when it lives."""
    beside, others = order_tests(file)
    with loaded(file, text, becomes) as plan:  # what cannot even be imported is no mutant
        if beside and not nursery.passes(file, text, becomes, beside):
            return "the tests beside it"
        fault = find_fault(plan)
    if fault:
        return f"the stories and scenarios: {fault}"
    return "" if nursery.passes(file, text, becomes, others) else "the other tests"


@pytest.mark.parametrize(
    "mutant", MUTANTS, ids=[f"{rule}-{n}" for n, (rule, *_) in enumerate(MUTANTS)]
)
def test_a_mutant_is_noticed(mutant, nursery):
    _, file, text, becomes = mutant
    notice = find_notice(nursery, file, text, becomes)
    print(notice)  # -rP shows it
    assert notice, f"survives: {mutant}"


def test_an_unchanged_planner_is_not_taken_for_a_mutant(nursery):
    assert find_fault(real_plan) == ""
    assert find_notice(nursery, *ALIVE) == ""


def test_what_cannot_be_imported_is_not_taken_for_a_noticed_mutant(nursery):
    with pytest.raises(SyntaxError):
        find_notice(nursery, "batch.py", "def limit_batch(", "def limit batch(")
    with pytest.raises(ImportError):
        find_notice(nursery, "batch.py", "def limit_batch(", "def limit_batches(")


def test_tests_that_never_import_the_mistake_prove_nothing(nursery):
    with pytest.raises(AssertionError, match=r"^70"):
        nursery.passes("batch.py", "_SMALL = 5", "_SMALL = 6", ["tests/model/test_window.py"])


def test_each_main_rule_has_at_least_three_mutants():
    rules = [rule for rule, *_ in MUTANTS]
    for rule in (
        "batch",
        "set",
        "upgraded",
        "health",
        "restore",
        "discard",
        "cancel",
        "boot",
        "scale",
        "outdated",
        "chance",
        "due",
        "opt-out",
        "target",
        "impact",
        "renewal",
        "rollout",
        "phase",
        "skip",
        "initializing",
        "credential",
        "protection",
        "scale-in",
        "repair share",
        "repair whom",
        "repair grace",
        "repair end",
        "repair suspend",
        "user pause",
        "window",
        "approval",
        "canary",
        "setback",
        "change",
        "zone",
        "update domain",
        "balance",
        "breach",
        "surge",
        "drain",
        "undrain",
    ):
        assert rules.count(rule) >= 3, rule
