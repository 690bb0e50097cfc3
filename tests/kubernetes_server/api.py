"""The verbs of the API: what each does to the objects, and what it answers.

https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import Any

from kubernetes_server import decoding, defaults, patches, selectors, status, validation
from kubernetes_server.access import Access, check_namespace, check_service_account
from kubernetes_server.garbage import FOREGROUND, ORPHAN, GarbageCollector
from kubernetes_server.resources import ACCESS_REVIEWS, JOBS, PODS, Resource, Target
from kubernetes_server.status import Cause, Object
from kubernetes_server.store import Store
from kubernetes_server.watches import Watch

PRESERVED_PODS = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or "
    "set propagationPolicy=Orphan to suppress this warning"
)


@dataclass
class Call:
    """One request to the API, past the HTTP of it."""

    target: Target
    query: dict[str, str]
    user: str
    body: bytes = b""
    content_type: str = ""
    warnings: list[str] = field(default_factory=list)
    """What goes back in `Warning` headers."""

    @property
    def dry_run(self) -> bool:
        asked = self.query.get("dryRun")
        if asked not in (None, "All"):
            cause = Cause(
                "FieldValueNotSupported",
                "dryRun",
                f'Unsupported value: "{asked}": supported values: "All"',
            )
            raise status.ApiError(422, "Invalid", f'CreateOptions "" is invalid: {cause}')
        return asked == "All"


class Api:
    """Create, get, list, watch, update, patch and delete."""

    def __init__(self, store: Store, access: Access) -> None:
        self.store, self.access = store, access
        self.garbage = GarbageCollector(store)
        self.watches: set[Watch] = set()
        self.dropped: set[str] = set()
        """Fields of pods of features that the server does not have."""
        self.gone_as_status = False
        """Whether a watch from a version that is too old is refused by its HTTP status, not by an
        ERROR event.
        """

    # create

    def create(self, call: Call) -> tuple[int, Object]:
        resource = call.target.resource
        created = self._decoded(call, decoding.parse(call.body))
        if resource == ACCESS_REVIEWS:
            return 201, self._review(call, created)
        _fit_to_path(call.target, created)
        if created["metadata"].get("resourceVersion"):
            raise status.ApiError(
                500, "", "resourceVersion should not be set on objects to be created"
            )
        check_namespace(self.store, resource, created)
        prepared = defaults.prepare(resource, created)
        if resource == PODS:
            check_service_account(self.store, prepared)
        self._validate(resource, prepared, validation.of_new(resource, prepared))
        for name in self.dropped:
            _pod_spec(resource, prepared).pop(name, None)
        call.warnings += validation.warnings(resource, prepared)
        self.access.admit(resource, prepared, self.store)
        return 201, self.insert(resource, prepared, dry_run=call.dry_run)

    def insert(self, resource: Resource, prepared: Object, *, dry_run: bool = False) -> Object:
        """Store a new object; 409 if there is one of its name."""
        metadata = prepared["metadata"]
        existing = self.store.get(resource, metadata.get("namespace", ""), metadata["name"])
        if existing is not None:
            being_deleted = "deletionTimestamp" in existing["metadata"]
            raise status.already_exists(resource, metadata["name"], being_deleted=being_deleted)
        if dry_run:
            return prepared
        stored = self.store.put(resource, prepared)
        if metadata.get("ownerReferences"):
            self.garbage.collect()
        return stored

    def _review(self, call: Call, review: Object) -> Object:
        """SelfSubjectAccessReview: may the one who asks do this?"""
        asked = review.get("spec", {}).get("resourceAttributes")
        if asked is None and "nonResourceAttributes" not in review.get("spec", {}):
            detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
            cause = Cause(
                "FieldValueInvalid", "spec.resourceAttributes", f"Invalid value: null: {detail}"
            )
            raise status.invalid(ACCESS_REVIEWS, "", [cause])
        asked = asked or {}
        parts = [part for part in (asked.get("resource", ""), asked.get("subresource", "")) if part]
        allowed = self.access.allowed(
            call.user, asked.get("verb", ""), "/".join(parts), asked.get("namespace", "")
        )
        reason = {
            "reason": 'RBAC: allowed by RoleBinding "tests" of Role "tests" to the test\'s user'
        }
        return review | {"status": {"allowed": allowed} | (reason if allowed else {})}

    # read

    def get(self, call: Call) -> Object:
        return self.existing(call.target)

    def existing(self, target: Target) -> Object:
        """The object that a path names; 404 if there is none."""
        found = self.store.get(target.resource, target.namespace, target.name)
        if found is None:
            raise status.not_found(target.resource, target.name)
        return found

    def listing(self, call: Call) -> Object:
        resource, query = call.target.resource, call.query
        chosen = self._selectors(call)
        start, revision = self._position(query)
        objects = self.store.select(resource, call.target.namespace, revision)
        selected = [
            found
            for found in objects
            if all(select(found) for select in chosen) and _position_of(found) > start
        ]
        limit = _number(query, "limit") or len(selected)
        page, rest = selected[:limit], selected[limit:]
        metadata: Object = {"resourceVersion": str(revision or self.store.revision)}
        if rest:
            token = json.dumps(
                {"rv": revision or self.store.revision, "start": _position_of(page[-1])}
            )
            metadata["continue"] = base64.urlsafe_b64encode(token.encode()).decode()
            # The server does not count what selectors leave over.
            metadata |= {} if chosen else {"remainingItemCount": len(rest)}
        head: Object = {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.api_version,
            "metadata": metadata,
        }
        # As in Kubernetes, the items of a list do not say what they are: the list does.
        return head | {"items": [_without_type(found) for found in page]}

    def _position(self, query: dict[str, str]) -> tuple[list[str], int | None]:
        """After which object a list goes on, and at which revision it reads (None: now)."""
        if token := query.get("continue"):
            if query.get("resourceVersion") not in (None, "", "0"):
                raise status.bad_request(
                    "specifying resource version is not allowed when using continue"
                )
            return self._continued(token)
        asked, match = _resource_version(query), query.get("resourceVersionMatch")
        if match not in (None, "", "Exact", "NotOlderThan") or (match and asked is None):
            raise status.bad_request(
                "resourceVersionMatch is forbidden unless resourceVersion is provided"
            )
        if asked is not None and asked > self.store.revision:
            raise status.too_large_resource_version(asked, self.store.revision)
        if match != "Exact" or asked is None:
            return [], None
        if asked < self.store.compacted:
            raise status.expired("The resourceVersion for the provided list is too old.")
        return [], asked

    def _continued(self, token: str) -> tuple[list[str], int]:
        try:
            position = json.loads(base64.urlsafe_b64decode(token))
            start, revision = position["start"], int(position["rv"])
        except (binascii.Error, ValueError, KeyError, TypeError) as error:
            raise status.bad_request("continue key is not valid") from error
        if revision < self.store.compacted:
            message = "The provided continue parameter is too old to display a consistent list result. You can start "
            raise status.expired(message + "a new list without the continue parameter.")
        return start, revision

    def watch(self, call: Call) -> Watch:
        """Open a watch, with what has happened since the version that it names already queued."""
        query = call.query
        initial = query.get("sendInitialEvents")
        self._check_watch_options(query)
        watch = Watch(
            call.target.resource,
            call.target.namespace,
            self._selectors(call),
            _is_true(query, "allowWatchBookmarks"),
        )
        since = _resource_version(query)
        if since is not None and since > self.store.revision:
            raise status.too_large_resource_version(since, self.store.revision)
        if initial == "true" or (not since and initial is None):
            self._send_present(watch)
        elif since:
            self._send_changes(watch, since)
        if initial == "true":
            watch.bookmark(self.store.revision, {"k8s.io/initial-events-end": "true"})
        return watch

    def subscribe(self, watch: Watch) -> None:
        self.watches.add(watch)
        self.store.subscribers.add(watch.deliver)

    def unsubscribe(self, watch: Watch) -> None:
        self.watches.discard(watch)
        self.store.subscribers.discard(watch.deliver)

    def _check_watch_options(self, query: dict[str, str]) -> None:
        match, initial = query.get("resourceVersionMatch"), query.get("sendInitialEvents")
        if initial is None and match:
            raise status.bad_request(
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            )
        if initial is not None and match != "NotOlderThan":
            raise status.bad_request(
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            )

    def _send_present(self, watch: Watch) -> None:
        for found in self.store.select(watch.resource, watch.namespace):
            if watch.selects(found):
                watch.send("ADDED", found)

    def _send_changes(self, watch: Watch, since: int) -> None:
        try:
            for change in self.store.changes_after(since):
                watch.deliver(change)
        except status.ApiError as error:
            if self.gone_as_status:
                raise
            watch.fail(error)

    def _selectors(self, call: Call) -> tuple[selectors.Selector, ...]:
        labels, fields = call.query.get("labelSelector", ""), call.query.get("fieldSelector", "")
        by_label = [selectors.label_selector(labels)] if labels else []
        by_field = [selectors.field_selector(call.target.resource, fields)] if fields else []
        return (*by_label, *by_field)

    # change

    def update(self, call: Call) -> Object:
        current = self.existing(call.target)
        changed = self._decoded(call, decoding.parse(call.body))
        return self._change(call, current, changed)

    def patch(self, call: Call) -> Object:
        current = self.existing(call.target)
        patched = patches.apply(call.content_type, current, decoding.parse(call.body))
        return self._change(call, current, self._decoded(call, patched))

    def _change(self, call: Call, current: Object, changed: Object) -> Object:
        target, resource = call.target, call.target.resource
        _fit_to_path(target, changed)
        if changed["metadata"].get("name") != target.name:
            named = changed["metadata"].get("name", "")
            raise status.bad_request(
                f"the name of the object ({named}) does not match the name on the URL ({target.name})"
            )
        self._check_versions(resource, current, changed)
        changed = _only_what_may_change(target, current, changed)
        defaults.default(resource, changed)
        self._validate(resource, changed, validation.of_change(resource, current, changed))
        if resource in (JOBS, PODS) and changed.get("spec") != current.get("spec"):
            changed["metadata"]["generation"] = current["metadata"]["generation"] + 1
        return changed if call.dry_run else self.change(resource, changed)

    def change(self, resource: Resource, changed: Object) -> Object:
        """Store a changed object, and let go what its last finalizer held."""
        metadata = changed["metadata"]
        before = (
            self.store.get(resource, metadata.get("namespace", ""), metadata["name"]) or changed
        )
        stored = self.garbage.put(resource, changed)
        has_new_owners = before["metadata"].get("ownerReferences") != metadata.get(
            "ownerReferences"
        )
        if "deletionTimestamp" in metadata or has_new_owners:
            self.garbage.collect()
        return stored

    def _check_versions(self, resource: Resource, current: Object, changed: Object) -> None:
        name, had, has = current["metadata"]["name"], current["metadata"], changed["metadata"]
        if has.get("uid", had["uid"]) != had["uid"]:
            why = f"Precondition failed: UID in precondition: {has['uid']}, UID in object meta: {had['uid']}"
            raise status.conflict(resource, name, why)
        if has.get("resourceVersion", had["resourceVersion"]) != had["resourceVersion"]:
            why = "the object has been modified; please apply your changes to the latest version and try again"
            raise status.conflict(resource, name, why)

    # delete

    def delete(self, call: Call) -> Object:
        resource = call.target.resource
        doomed = self.existing(call.target)
        options = self._delete_options(call)
        self._check_preconditions(resource, doomed, options.get("preconditions", {}))
        return self._delete(call, resource, doomed, options)

    def delete_collection(self, call: Call) -> Object:
        """Delete all that the selectors select; answers with the list of them."""
        listed = self.listing(call)
        options = self._delete_options(call)
        for found in listed["items"]:
            metadata = found["metadata"]
            current = self.store.get(
                call.target.resource, metadata.get("namespace", ""), metadata["name"]
            )
            if current is not None:
                self._delete(call, call.target.resource, current, options)
        return listed

    def _delete(self, call: Call, resource: Resource, doomed: Object, options: Object) -> Object:
        finalizer = self._finalizer(call, resource, options)
        name, uid = doomed["metadata"]["name"], doomed["metadata"]["uid"]
        if call.dry_run or options.get("dryRun"):
            return status.success(resource, name, uid)
        self.garbage.delete(resource, doomed, finalizer, options.get("gracePeriodSeconds"))
        left = self.store.find(uid)
        self.garbage.collect()
        if left is None:
            return doomed if resource == PODS else status.success(resource, name, uid)
        return left[1]

    def _delete_options(self, call: Call) -> Object:
        """DeleteOptions from the body, or from the query."""
        options: Object = {}
        if call.body:
            given = decoding.parse(call.body)
            version = given.get("apiVersion") or "v1" if isinstance(given, dict) else "v1"
            options, _ = decoding.decode_as(given, "V1DeleteOptions", version, "DeleteOptions")
        for key in ("propagationPolicy", "orphanDependents", "gracePeriodSeconds"):
            if key in call.query:
                options.setdefault(key, call.query[key])
        if "gracePeriodSeconds" in options:
            options["gracePeriodSeconds"] = int(options["gracePeriodSeconds"])
        return options

    def _finalizer(self, call: Call, resource: Resource, options: Object) -> str | None:
        """What the propagation policy puts before the deletion; Jobs orphan their pods unless told
        otherwise.
        """
        policy = options.get("propagationPolicy")
        orphans = options.get("orphanDependents")
        if policy is not None and orphans is not None:
            raise _invalid_delete_options(
                "orphanDependents and deletionPropagation cannot be both set"
            )
        if policy not in (None, "Foreground", "Background", "Orphan"):
            raise _invalid_delete_options(
                'unsupported value, supported values: "Foreground", "Background", "Orphan"'
            )
        if policy is None and orphans is None and resource == JOBS:
            call.warnings.append(PRESERVED_PODS)
            return ORPHAN
        if str(orphans).lower() == "true":
            return ORPHAN
        return {"Foreground": FOREGROUND, "Orphan": ORPHAN}.get(policy or "")

    def _check_preconditions(
        self, resource: Resource, doomed: Object, preconditions: Object
    ) -> None:
        for key, word in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
            has = doomed["metadata"][key]
            if preconditions.get(key, has) != has:
                given = preconditions[key]
                why = f"the {word} in the precondition ({given}) does not match the {word} in record ({has})"
                raise status.conflict(resource, doomed["metadata"]["name"], why)

    # checks that several verbs share

    def _decoded(self, call: Call, value: Any) -> Object:
        decoded, faults = decoding.decode(value, call.target.resource)
        level = call.query.get("fieldValidation", "Warn")
        if level not in ("Ignore", "Warn", "Strict"):
            detail = f'Unsupported value: "{level}": supported values: "Ignore", "Strict", "Warn"'
            raise status.ApiError(
                422, "Invalid", f'CreateOptions "" is invalid: fieldValidation: {detail}'
            )
        if faults and level == "Strict":
            raise decoding.strict_error(call.target.resource, faults)
        call.warnings += faults if level == "Warn" else []
        decoded.setdefault("metadata", {})
        return decoded

    def _validate(self, resource: Resource, checked: Object, causes: list[Cause]) -> None:
        if causes:
            raise status.invalid(resource, checked["metadata"].get("name", ""), causes)


def _pod_spec(resource: Resource, created: Object) -> Object:
    """What is said of a pod, or of a Job's pods."""
    spec: Object = created.get("spec") or {}
    if resource == JOBS:
        spec = spec["template"]["spec"]
    return spec if resource in (JOBS, PODS) else {}


def _fit_to_path(target: Target, sent: Object) -> None:
    """The namespace of the path is the object's; 400 if it says another."""
    if not target.resource.namespaced:
        sent["metadata"].pop("namespace", None)
        return
    if not target.namespace:
        raise status.method_not_allowed()
    if sent["metadata"].setdefault("namespace", target.namespace) != target.namespace:
        raise status.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )


def _only_what_may_change(target: Target, current: Object, changed: Object) -> Object:
    """What an update can reach: the status through its subresource only, the rest through the
    object only.
    """
    kept = (
        "uid",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    )
    metadata = {key: current["metadata"][key] for key in kept if key in current["metadata"]}
    if target.subresource == "status":
        new_status = {"status": changed["status"]} if "status" in changed else {}
        return {key: value for key, value in current.items() if key != "status"} | new_status
    changed = changed | {
        "metadata": {k: v for k, v in changed["metadata"].items() if k not in kept} | metadata
    }
    if "status" in target.resource.subresources:
        changed.pop("status", None)
        changed |= {"status": current["status"]} if "status" in current else {}
    return changed


def _invalid_delete_options(why: str) -> status.ApiError:
    cause = {"reason": "FieldValueInvalid", "message": f"Invalid value: {why}", "field": "options"}
    details = {"group": "meta.k8s.io", "kind": "DeleteOptions", "causes": [cause]}
    return status.ApiError(
        422, "Invalid", f'DeleteOptions.meta.k8s.io "" is invalid: options: {why}', details
    )


def _position_of(listed: Object) -> list[str]:
    return [listed["metadata"].get("namespace", ""), listed["metadata"]["name"]]


def _without_type(found: Object) -> Object:
    return {key: value for key, value in found.items() if key not in ("kind", "apiVersion")}


def _resource_version(query: dict[str, str]) -> int | None:
    text = query.get("resourceVersion")
    if not text:
        return None
    if not text.isdecimal():
        why = f'strconv.ParseUint: parsing "{text}": invalid syntax'
        raise status.bad_request(f'resourceVersion: Invalid value: "{text}": {why}')
    return int(text)


def _number(query: dict[str, str], key: str) -> int:
    try:
        return int(query.get(key) or 0)
    except ValueError as error:
        raise status.bad_request(
            f'strconv.ParseInt: parsing "{query[key]}": invalid syntax'
        ) from error


def _is_true(query: dict[str, str], key: str) -> bool:
    return query.get(key, "").lower() in ("1", "true")
