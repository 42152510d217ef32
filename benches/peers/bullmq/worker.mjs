// As many processes as there are cores, each with its part of the concurrency: node has one thread for the work.
import { spawn } from 'node:child_process';
import cluster from 'node:cluster';
import { createRequire } from 'node:module';

const require = createRequire(`${process.env.PEER_MODULES}/`);
const { Worker } = require('bullmq');

const [port, processes, concurrency] = process.argv.slice(2).map(Number);

function run(words) {
  return new Promise((resolve, reject) => {
    const child = spawn(words[0], words.slice(1), { stdio: 'ignore' });
    child.on('error', reject);
    child.on('close', (code) => resolve(code));
  });
}

if (cluster.isPrimary) {
  for (let number = 0; number < processes; number += 1) cluster.fork();
  process.on('SIGTERM', () => {
    for (const worker of Object.values(cluster.workers)) worker.process.kill('SIGTERM');
    process.exit(0);
  });
} else {
  const connection = { host: '127.0.0.1', port, maxRetriesPerRequest: null };
  const worker = new Worker('peer', (job) => run(job.data), { connection, concurrency });
  worker.on('error', (error) => console.error(error));
}
