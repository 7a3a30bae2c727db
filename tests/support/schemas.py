"""The JSON schemas of docs/schemas, for tests in Python."""
import json
import pathlib

import jsonschema

SCHEMAS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "schemas"


def schema(name):
    found = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


METRICS, RESULT = schema("metrics"), schema("result")
EVALUATION = jsonschema.Draft202012Validator({"$ref": "#/$defs/evaluation", "$defs": RESULT.schema["$defs"]})


def metrics_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def result_of(run):
    return json.loads((run / "result.json").read_text())


def validate(run):
    """Whether both files of a run are what the schemas say. Throws: ValidationError."""
    for line in metrics_of(run):
        METRICS.validate(line)
    RESULT.validate(result_of(run))
