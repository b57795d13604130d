#!/usr/bin/env node
// fsfreeze-snapshot: the process around run.ts. Nothing ends it while a writer may be held: signals, and what nobody
// caught (a bug), let go first.
import { printable } from '../../printable.js';
import { runSnapshot } from './run.js';

const controller = new AbortController();
const uncaught: unknown[] = [];

for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => {
    controller.abort(name);
  });
}
process.on('uncaughtException', (error) => {
  uncaught.push(error);
  controller.abort('an internal error');
});
// A closed terminal or pipe must not end it while a writer is held.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);

const streams = {
  stdout: (text: string) => process.stdout.write(text),
  stderr: (text: string) => process.stderr.write(text),
};

const INTERNAL_ERROR = 70;
// Until it has answered: a command that waits for nothing any more is a bug, too.
process.exitCode = INTERNAL_ERROR;
// No `await` outside a function: the bundle is CommonJS.
void runSnapshot(process.argv.slice(2), streams, controller.signal).then((code) => {
  for (const error of uncaught) {
    const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
    process.stderr.write(`fsfreeze-snapshot: internal error: ${printable(what)}\n`);
  }
  process.exitCode = uncaught.length > 0 && code !== 6 ? INTERNAL_ERROR : code;
});
