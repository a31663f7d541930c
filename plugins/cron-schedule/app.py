"""The tool `cron_next`. Arguments come checked against its schema; everything else is refused with what would be right."""

import datetime
import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports.types import Content_Text, Description, Fault, FaultCode, Risk, Tool, ToolResult

import schedule
import zones

MOST = 20
INPUT = {
    "type": "object",
    "properties": {
        "schedule": {
            "type": "string",
            "maxLength": 200,
            "description": "Five fields as in crontab and CronJob.spec.schedule, or a macro such as @daily.",
        },
        "timezone": {"type": "string", "maxLength": 64, "description": "IANA name such as Europe/Berlin; UTC when absent."},
        "after": {"type": "string", "maxLength": 40, "description": "ISO 8601 time to look from; now when absent."},
        "count": {"type": "integer", "minimum": 1, "maximum": MOST, "default": 5, "description": "How many runs."},
    },
    "required": ["schedule"],
    "additionalProperties": False,
}
OUTPUT = {
    "type": "object",
    "properties": {
        "schedule": {"type": "string"},
        "timezone": {"type": "string"},
        "after": {"type": "string"},
        "runs": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"at": {"type": "string"}, "utc": {"type": "string"}, "in_seconds": {"type": "integer"}},
                "required": ["at", "utc", "in_seconds"],
            },
        },
        "never": {"type": "boolean", "description": "No run within ten years, such as on the 30th of February."},
        "notes": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["schedule", "timezone", "after", "runs", "never", "notes"],
}


def fault(code, message):
    return Err(Fault(code=code, message=message, hint=None, detail=None, retry_after_seconds=None))


def answer(arguments, now):
    """What the tool says; ValueError with a sentence for the caller."""
    wanted = schedule.Schedule(arguments["schedule"])
    name = arguments.get("timezone") or wanted.zone_name or "UTC"
    zone = zones.zone(name)
    after = now
    if "after" in arguments:
        try:
            after = datetime.datetime.fromisoformat(arguments["after"])
        except ValueError:
            raise ValueError(f"'{arguments['after'][:40]}' is no ISO 8601 time; write it as 2026-03-29T01:30:00Z") from None
        after = after if after.tzinfo else after.replace(tzinfo=zone)
        if not 1970 <= after.year <= 2200:
            raise ValueError("after must lie between 1970 and 2200")
    moments, notes = wanted.runs(zone, after, arguments.get("count", 5))
    utc = [moment.astimezone(datetime.timezone.utc) for moment in moments]
    runs = [
        {"at": at.isoformat(), "utc": it.strftime("%Y-%m-%dT%H:%M:%SZ"), "in_seconds": int((it - after).total_seconds())}
        for at, it in zip(moments, utc)
    ]
    return {
        "schedule": wanted.text,
        "timezone": name,
        "after": after.isoformat(timespec="seconds"),
        "runs": runs,
        "never": not runs,
        "notes": wanted.notes + notes,
    }


class Guest(exports.Guest):
    def describe(self):
        tool = Tool(
            name="cron_next",
            title="Next runs of a cron schedule",
            description="Says when a cron schedule (crontab, Kubernetes CronJob) runs next in a time zone, "
            "and what changes of the clock do to it.",
            risk=Risk.READ,
            idempotent=True,
            open_world=False,
            input_schema=json.dumps(INPUT),
            output_schema=json.dumps(OUTPUT),
        )
        return Description(tools=[tool], signals=[])

    def call_tool(self, name, arguments, context):
        try:
            said = answer(json.loads(arguments), datetime.datetime.now(datetime.timezone.utc))
        except ValueError as error:
            raise fault(FaultCode.INVALID_ARGUMENT, str(error)) from None
        text = json.dumps(said)
        return ToolResult(structured=text, content=[Content_Text(text)], failed=False)

    def answer_question(self, question, context):
        raise fault(FaultCode.UNSUPPORTED, "this plugin is no source")
