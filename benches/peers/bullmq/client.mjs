// The client; `peerbench/side.py` explains its verbs.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

const require = createRequire(`${process.env.PEER_MODULES}/`);
const { Queue, QueueEvents } = require('bullmq');

const connection = { host: '127.0.0.1', port: Number(process.argv[2]), maxRetriesPerRequest: null };
const queue = new Queue('peer', { connection });
const events = new QueueEvents('peer', { connection });
// As in limit.c.
const PAUSE = 5;

async function enqueue({ count }) {
  await queue.addBulk(Array.from({ length: count }, () => ({ name: 'command', data: ['/bin/true'] })));
  return null;
}

async function latency({ count }) {
  const times = [];
  for (let number = 0; number < count; number += 1) {
    await sleep(PAUSE);
    const began = process.hrtime.bigint();
    const job = await queue.add('command', ['/bin/true']);
    const code = await job.waitUntilFinished(events);
    times.push(Number(process.hrtime.bigint() - began) / 1e9);
    if (code !== 0) throw new Error(`the command ended with ${code}`);
  }
  return times;
}

const verbs = { enqueue, latency };

await events.waitUntilReady();
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  process.stdout.write(`${JSON.stringify(await verbs[request.do](request))}\n`);
}
process.exit(0);
