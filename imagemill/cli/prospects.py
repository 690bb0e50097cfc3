"""What is known of earlier builds and images of a source, and so what the next build will do."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from imagemill.builders import detect
from imagemill.builders.graft import Refusal, planning
from imagemill.builders.graft.grafting import Graft, GraftPlace, question
from imagemill.builders.graft.planning import Known, Plan
from imagemill.cli import terminal
from imagemill.cli.options import Connection
from imagemill.cli.requests import located
from imagemill.cli.services import client_of
from imagemill.cli.why import Read
from imagemill.config.model import Builder
from imagemill.context.hashing import Inputs
from imagemill.environment import cache_folder, everything, variable
from imagemill.errors import (
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
    UserError,
)
from imagemill.ports import BuildInputs, Quiet
from imagemill.reference import ImageReference
from imagemill.registries import blobs_for, registry_for
from imagemill.registries.docker_config import DockerConfig
from imagemill.settings import NodeSettings, read
from imagemill.sources import unversioned
from imagemill.state.grafts import Earlier, FolderShelf, Grafts
from imagemill.state.last_builds import MOST_TIMES, EarlierTime, LastBuild, LastBuilds
from imagemill.why.differences import Differences, find
from imagemill.why.record import InputRecord

_LOOKED_AT = 20
"""Builds of a service that are looked at, at most, for the last one of a source and for times."""


def last_build(connection: Connection, source: str, destination: str | None) -> LastBuild | None:
    """Return the last build of the source that has succeeded, where it is known."""
    wanted = unversioned(located(source))
    if not connection.broker:
        return LastBuilds(FolderShelf(_cache() / "builds")).find(wanted)
    try:
        return _last_of_service(connection, wanted, destination)
    except (PermissionDenied, ServiceUnreachable) as error:
        terminal.warn(f"What was built before is not known: {error.message}")
        return None


def _last_of_service(
    connection: Connection, wanted: str, destination: str | None
) -> LastBuild | None:
    """Return the last build of the source, or to the destination, where the source was uploaded."""
    with client_of(connection, patience=0) as client:
        builds = client.builds(states=["SUCCEEDED"], destination=destination or "")
        same = [build for build in builds if unversioned(build.source) == wanted]
        ids = [build.id for build in islice(same or (builds if destination else ()), _LOOKED_AT)]
        reports = [report for report in (client.status(build).report for build in ids) if report]
        if not reports or not reports[0].image or not reports[0].source_hash:
            return None
        try:
            record = client.inputs(reports[0].source_hash)
        except UserError:  # it is not kept any more
            record = None
    times = tuple(EarlierTime.of(report) for report in reports if report.built)
    return LastBuild(ImageReference.parse(reports[0].image).repository, times[:MOST_TIMES], record)


def _cache() -> Path:
    return Path(variable("IMAGEMILL_STATE_DIR") or cache_folder())


@dataclass(frozen=True)
class Prospects:
    """A build that may come."""

    connection: Connection
    builder: Builder
    new: Read
    repository: str | None
    """Where its image is to go, if that is known and counts."""
    way: Mapping[str, bool]
    """Options that say how it is to be built: `no_cache`, `force`, `pull` and `graft`."""

    def plan(self, old: InputRecord | None) -> Plan:
        """Return what will be done, where `old` was built before; `UserError` if it is bound to
        fail.
        """
        anew = next((name for name in ("no_cache", "force", "pull") if self.way[name]), None)
        known = _known(old, self._record)
        known = replace(known, same=known.same and not anew)
        if self.way["no_cache"]:
            known = replace(known, others=("no cache is to be used",), keys=None)
        try:
            found = self._looked_up(known, anew=anew is not None)
        except Refusal as refusal:
            raise UserError(f"A build is bound to fail: {refusal.reason}") from None
        told = anew or (None if self.way["graft"] else "no_graft")
        return _by_builder(found, f"--{told.replace('_', '-')} is given") if told else found

    def _looked_up(self, known: Known, *, anew: bool) -> Plan:
        """Return what will be done, by what the registry has, and without a service by the earlier
        images that are kept here.
        """
        if self.repository is None:
            return planning.plan(self._wanted, known)
        image = ImageReference.parse_destination(self.repository).with_tag(self.new.source_hash)
        if not anew and self._is_there(image):
            return Plan("nothing", f"{image} is there")
        found = planning.plan(self._wanted, replace(known, same=False))
        if self.builder.graft is False:
            return _by_builder(found, "builder.graft is false")
        if self.connection.broker or anew:
            return found
        try:
            earlier = self._earlier(image)
        except Refusal as refusal:
            return _by_builder(found, refusal.reason)
        except OperatorError as error:  # as in a build: the builder may do it, or say it better
            return _by_builder(found, error.message)
        code = _known(earlier.record, self._record)
        return planning.plan(self._wanted, replace(code, others=(), same=False))

    @cached_property
    def _wanted(self) -> planning.Wanted:
        given = self._given
        return planning.Wanted(
            self.new.manifest, given.target, given.platform, given.build_args, self.new.bases
        )

    @cached_property
    def _record(self) -> InputRecord:
        return self.new.record()

    @property
    def _given(self) -> Inputs:
        return Inputs.of(self.new.request, self.builder)

    @property
    def _given_alone(self) -> list[Inputs]:
        """For each platform what its own image is made from, besides the context."""
        request = self.new.request
        alone = [request.model_copy(update={"platform": each}) for each in request.platforms]
        return [Inputs.of(each, self.builder) for each in alone or [request]]

    @cached_property
    def _settings(self) -> NodeSettings:
        return read(NodeSettings, everything())

    @cached_property
    def _logins(self) -> DockerConfig:
        return DockerConfig(self._settings.docker_config)

    def _is_there(self, image: ImageReference) -> bool:
        """Whether the registry has the image; with a service it may be one that only the workers
        can ask.
        """
        insecure = self._settings.insecure_registries
        try:
            found = registry_for(image, docker_config=self._logins, insecure=insecure).digest(image)
        except (PermissionDenied, TransientError) as error:
            if not self.connection.broker:
                raise
            terminal.warn(f"Whether the image is there is not known here: {error.message}")
            return False
        return found is not None

    def _earlier(self, image: ImageReference) -> Earlier:
        """Return what the command line's own service would make the image of; `Refusal` if it would
        not, and why.
        """
        new, insecure = self.new, self._settings.insecure_registries
        place = GraftPlace(
            lambda image: blobs_for(image.registry, self._logins, insecure),
            Grafts(FolderShelf(_cache() / "grafts")),
            _cache(),
        )
        inputs = BuildInputs(image, labels=new.labels())
        found = [self._proved(given, inputs, place) for given in self._given_alone]
        return found[0]

    def _proved(self, given: Inputs, inputs: BuildInputs, place: GraftPlace) -> Earlier:
        new = self.new
        asked = question(new.manifest, inputs, given, self._type, place, known=new.bases)
        earlier = place.known.find_image(asked.key)
        if earlier is None:
            raise place.none_known(asked.key)
        # What an ADD would unpack is not looked into.
        Graft(place, inputs, asked, Quiet()).prove(earlier, new.manifest, lambda _: iter(()))
        return earlier

    @property
    def _type(self) -> str:
        if self.builder.type != "auto":
            return self.builder.type
        settings = self._settings
        return detect(settings.docker_cli, settings.docker_host, self._logins, everything())


def _by_builder(found: Plan, why: str) -> Plan:
    return replace(found, way="builder", why=why, sent=None) if found.way == "code" else found


def _known(old: InputRecord | None, new: InputRecord) -> Known:
    if old is None:
        return Known(frozenset(entry.path for entry in new.entries), ("no earlier image is known",))
    found = find(old, new)
    paths = {
        entry.path
        for pair in (*found.changed, *found.renamed)
        for entry in (pair.before, pair.after)
    } | {entry.path for entry in (*found.added, *found.removed)}
    others = tuple(_others(found))
    gone = tuple(name for name, change in found.labels.items() if change.after is None)
    return Known(frozenset(paths), others, old.entries, old.keys or None, not found.labels, gone)


def _others(found: Differences) -> list[str]:
    """Return what differs besides the files, in words."""
    kinds: dict[str, Any] = {
        "Imagemill's version": found.format,
        "base image": [each.after or each.before for each in found.base_images],
        "Dockerfile": found.dockerfile,
        "target": found.target,
        "platform": found.platform,
        "build argument": found.build_args,
        "build secret": found.secrets,
        "option of the builder": found.options,
    }
    named = "base image", "build argument"
    return [
        f"another {kind} ({', '.join(map(str, differs))})" if kind in named else f"another {kind}"
        for kind, differs in kinds.items()
        if differs
    ]
