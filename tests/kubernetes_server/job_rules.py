"""The rules for a Job's spec.

https://github.com/kubernetes/kubernetes/blob/master/pkg/apis/batch/validation/validation.go
"""

from kubernetes_server import metadata, pod_rules
from kubernetes_server.causes import (
    Causes,
    invalid,
    not_negative,
    one_of,
    required,
    too_many,
    unchanged,
)
from kubernetes_server.status import Object

_COUNTS = (
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
)
_FIXED = (
    "completions",
    "selector",
    "completionMode",
    "podFailurePolicy",
    "backoffLimitPerIndex",
    "managedBy",
)
_SCHEDULING = ("affinity", "nodeSelector", "tolerations", "schedulingGates")


def of_new(job: Object) -> Causes:
    """What is wrong with a Job."""
    yield from of_any(job)
    yield from _selector(job)


def of_any(job: Object) -> Causes:
    """What is wrong with a Job, new or changed."""
    spec = job["spec"]
    for key in _COUNTS:
        yield from not_negative(f"spec.{key}", spec.get(key))
    yield from one_of("spec.completionMode", spec["completionMode"], ("Indexed", "NonIndexed"))
    if spec["completionMode"] == "Indexed" and "completions" not in spec:
        yield required("spec.completions", "when completion mode is Indexed")
    policies = ("Failed",) if "podFailurePolicy" in spec else ("Failed", "TerminatingOrFailed")
    yield from one_of("spec.podReplacementPolicy", spec["podReplacementPolicy"], policies)
    yield from _template(spec)
    yield from _failure_policy(
        spec.get("podFailurePolicy"), spec["template"]["spec"]["restartPolicy"]
    )


def of_change(before: Object, after: Object) -> Causes:
    """What an update of a Job must leave alone."""
    for key in _FIXED:
        yield from unchanged(f"spec.{key}", before["spec"].get(key), after["spec"].get(key))
    old, new = before["spec"]["template"], after["spec"]["template"]
    if before["spec"]["suspend"] and "startTime" not in before.get("status", {}):
        # Before a suspended Job has started, a queue manager may say where it is to run.
        new = new | {"spec": _with_scheduling_of(old["spec"], new["spec"])}
        new |= {"metadata": old["metadata"]}
    # Since 1.36 the causes are of the template's parts.
    yield from unchanged("spec.template.spec", old["spec"], new["spec"])
    yield from unchanged("spec.template.metadata", old["metadata"], new["metadata"])


def _with_scheduling_of(old: Object, new: Object) -> Object:
    kept = {key: value for key, value in new.items() if key not in _SCHEDULING}
    return kept | {key: old[key] for key in _SCHEDULING if key in old}


def _template(spec: Object) -> Causes:
    template = spec["template"]
    yield from metadata.labels(template["metadata"].get("labels", {}), "spec.template.labels")
    yield from metadata.annotations(
        template["metadata"].get("annotations", {}), "spec.template.annotations"
    )
    yield from pod_rules.spec(template["spec"], "spec.template.spec")
    if template["spec"]["restartPolicy"] not in ("Never", "OnFailure"):
        yield required("spec.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"')


def _selector(job: Object) -> Causes:
    """The selector is the server's own, unless `manualSelector` says otherwise."""
    spec, uid = job["spec"], job["metadata"]["uid"]
    given, labels = (
        spec.get("selector", {}).get("matchLabels", {}),
        spec["template"]["metadata"].get("labels", {}),
    )
    if spec["manualSelector"]:
        if not given:
            yield required("spec.selector")
        if not given.items() <= labels.items():
            yield invalid(
                "spec.template.metadata.labels",
                labels,
                "`selector` does not match template `labels`",
            )
        return
    expected = {"controller-uid": uid, "job-name": job["metadata"].get("name", "")}
    for key, value in expected.items():
        for name in (key, f"batch.kubernetes.io/{key}"):
            if labels.get(name) != value:
                yield invalid(
                    f"spec.template.metadata.labels[{name}]",
                    labels.get(name, ""),
                    f"must be '{value}'",
                )
    if given != {"batch.kubernetes.io/controller-uid": uid}:
        yield invalid("spec.selector", spec["selector"], "`selector` not auto-generated")


def _failure_policy(policy: Object | None, restart_policy: str) -> Causes:
    """https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy"""
    if policy is None:
        return
    if restart_policy != "Never":
        detail = 'only "Never" is supported when podFailurePolicy is specified'
        yield invalid("spec.template.spec.restartPolicy", restart_policy, detail)
    rules = policy.get("rules", [])
    if len(rules) > 20:
        yield too_many("spec.podFailurePolicy.rules", len(rules), 20)
    for index, rule in enumerate(rules):
        yield from _failure_rule(rule, f"spec.podFailurePolicy.rules[{index}]")


def _failure_rule(rule: Object, path: str) -> Causes:
    if not rule.get("action"):
        yield required(f"{path}.action", 'valid values: ["Count" "FailIndex" "FailJob" "Ignore"]')
    yield from one_of(
        f"{path}.action", rule.get("action") or None, ("Count", "FailIndex", "FailJob", "Ignore")
    )
    codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
    if codes is not None and conditions:
        yield invalid(path, "", "specifying both OnExitCodes and OnPodConditions is not supported")
    if codes is None and not conditions:
        yield invalid(path, "", "specifying one of OnExitCodes and OnPodConditions is required")
    if codes is not None:
        yield from _exit_codes(codes, f"{path}.onExitCodes")
    for index, condition in enumerate(conditions or []):
        if not condition.get("status"):
            yield required(f"{path}.onPodConditions[{index}].status")
        statuses = ("False", "True", "Unknown")
        yield from one_of(
            f"{path}.onPodConditions[{index}].status", condition.get("status") or None, statuses
        )


def _exit_codes(codes: Object, path: str) -> Causes:
    yield from one_of(f"{path}.operator", codes.get("operator", ""), ("In", "NotIn"))
    values = codes.get("values", [])
    if not values:
        yield invalid(f"{path}.values", values, "at least one value is required")
    if values != sorted(set(values)):
        yield invalid(f"{path}.values", values, "must be ordered, without duplicates")
    if codes.get("operator") == "In" and 0 in values:
        yield invalid(f"{path}.values[{values.index(0)}]", 0, "must not be 0 for the In operator")
