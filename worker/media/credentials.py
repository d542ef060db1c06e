"""
The child process that reads Content Credentials: ``python -I -B credentials.py PATH REQUEST``.

The request is a JSON object: ``format``, the media type, and ``trust_anchors_file``, a PEM file or null. The answer is
one line of JSON with the fields of ``shared.documents.provenance.ProvenanceDocument``, within its bounds. It imports
the library of the C2PA and nothing of this project, so that it starts fast and holds no secrets.

Nothing is ever fetched: remote manifests and the state of certificates (OCSP) are switched off, identity assertions are
not decoded, and no host is allowed for whatever else the library may ask the network for.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

SETTINGS: Final = {
    "verify": {"verify_after_reading": True, "verify_trust": True, "ocsp_fetch": False, "remote_manifest_fetch": False},
    "core": {
        "allowed_network_hosts": [],
        "decode_identity_assertions": False,
        "max_decompressed_manifest_size_in_mb": 32,
    },
}
AI_SOURCES: Final = frozenset(
    {"trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia", "trainedAlgorithmicData"}
)
"""Digital source types of media that a generative model made, wholly or in part."""
STATES: Final = {"Trusted": "valid", "Valid": "untrusted", "Invalid": "invalid"}
"""The library's validation states. It calls a manifest ``Valid`` whose signer no trust anchor vouches for."""
DAMAGED: Final = {"state": "unreadable", "reason": "damaged"}
ANSWERS: Final = {
    "ManifestNotFound": {"state": "none"},
    "NotSupported": {"state": "not_checked", "reason": "format"},
    "Remote": {"state": "not_checked", "reason": "remote"},
}
"""The library's error → the answer; any other error is ``DAMAGED``."""
TIME_STAMPED: Final = "timeStamp.trusted"
"""Anybody can be an authority whose time stamps are merely ``timeStamp.validated``."""
KNOWN_SIGNER: Final = "signingCredential.trusted"
UNKNOWN_SIGNER: Final = "signingCredential.untrusted"

# As in shared/documents/provenance.py, where a test holds them together.
MAX_TEXT: Final = 200
MAX_CODES: Final = 20
MAX_ACTIONS: Final = 20
MAX_INGREDIENTS: Final = 10
MAX_COUNTED: Final = 1_000_000


def main(path: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return the document of the file at *path*."""
    try:
        # A missing library, or one that does not suit the system, is an answer, too.
        import c2pa
    except (ImportError, OSError, RuntimeError):
        return {"state": "not_checked", "reason": "library"}
    settings = dict(SETTINGS)
    try:
        if request["trust_anchors_file"] is not None:
            settings["trust"] = {"trust_anchors": Path(request["trust_anchors_file"]).read_text("ascii")}
        context = c2pa.Context.from_dict(settings)
    except (OSError, ValueError, c2pa.C2paError):
        return {"state": "not_checked", "reason": "trust_anchors"}
    try:
        with Path(path).open("rb") as file, c2pa.Reader(request["format"], file, context=context) as reader:
            return describe(json.loads(reader.json()))
    except c2pa.C2paError as error:
        # The library begins each message with the name of its error, of which not all have a class of their own.
        kind = str(error).partition(":")[0]
        return dict(ANSWERS.get(kind, DAMAGED))
    except (ValueError, RecursionError, MemoryError, OSError):
        return dict(DAMAGED)


def describe(store: dict[str, Any]) -> dict[str, Any]:
    """Return the document of a manifest store, as the library describes it."""
    manifests = mapping(store.get("manifests"))
    active_label = str(store.get("active_manifest"))
    active = mapping(manifests.get(active_label))
    signature = mapping(active.get("signature_info"))
    results = mapping(mapping(store.get("validation_results")).get("activeManifest"))
    failures = [mapping(one).get("code") for one in listing(store.get("validation_status"))]
    bound = list_bound(store, manifests, active_label)
    found = [action | {"of_ingredient": number > 0} for number, one in enumerate(bound) for action in list_actions(one)]
    # What an investigator looks for must not be pushed out of the list by a thousand other actions.
    found.sort(key=lambda action: action["source_type"] not in AI_SOURCES)
    ingredients = [mapping(one) for one in listing(active.get("ingredients"))]
    titles = [text(one.get("title")) for one in ingredients]
    return {
        "state": STATES.get(str(store.get("validation_state")), "invalid"),
        "codes": [code for code in dict.fromkeys(text(code) for code in failures) if code][:MAX_CODES],
        "signer": text(signature.get("common_name")),
        "issuer": text(signature.get("issuer")),
        "signed_at": text(signature.get("time")),
        "time_stamped": TIME_STAMPED in list_codes(results, "success"),
        "generator": describe_generator(active),
        "title": text(active.get("title")),
        "ai_generated": any(action["source_type"] in AI_SOURCES for action in found),
        "actions": found[:MAX_ACTIONS],
        "actions_total": min(len(found), MAX_COUNTED),
        "ingredients": [title for title in titles if title][:MAX_INGREDIENTS],
        "ingredients_total": min(len(ingredients), MAX_COUNTED),
        "manifests": min(len(bound), MAX_COUNTED),
    }


def list_bound(store: dict[str, Any], manifests: dict[str, Any], active_label: str) -> list[dict[str, Any]]:
    """
    Return the active manifest, and those that its signature covers: of its ingredients, of theirs, and so on.

    An ingredient names the manifest of what was used, with its digest. Others that are in the store mean nothing:
    anybody can put one there without breaking the signature, in the place that is kept free for time stamps. Nor does
    the manifest of an ingredient of which a check failed, now or when it was used: anybody can make one of an unknown
    signer, or attach one to another picture, for a trusted signer to use.
    """
    results = mapping(store.get("validation_results"))
    # Where the file's own signer is unknown, those of ingredients may be, too: all of it is shown as unknown.
    allowed = {UNKNOWN_SIGNER} & list_codes(mapping(results.get("activeManifest")), "failure")
    # Place of an ingredient → its results that changed, the newest first.
    changes = list_changes(results)
    labels, seen = [active_label], {active_label}
    for label in labels:
        for ingredient in map(mapping, listing(mapping(manifests.get(label)).get("ingredients"))):
            recorded = mapping(ingredient.get("validation_results"))
            for place, changed in list_changes(recorded).items():
                changes.setdefault(place, []).extend(changed)
            place = f"self#jumbf=/c2pa/{label}/c2pa.assertions/{ingredient.get('label')}"
            # Older ingredients have a list of failures alone.
            old = {"failure": ingredient.get("validation_status")}
            checks = [*changes.get(place, ()), mapping(recorded.get("activeManifest")), old]
            used = ingredient.get("active_manifest")
            if isinstance(used, str) and used in manifests and used not in seen and list_failed(checks) <= allowed:
                labels.append(used)
                seen.add(used)
    return [mapping(manifests.get(label)) for label in labels]


def list_changes(results: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the place of each ingredient of which results differ from those that were recorded with it → these."""
    found: dict[str, list[dict[str, Any]]] = {}
    for delta in map(mapping, listing(results.get("ingredientDeltas"))):
        found.setdefault(str(delta.get("ingredientAssertionURI")), []).append(mapping(delta.get("validationDeltas")))
    return found


def list_failed(checks: list[dict[str, Any]]) -> set[str]:
    """Return the codes of what failed in any of *checks*, the newest first, of which the newest says who is trusted."""
    failed = set().union(*(list_codes(check, "failure") for check in checks))
    for check in checks:
        if UNKNOWN_SIGNER in list_codes(check, "failure"):
            break
        if KNOWN_SIGNER in list_codes(check, "success"):
            return failed - {UNKNOWN_SIGNER}
    return failed


def list_codes(results: dict[str, Any], kind: str) -> set[str]:
    """Return the codes of one kind of results, ``success`` or ``failure``."""
    return {str(mapping(one).get("code")) for one in listing(results.get(kind))}


def list_actions(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the actions that a manifest records."""
    for assertion in map(mapping, listing(manifest.get("assertions"))):
        if not str(assertion.get("label")).startswith("c2pa.actions"):
            continue
        for action in map(mapping, listing(mapping(assertion.get("data")).get("actions"))):
            source = action.get("digitalSourceType")
            agent = action.get("softwareAgent")
            yield {
                "action": text(action.get("action")) or "unknown",
                "source_type": text(source.rpartition("/")[2]) if isinstance(source, str) else None,
                "software": text(agent.get("name") if isinstance(agent, dict) else agent),
            }


def describe_generator(manifest: dict[str, Any]) -> str | None:
    """Return name and version of the program that wrote a manifest; None if it says neither."""
    for info in map(mapping, listing(manifest.get("claim_generator_info"))):
        parts = [part for part in (text(info.get("name")), text(info.get("version"))) if part]
        if parts:
            return text(" ".join(parts))
    return text(manifest.get("claim_generator"))


def text(value: Any) -> str | None:
    """Return a text within its bound, without what JSON or Postgres cannot hold; None for anything else."""
    if not isinstance(value, str):
        return None
    plain = value[:MAX_TEXT].replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    return plain or None


def mapping(value: Any) -> dict[str, Any]:
    """Return *value* if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def listing(value: Any) -> list[Any]:
    """Return *value* if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], json.loads(sys.argv[2]))) + "\n")
