"""Runs a command through runlane: submits it, follows its output byte by byte, exits with its code.

    pip install nats-py lz4
    NATS_URL=nats://127.0.0.1:4222 python3 client.py COMMAND [ARG ...]

CANCEL_AFTER=SECONDS cancels it then; SUBMIT=request goes through the service `runlane.submit`.
"""
import asyncio, json, os, sys, uuid
import lz4.block, nats

async def submit(nc, command):
    if os.environ.get("SUBMIT") == "request":  # the service makes the id and finds the lane
        reply = json.loads((await nc.request("runlane.submit", json.dumps({"command": command}).encode())).data)
        return reply["id"] if "id" in reply else sys.exit(json.dumps(reply, indent=2))
    task, mode = str(uuid.uuid4()), {"command": {"command": command[0], "args": command[1:]}}
    spec = json.dumps({"kind": {"subprocess": {"mode": mode}}}).encode()
    await nc.jetstream().publish(f"runlane.queue.default.{task}", spec)
    return task

async def read(nc, stream, subject, seq=1):
    """One page of what is stored from sequence `seq` on."""
    inbox, page = nc.new_inbox(), []
    replies = await nc.subscribe(inbox)
    ask = {"seq": seq, "next_by_subj": subject, "batch": 256, "max_bytes": 4 << 20}
    await nc.publish(f"$JS.API.DIRECT.GET.{stream}", json.dumps(ask).encode(), reply=inbox)
    while "Status" not in ((message := await replies.next_msg(timeout=5)).headers or {}):
        page.append(message)
    await replies.unsubscribe()  # 204: end of the page; 404: nothing there
    return page

async def follow(nc, task):
    """Writes each attempt's output as it comes, and returns the outcome."""
    bell, seq, attempt, place, held, got, patience = asyncio.Event(), 1, 0, {}, {}, {}, 50
    async def ring(_): bell.set()
    await nc.subscribe(f"runlane.output.{task}.*", cb=ring)
    await nc.subscribe(f"runlane.task.{task}.outcome", cb=ring)
    while True:
        bell.clear()
        ended = await read(nc, "RUNLANE_TASKS", f"runlane.task.{task}.outcome")  # before the output
        while page := await read(nc, "RUNLANE_OUTPUT", f"runlane.output.{task}.*", seq):
            for chunk in page:
                seq, head = int(chunk.headers["Nats-Sequence"]) + 1, chunk.headers
                if int(head["Runlane-Attempt"]) > attempt:
                    attempt, place, held, got = int(head["Runlane-Attempt"]), {}, {}, {}
                name, offset = head["Nats-Subject"].rsplit(".", 1)[1], int(head["Runlane-Offset"])
                if int(head["Runlane-Attempt"]) == attempt and (name, offset) not in got:
                    held[name, offset] = data = plain(head, chunk.data)
                    got[name, offset] = len(data)
            place = write(held, place)
        if ended:
            outcome = json.loads(ended[0].data)
            stored = sum(totals["storedBytes"] for totals in outcome.get("output", {}).values())
            patience -= 1  # a replica may lag behind; expired output never comes
            if stored <= (sum(got.values()) if outcome.get("attempt") == attempt else 0) or not patience:
                write(held, place, to_the_end=True)  # past a cap's hole
                return outcome
        try:
            await asyncio.wait_for(bell.wait(), 0.2 if ended else 5)
        except asyncio.TimeoutError:
            pass

def plain(head, data):
    """The bytes as the program wrote them: bulk output is compressed if the task or its runner asks for it."""
    compression = head.get("Runlane-Compression", "none")
    if compression == "none":
        return data
    if compression != "lz4":
        raise ValueError(f"this client can't read the compression {compression}")
    return lz4.block.decompress(data, uncompressed_size=int(head["Runlane-Length"]))

def write(held, place, to_the_end=False):
    for name, offset in sorted(held):  # a chunk that was stored twice may come out of order
        if to_the_end or offset == place.get(name, 0):
            data = held.pop((name, offset))
            place[name] = offset + len(data)
            getattr(sys, name).buffer.write(data)
            getattr(sys, name).flush()
    return place

async def main():
    nc = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
    task = await submit(nc, sys.argv[1:])
    following = asyncio.ensure_future(follow(nc, task))
    if "CANCEL_AFTER" in os.environ:
        await asyncio.wait([following], timeout=float(os.environ["CANCEL_AFTER"]))
        request = {"reason": "too slow", "by": "client.py"}
        await nc.jetstream().publish(f"runlane.task.{task}.cancel", json.dumps(request).encode())
    outcome = await following
    await nc.drain()
    print(f"{task}: {outcome['phase']}", file=sys.stderr)
    return outcome.get("exitCode", 130 if outcome["phase"] == "canceled" else 1)

sys.exit(asyncio.run(main()))
