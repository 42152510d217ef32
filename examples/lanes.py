"""Computes the lane of a kind and a runner selector, as docs/protocol.md describes it.

    python3 lanes.py '{"matchLabels":{"os":"linux"}}' [KIND]
"""
import base64, hashlib, json, sys

OPERATORS = ["In", "NotIn", "Exists", "DoesNotExist"]

def lane(selector, kind="subprocess"):
    """Returns the lane's id and its record, both as text."""
    conditions = {(key, "In", (value,)) for key, value in selector.get("matchLabels", {}).items()}
    for condition in selector.get("matchExpressions", []):
        values = sorted(set(condition.get("values", [])), key=str.encode)
        conditions.add((condition["key"], condition["operator"], tuple(values)))
    order = lambda c: (c[0].encode(), OPERATORS.index(c[1]), [value.encode() for value in c[2]])
    labels, others = {}, []
    for key, operator, values in sorted(conditions, key=order):
        if operator == "In" and len(values) == 1 and key not in labels:
            labels[key] = values[0]
        else:
            others.append({"key": key, "operator": operator, **({"values": list(values)} if values else {})})
    canonical = {"matchLabels": labels} if labels else {}
    canonical |= {"matchExpressions": others} if others else {}
    record = json.dumps({"kind": kind, "selector": canonical}, separators=(",", ":"), ensure_ascii=False)
    if kind == "subprocess" and not canonical:
        return "default", record
    return base64.b32encode(hashlib.sha256(record.encode()).digest()).decode().lower()[:10], record

if __name__ == "__main__":
    print(*lane(json.loads(sys.argv[1]), *sys.argv[2:]), sep="\n")
