# Reads folded stacks and a profile back with a viewer's own parsers, and compares their figures with
# those of the JSON document of the same buffers. Fails if they differ.
import collections, json, os, sys

from flamegraph_textual.parsers import parse

world = sys.argv[1]
buffers = json.load(open(os.path.join(world, "document.json")))["buffers"]


def read(name, kind):
    return parse(open(os.path.join(world, name), "rb").read(), name, profile_type=kind)


def command(buffer):
    """What stands at the outer end of a folded stack, as lsbuf escapes it; None: not a name."""
    origin = buffer.get("origin")
    if origin is None or origin["state"] != "made":
        return "[before the recorder]" if origin and origin["state"] == "before" else "[unknown]"
    known = {"a;b": r"a\x3bb", "a 17": r"a\x2017", "[unknown]": r"\x5bunknown]", "# a": r"\x23 a"}
    known |= {"f_[k]": r"f_\x5bk]", "": "[no name]", "a\nb": r"a\x0ab", r"\x3b": r"\\x3b"}
    known |= {"\u2028": r"\xe2\x80\xa8"}
    return known.get(origin["command"], origin["command"])


def outermost(buffer):
    """What stands at the outer end of a stack in a profile."""
    origin = buffer.get("origin")
    stack = origin.get("stack") if origin else None
    if origin is None or origin["state"] != "made":
        return command(buffer)
    if stack is None or stack["user_end"] in ("truncated", "unreadable"):
        return "[stack not read]" if stack is None else f"[{stack['user_end']}]"
    frames = stack["user"] or stack["kernel"]
    functions = frames[-1].get("functions") or [{"name": frames[-1].get("function")}]
    escaped = {"a\nb": r"a\x0ab", r"\x3b": r"\\x3b", "\u2028": r"\xe2\x80\xa8"}
    return escaped.get(functions[-1]["name"], functions[-1]["name"])


def sums(key, value):
    sums = collections.Counter()
    for buffer in buffers:
        sums[key(buffer)] += value(buffer)
    return sums


def tops(profile, nth):
    return collections.Counter({frame.name: frame.values[nth] for frame in profile.root_stack.children})


def objects(buffer):
    return 1


def cost(buffer):
    # As for every dma-buf, its size.
    assert buffer["kind"] == "dmabuf"
    return buffer["size"]


profile = read("profile.pb", "pprof")
types = [(one.sample_type, one.sample_unit) for one in profile.sample_types]
checks = [
    ("folded: objects", tops(read("objects.folded", "stackcollapse"), 0), sums(command, objects)),
    ("folded: bytes", tops(read("bytes.folded", "stackcollapse"), 0), sums(command, cost)),
    ("profile: objects", tops(profile, 0), sums(outermost, objects)),
    ("profile: bytes", tops(profile, 1), sums(outermost, cost)),
    ("profile: types", types, [("inuse_objects", "count"), ("inuse_space", "bytes")]),
]
rows = json.load(open(os.path.join(world, "trace.json")))
trace = read("trace.pb", "pprof")
for nth, what in enumerate(["alloc_objects", "alloc_space", "inuse_objects", "inuse_space"]):
    right = collections.Counter({row["function"]: row["values"][nth] for row in rows})
    checks.append((f"trace: {what}", tops(trace, nth), right))
    checks.append((f"trace: type of {what}", [trace.sample_types[nth].sample_type], [what]))
differ = False
for what, found, right in checks:
    differ |= found != right
    total = sum(right.values()) if isinstance(right, collections.Counter) else len(right)
    print(f"   {what}: {total}" + ("" if found == right else f", but {found} in place of {right}"))
sys.exit(1 if differ else 0)
