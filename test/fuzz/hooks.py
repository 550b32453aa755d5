"""What schemathesis cannot know of this API: how lines of JSON go over the wire, and which rules no JSON Schema can say."""

import re

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def as_lines(_context, value):
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.hook
def filter_case(_context, case):
    """A body of lines is a text whatever is in it: there is no request that would send a number or an object there."""
    return case.media_type != "application/x-ndjson" or isinstance(case.body, (str, bytes))


# A request that is right by the document may be refused for these and for nothing else. Each is "field: message".
RULES = [
    # Counted in bytes, in levels of nesting, or over the whole of an object.
    r"bytes|levels deep|parts, \d+ are allowed|keys, \d+ are allowed",
    # What PostgreSQL or a double cannot hold.
    r"NUL|surrogate|number is too large|exact",
    # The clock, and what the state of the notification makes of a time.
    r"^(scheduled_at|expires_at):",
    # It repeats what the path says.
    r"^confirm:",
    # The suffix of a push type; further topics beside none.
    r"^apns_topics?(\[\d+\])?: (It must be the bundle id|An app without apns_topic)",
    # A list is taken by a draft that asks for one.
    r"^audience\.uploaded:",
    # The devices of a recipient are in the database, and what one query parameter may be depends on another.
    r"^to(\.\w+)?(\[\d+\])?: (There is no|Has more than)",
    r"^(since|until|user_id): ",
    # A line has its key in itself.
    r"^idempotency-key: Each line",
    # The form of a token depends on its provider, which depends on the platform; zones and languages are lists that grow.
    r"^(device_token|provider|apns_environment|time_zone|locale):",
    # Which parts a webhook's address may have, and which addresses, is said by its format in part; where a name leads by the network alone.
    r"^url: ",
    # What a value may be depends on the field or the operator beside it.
    r"^(audience\.)?condition\b.*\bvalue(\[\d+\])?:",
    r"^(external_id|path):",
]


@schemathesis.check
def refused_by_a_rule_alone(_context, response, case):
    if response.status_code != 422 or not case.meta or not case.meta.generation.mode.is_positive:
        return
    problem = response.json()
    # Contradictions and reserved names in a message, checked by building it.
    if problem["code"] == "payload_invalid":
        return
    for error in problem.get("errors", [{"field": "", "message": problem["detail"]}]):
        line = f"{error['field']}: {error['message']}"
        assert any(re.search(rule, line) for rule in RULES), f"the document does not say that this is refused: {line}"
